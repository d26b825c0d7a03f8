//! Network cards and where their packets go.

use super::Context;
use super::args::{Args, Object, path};
use super::command::FdSource;
use super::{chardev, storage};
use crate::machine::drivers::{self, Virtio};
use crate::machine::{Bus, Machine, Nic, NicBackend};
use crate::profile::schema::NicModel;

pub(super) fn add(args: &mut Args, machine: &Machine, context: Context) {
    let mut index = 0;
    for nic in &machine.nics {
        backend(args, nic);
        let options = &nic.options;
        let device = match nic.model {
            NicModel::Virtio => context.virtio_as(Virtio::Net, nic.id.as_str(), options.virtio),
            model => Object::device(drivers::nic(model, context.board), nic.id.as_str()),
        };
        let pci = context.board.bus() != Bus::Mmio;
        let boot = options.boot.filter(|_| machine.kernel.is_none());
        // Nothing boots from the others: their boot ROM would only cost time.
        let no_rom = pci && boot.is_none() && options.rom.is_none();
        let rom = options.rom.as_ref().map(|rom| path(rom));
        let place = match options.address {
            Some(slot) => context.slots.at(slot),
            None => {
                index += 1;
                context.slots.nic(index - 1)
            }
        };
        let first = storage::first_of_several(machine, options.address);
        let first = first.or_else(|| {
            let alone = options.address.is_some() || !context.slots.nic_hides_others(index - 1);
            (!alone).then_some(true)
        });
        args.device(
            device
                .at(place)
                .set_some("multifunction", first)
                .set("netdev", netdev(nic))
                .set("mac", nic.mac.to_string())
                .set_some("mq", options.queues.map(|_| true))
                // One for each queue, one for the card's settings, one for its commands.
                .set_some(
                    "vectors",
                    options.queues.filter(|_| pci).map(|queues| 2 * queues + 2),
                )
                .set_some(
                    "host_mtu",
                    options.mtu.filter(|_| nic.model == NicModel::Virtio),
                )
                .set_some("rx_queue_size", options.rx_queue_size)
                .set_some("tx_queue_size", options.tx_queue_size)
                .set_some("bootindex", boot)
                .set_some("romfile", rom.or_else(|| no_rom.then(String::new))),
        );
    }
}

fn netdev(nic: &Nic) -> String {
    format!("net-{}", nic.id)
}

fn backend(args: &mut Args, nic: &Nic) {
    let id = netdev(nic);
    match &nic.backend {
        NicBackend::User {
            forwards,
            restrict,
            addresses,
        } => {
            let rules: Vec<serde_json::Value> = forwards
                .iter()
                .map(|forward| {
                    let protocol = if forward.udp { "udp" } else { "tcp" };
                    let rule = format!(
                        "{protocol}:{}:{}-:{}",
                        forward.address, forward.host, forward.guest
                    );
                    serde_json::json!({ "str": rule })
                })
                .collect();
            let user = Object::new("type", "user")
                .set("id", id)
                .set_some("net", addresses.subnet.clone())
                .set_some("host", addresses.gateway.map(|ip| ip.to_string()))
                .set_some("dhcpstart", addresses.guest.map(|ip| ip.to_string()))
                .set_some("restrict", restrict.then_some(true))
                .set_some("hostfwd", (!rules.is_empty()).then_some(rules));
            args.json("-netdev", user);
        }
        NicBackend::Tap { name, vhost, .. } => {
            let tap = Object::new("type", "tap").set("id", id);
            let queues = nic.options.queues.unwrap_or(1);
            // The first has the name that it has where it is alone.
            let names = |what: &str| -> Vec<String> {
                let more = (1..queues).map(|queue| format!("{what}-{}-{queue}", nic.id));
                std::iter::once(format!("{what}-{}", nic.id))
                    .chain(more)
                    .collect()
            };
            let (one, several) = match queues {
                1 => (("fd", "vhostfd"), None),
                queues => (("fds", "vhostfds"), Some(queues)),
            };
            let list = |names: &[String]| {
                let fds: Vec<String> = names.iter().map(|name| format!("{{fd:{name}}}")).collect();
                fds.join(":")
            };
            let taps = names("tap");
            let mut real = tap.clone().set(one.0, list(&taps));
            let mut shown = tap
                .set("ifname", name.as_str())
                .set("script", "no")
                .set("downscript", "no")
                .set_some("queues", several);
            for queue in taps {
                args.fd(queue, FdSource::Tap(name.clone()));
            }
            if *vhost {
                let devices = names("vhost");
                real = real.set("vhost", true).set(one.1, list(&devices));
                shown = shown.set("vhost", true);
                for device in devices {
                    args.fd(device, FdSource::Device("/dev/vhost-net".into()));
                }
            }
            args.json_fd("-netdev", real, shown);
        }
        NicBackend::VhostUser { socket, server } => {
            let chardev = format!("{id}-socket");
            if *server {
                chardev::socket(args, &chardev, socket, None);
            } else {
                chardev::connect(args, &chardev, socket);
            }
            let other = Object::new("type", "vhost-user")
                .set("id", id)
                .set("chardev", chardev)
                .set_some("queues", nic.options.queues);
            args.json("-netdev", other);
        }
    }
}
