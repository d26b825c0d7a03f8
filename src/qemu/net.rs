//! Network cards and where their packets go.

use super::Context;
use super::args::{Args, Object};
use super::command::FdSource;
use crate::machine::drivers::{self, Virtio};
use crate::machine::{Bus, Machine, Nic, NicBackend};
use crate::profile::schema::NicModel;

pub(super) fn add(args: &mut Args, machine: &Machine, context: Context) {
    for (index, nic) in machine.nics.iter().enumerate() {
        backend(args, nic);
        let device = match nic.model {
            NicModel::Virtio => context.virtio(Virtio::Net, nic.id.as_str()),
            NicModel::E1000 => {
                Object::device(drivers::nic(nic.model, context.board), nic.id.as_str())
            }
        };
        let pci = context.board.bus() != Bus::Mmio;
        args.device(
            device
                .at(context.slots.nic(index))
                .set("netdev", netdev(nic))
                .set("mac", nic.mac.to_string())
                // Nothing boots from the network: its boot ROM would only cost time.
                .set_some("romfile", pci.then_some("")),
        );
    }
}

fn netdev(nic: &Nic) -> String {
    format!("net-{}", nic.id)
}

fn backend(args: &mut Args, nic: &Nic) {
    let id = netdev(nic);
    match &nic.backend {
        NicBackend::User { forwards, restrict } => {
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
                .set_some("restrict", restrict.then_some(true))
                .set_some("hostfwd", (!rules.is_empty()).then_some(rules));
            args.json("-netdev", user);
        }
        NicBackend::Tap { name, vhost, .. } => {
            let tap = Object::new("type", "tap").set("id", id);
            let queue = format!("tap-{}", nic.id);
            let mut real = tap.clone().set("fd", format!("{{fd:{queue}}}"));
            let mut shown = tap
                .set("ifname", name.as_str())
                .set("script", "no")
                .set("downscript", "no");
            args.fd(queue, FdSource::Tap(name.clone()));
            if *vhost {
                let device = format!("vhost-{}", nic.id);
                real = real
                    .set("vhost", true)
                    .set("vhostfd", format!("{{fd:{device}}}"));
                shown = shown.set("vhost", true);
                args.fd(device, FdSource::Device("/dev/vhost-net".into()));
            }
            args.json_fd("-netdev", real, shown);
        }
    }
}
