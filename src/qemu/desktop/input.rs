//! Keyboards and pointers.

use crate::machine::Machine;
use crate::machine::slots::Behind;
use crate::profile::schema::InputBus;
use crate::qemu::Context;
use crate::qemu::args::{Args, Object, path};
use crate::qemu::disk::USB;

pub(super) fn add(
    args: &mut Args,
    machine: &Machine,
    context: Context,
    port: impl Fn(&str) -> Option<String>,
) {
    let mut index = 0;
    for input in &machine.desktop.inputs {
        let id = input.id.as_str();
        if let Some(evdev) = &input.evdev {
            let object = Object::new("qom-type", "input-linux")
                .set("id", id)
                .set("evdev", path(&evdev.path))
                .set_some("grab_all", evdev.grab_all)
                .set_some("repeat", evdev.repeat)
                .set_some("grab-toggle", evdev.hotkey.map(|hotkey| hotkey.as_str()));
            args.json("-object", object);
            continue;
        }
        // What PS/2 has is the board's own.
        let Some(driver) = input.driver(context.board) else {
            continue;
        };
        args.device(match input.bus {
            InputBus::Virtio => {
                let place = context.slots.behind(Behind::Input, index);
                index += 1;
                context.virtio_named(driver, id).at(place)
            }
            InputBus::Usb | InputBus::Ps2 => Object::device(driver, id)
                .set("bus", format!("{USB}.0"))
                .set_some("port", port(id)),
        });
    }
}
