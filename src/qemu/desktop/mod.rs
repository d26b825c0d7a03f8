//! What a person sees, hears and holds of the guest: `-display`, `-vnc`, `-spice`, `-audiodev`, and the
//! devices that go with them.

mod display;
mod input;
mod local;
mod sound;
mod video;

pub(super) use display::window;
pub(super) use local::environment;

use super::Context;
use super::args::{Args, Object, Options, path};
use super::disk::USB;
use super::ports::SERIAL;
use crate::machine::Machine;
use crate::machine::desktop::redirect_id;
use crate::machine::drivers;
use crate::machine::ports::{SPICE_AGENT_NUMBER, SPICE_AGENT_PORT, WEBDAV_NUMBER, WEBDAV_PORT};
use crate::machine::slots::{BRIDGE, Behind, desktop_ports};

pub(super) fn add(args: &mut Args, machine: &Machine, context: Context) {
    let desktop = &machine.desktop;
    display::add(args, machine);
    let bridged = desktop.has_bridge() || context.slots.keeps_bridge();
    if bridged && context.board.bus() != crate::machine::Bus::Mmio {
        let bridge = Object::device(drivers::bridge(context.board), BRIDGE)
            .at(context.slots.bridge(context.board))
            .set_some(
                "multifunction",
                context.slots.bridge_hides_others().then_some(true),
            );
        args.device(match context.board {
            // It shares the numbers of chassis with the root ports of other boards; pc has none of those.
            crate::machine::BoardKind::Pc => bridge.set("chassis_nr", 1),
            _ => bridge,
        });
    }
    video::add(args, machine, context);
    let ports = desktop_ports(machine);
    let port = |id: &str| {
        let found = ports.iter().find(|(name, _)| name == id);
        found.map(|(_, port)| port.to_string())
    };
    sound::add(args, machine, context, port);
    input::add(args, machine, context, port);
    for (index, shmem) in desktop.shmem.iter().enumerate() {
        let backend = format!("mem-{}", shmem.id);
        let object = Object::new("qom-type", "memory-backend-file")
            .set("id", backend.as_str())
            .set("mem-path", path(&shmem.path))
            .set("size", shmem.size.as_bytes())
            .set("share", true);
        args.json("-object", object);
        let device = Object::device(drivers::SHMEM, shmem.id.as_str())
            .at(context.slots.behind(Behind::Shmem, index));
        args.device(device.set("memdev", backend));
    }
    for index in 0..desktop.usb_redirects {
        let id = redirect_id(index);
        let chardev = Options::new("spicevmc")
            .set("id", &id)
            .set("name", "usbredir");
        args.options("-chardev", chardev);
        args.device(
            Object::device(drivers::USB_REDIRECT, id.as_str())
                .set("bus", format!("{USB}.0"))
                .set_some("port", port(&id))
                .set("chardev", id),
        );
    }
    channels(args, machine);
}

/// The channels of SPICE's programs in the guest.
fn channels(args: &mut Args, machine: &Machine) {
    let desktop = &machine.desktop;
    let agent = "mvm-spice-agent";
    let spice = desktop.spice.as_ref().is_some_and(|spice| spice.agent);
    if spice {
        let chardev = Options::new("spicevmc")
            .set("id", agent)
            .set("name", "vdagent");
        args.options("-chardev", chardev);
    } else if desktop.clipboard {
        let chardev = Options::new("qemu-vdagent")
            .set("id", agent)
            .set("name", "vdagent")
            .set("clipboard", "on")
            .set("mouse", "off");
        args.options("-chardev", chardev);
    }
    let webdav = "mvm-spice-webdav";
    if desktop.has_webdav() {
        let chardev = Options::new("spiceport")
            .set("id", webdav)
            .set("name", WEBDAV_PORT);
        args.options("-chardev", chardev);
    }
    for (there, id, name, number) in [
        (
            desktop.has_agent(),
            agent,
            SPICE_AGENT_PORT,
            SPICE_AGENT_NUMBER,
        ),
        (desktop.has_webdav(), webdav, WEBDAV_PORT, WEBDAV_NUMBER),
    ] {
        if there {
            args.device(
                Object::device(drivers::SERIAL_PORT, id)
                    .set("bus", format!("{SERIAL}.0"))
                    .set("nr", number)
                    .set("chardev", id)
                    .set("name", name),
            );
        }
    }
}
