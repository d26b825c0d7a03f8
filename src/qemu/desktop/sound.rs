//! Sound cards and where they are heard.

use crate::ids::Id;
use crate::machine::Machine;
use crate::machine::slots::Behind;
use crate::profile::schema::{AudioBackend, AudioDevice};
use crate::qemu::Context;
use crate::qemu::args::{Args, Object, Options, path};
use crate::qemu::disk::USB;

/// The name of a card's backend.
pub(super) fn backend_id(card: &Id) -> String {
    format!("audio-{card}")
}

pub(super) fn add(
    args: &mut Args,
    machine: &Machine,
    context: Context,
    port: impl Fn(&str) -> Option<String>,
) {
    let mut index = 0;
    for audio in &machine.desktop.audio {
        let id = audio.id.as_str();
        let backend = backend_id(&audio.id);
        let options = Options::new(audio.backend_driver()).set("id", &backend);
        let options = match (&audio.server, audio.backend) {
            (Some(socket), AudioBackend::Pulseaudio) => {
                options.set("server", format!("unix:{}", path(socket)))
            }
            // PipeWire's is told by a variable.
            _ => options,
        };
        args.options("-audiodev", options);
        let device = Object::device(audio.driver(), id);
        let device = match audio.device {
            AudioDevice::Usb => device
                .set("bus", format!("{USB}.0"))
                .set_some("port", port(id)),
            AudioDevice::Sb16 => device,
            _ => {
                let place = context.slots.behind(Behind::Audio, index);
                index += 1;
                match audio.device {
                    AudioDevice::Virtio => context.virtio_named(audio.driver(), id),
                    _ => device,
                }
                .at(place)
            }
        };
        match audio.codec() {
            Some(codec) => {
                args.device(device);
                args.device(
                    Object::device(codec, format!("mvm-codec-{id}"))
                        .set("bus", format!("{id}.0"))
                        .set("audiodev", backend),
                );
            }
            None => args.device(device.set("audiodev", backend)),
        }
    }
}
