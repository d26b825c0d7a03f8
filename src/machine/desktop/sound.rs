//! Sound cards.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::display::Window;
use super::{Around, Desktop, DesktopError};
use crate::host::QemuCaps;
use crate::ids::Id;
use crate::machine::{BoardKind, check};
use crate::profile::schema::{AudioBackend, AudioCodec, AudioDevice, Layer};

/// How many on PCI the bridge has places for.
const MOST: usize = 7;

/// A sound card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audio {
    /// Its name.
    pub id: Id,
    /// What the guest sees.
    pub device: AudioDevice,
    /// What is connected to Intel's.
    pub codec: Option<AudioCodec>,
    /// Where the sound goes.
    pub backend: AudioBackend,
    /// The sound server's socket, or PipeWire's directory.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub server: Option<PathBuf>,
}

impl Audio {
    /// QEMU's device type.
    pub const fn driver(&self) -> &'static str {
        match self.device {
            AudioDevice::Ich9 | AudioDevice::None => "ich9-intel-hda",
            AudioDevice::Ich6 => "intel-hda",
            AudioDevice::Ac97 => "AC97",
            AudioDevice::Es1370 => "ES1370",
            AudioDevice::Sb16 => "sb16",
            AudioDevice::Usb => "usb-audio",
            AudioDevice::Virtio => "virtio-sound-pci",
        }
    }

    /// The device type of what is connected to it.
    pub fn codec(&self) -> Option<&'static str> {
        self.codec.map(|codec| match codec {
            AudioCodec::Duplex => "hda-duplex",
            AudioCodec::Micro => "hda-micro",
            AudioCodec::Output => "hda-output",
        })
    }

    /// QEMU's name of the backend.
    pub const fn backend_driver(&self) -> &'static str {
        match self.backend {
            AudioBackend::None => "none",
            AudioBackend::Pulseaudio => "pa",
            AudioBackend::Pipewire => "pipewire",
            AudioBackend::Alsa => "alsa",
            AudioBackend::Spice => "spice",
            AudioBackend::Dbus => "dbus",
        }
    }

    /// Whether it is a function of PCI.
    pub fn is_pci(&self) -> bool {
        !self.is_usb() && self.device != AudioDevice::Sb16
    }

    /// Whether it is on USB.
    pub fn is_usb(&self) -> bool {
        self.device == AudioDevice::Usb
    }
}

/// The sound cards, in the order of their names.
pub(super) fn audio(
    layer: &Layer,
    spice: bool,
    window: &Window,
    around: &Around,
) -> Result<Vec<Audio>, DesktopError> {
    let board = around.board.kind;
    let mut found = Vec::new();
    for (id, table) in layer.audio.iter().flatten() {
        let device = table.device.unwrap_or(AudioDevice::Ich9);
        if device == AudioDevice::None {
            continue;
        }
        let key = format!("audio.{id}");
        let intel = matches!(device, AudioDevice::Ich9 | AudioDevice::Ich6);
        if table.codec.is_some() && !intel {
            return Err(DesktopError::NotOf {
                key: format!("{key}.codec"),
                model: device.as_str(),
            });
        }
        let isa = matches!(board, BoardKind::Q35 | BoardKind::Pc);
        if board == BoardKind::Microvm || (device == AudioDevice::Sb16 && !isa) {
            return Err(DesktopError::NoModel {
                key,
                model: device.as_str(),
                board,
            });
        }
        let usual = if spice {
            AudioBackend::Spice
        } else {
            AudioBackend::None
        };
        let backend = table.backend.unwrap_or(usual);
        if backend == AudioBackend::Spice && !spice {
            return Err(DesktopError::NeedsSpice(format!("{key}.backend")));
        }
        if backend == AudioBackend::Dbus && !matches!(window, Window::Dbus(_)) {
            return Err(DesktopError::NeedsDbus(format!("{key}.backend")));
        }
        let mut audio = Audio {
            id: id.clone(),
            device,
            codec: intel.then(|| table.codec.unwrap_or(AudioCodec::Duplex)),
            backend,
            server: None,
        };
        lacks(&key, &audio, around.caps)?;
        audio.server = super::display::sound_server(&key, backend, window, around)?;
        found.push(audio);
    }
    let count = found.iter().filter(|audio| audio.is_pci()).count();
    if count > MOST {
        return Err(DesktopError::TooMany {
            count,
            what: "sound cards",
            most: MOST,
        });
    }
    if found
        .iter()
        .filter(|audio| audio.device == AudioDevice::Sb16)
        .count()
        > 1
    {
        return Err(DesktopError::TooMany {
            count: 2,
            what: "Sound Blasters",
            most: 1,
        });
    }
    Ok(found)
}

/// Whether QEMU can reach that backend.
fn lacks(key: &str, audio: &Audio, caps: &QemuCaps) -> Result<(), DesktopError> {
    let name = audio.backend_driver();
    if name == "none" || caps.audiodevs.is_empty() || caps.audiodevs.contains(name) {
        return Ok(());
    }
    Err(DesktopError::Lacks(check::LackError::Part {
        what: format!("`{key}`"),
        name: format!("the audio backend {name}"),
        version: caps.version.to_string(),
        why: caps.why_lacks(&format!("audiodev.{name}")),
    }))
}

/// Whether what viewers are to hear is there.
pub(super) fn heard(desktop: &Desktop) -> Result<(), DesktopError> {
    let vnc = desktop.vnc.as_ref().and_then(|vnc| vnc.audio.as_ref());
    let dbus = match &desktop.window {
        Window::Dbus(dbus) => dbus.audio.as_ref(),
        _ => None,
    };
    for (key, wanted) in [("display.vnc.audio", vnc), ("display.dbus.audio", dbus)] {
        if let Some(wanted) = wanted {
            let found = desktop.audio.iter().find(|audio| audio.id == *wanted);
            let Some(found) = found else {
                return Err(DesktopError::NoAudio {
                    key,
                    id: wanted.clone(),
                });
            };
            if key == "display.dbus.audio" && found.backend != AudioBackend::Dbus {
                return Err(DesktopError::AudioBackend(wanted.clone()));
            }
        }
    }
    Ok(())
}
