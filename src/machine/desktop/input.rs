//! Keyboards and pointers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::DesktopError;
use crate::ids::Id;
use crate::machine::{BoardKind, Bus};
use crate::profile::schema::{EvdevHotkey, EvdevTable, InputBus, InputDevice, InputTable, Layer};

/// How many virtio ones the bridge has places for.
const MOST_VIRTIO: usize = 16;

/// A keyboard or a pointer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Its name.
    pub id: Id,
    /// What it is.
    pub device: InputDevice,
    /// What the guest sees it on.
    pub bus: InputBus,
    /// The host's device, which has no bus in the guest: its keys go to the guest's keyboards.
    pub evdev: Option<Evdev>,
}

/// A keyboard or mouse of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evdev {
    /// The device.
    pub path: PathBuf,
    /// Whether the others follow it.
    pub grab_all: Option<bool>,
    /// Whether held keys are repeated.
    pub repeat: Option<bool>,
    /// The keys that hand it over.
    pub hotkey: Option<EvdevHotkey>,
}

impl Input {
    fn new(id: Id, device: InputDevice, bus: InputBus) -> Self {
        Self {
            id,
            device,
            bus,
            evdev: None,
        }
    }

    /// QEMU's device type; `None` for what the board has by itself, and for the host's.
    pub const fn driver(&self, board: BoardKind) -> Option<&'static str> {
        Some(match (self.device, self.bus, board.bus()) {
            (InputDevice::Evdev | InputDevice::None, ..) | (_, InputBus::Ps2, _) => return None,
            (InputDevice::Tablet, InputBus::Usb, _) => "usb-tablet",
            (InputDevice::Mouse, InputBus::Usb, _) => "usb-mouse",
            (InputDevice::Keyboard, InputBus::Usb, _) => "usb-kbd",
            (InputDevice::Tablet, InputBus::Virtio, Bus::Mmio) => "virtio-tablet-device",
            (InputDevice::Mouse, InputBus::Virtio, Bus::Mmio) => "virtio-mouse-device",
            (InputDevice::Keyboard, InputBus::Virtio, Bus::Mmio) => "virtio-keyboard-device",
            (InputDevice::Tablet, InputBus::Virtio, _) => "virtio-tablet-pci",
            (InputDevice::Mouse, InputBus::Virtio, _) => "virtio-mouse-pci",
            (InputDevice::Keyboard, InputBus::Virtio, _) => "virtio-keyboard-pci",
        })
    }
}

/// The keyboards and pointers, in the order of their names.
pub(super) fn inputs(
    layer: &Layer,
    shown: bool,
    board: BoardKind,
) -> Result<Vec<Input>, DesktopError> {
    let usual = match board {
        BoardKind::Microvm => InputBus::Virtio,
        BoardKind::Q35 | BoardKind::Pc | BoardKind::Virt => InputBus::Usb,
    };
    let mut inputs = Vec::new();
    let tables = layer.input.clone().unwrap_or_default();
    for (id, table) in &tables {
        let key = format!("input.{id}");
        match table.device {
            None => return Err(DesktopError::NoKind(key)),
            Some(InputDevice::None) => {}
            Some(InputDevice::Evdev) => inputs.push(of_host(id, table, &key)?),
            Some(device) => {
                if table.evdev.is_some() {
                    return Err(DesktopError::NotOf {
                        key: format!("{key}.evdev"),
                        model: device.as_str(),
                    });
                }
                let input = Input::new(id.clone(), device, table.bus.unwrap_or(usual));
                fits(&input, &key, board)?;
                inputs.push(input);
            }
        }
    }
    if shown && tables.is_empty() {
        let kinds: &[(&str, InputDevice)] = match board {
            // Their own keyboard is PS/2's.
            BoardKind::Q35 | BoardKind::Pc => &[("tablet", InputDevice::Tablet)],
            BoardKind::Virt | BoardKind::Microvm => &[
                ("keyboard", InputDevice::Keyboard),
                ("tablet", InputDevice::Tablet),
            ],
        };
        inputs.extend(kinds.iter().map(|(id, device)| {
            let id = id.parse().expect("they are ids");
            Input::new(id, *device, usual)
        }));
    }
    let virtio = |input: &&Input| input.evdev.is_none() && input.bus == InputBus::Virtio;
    let count = inputs.iter().filter(virtio).count();
    let most = match board.bus() {
        Bus::Mmio => 4,
        Bus::Pcie | Bus::Pci => MOST_VIRTIO,
    };
    if count > most {
        return Err(DesktopError::TooMany {
            count,
            what: "virtio keyboards and pointers",
            most,
        });
    }
    Ok(inputs)
}

fn fits(input: &Input, key: &str, board: BoardKind) -> Result<(), DesktopError> {
    let missing = match (input.bus, board) {
        (InputBus::Ps2, BoardKind::Virt | BoardKind::Microvm)
        | (InputBus::Usb, BoardKind::Microvm) => true,
        (InputBus::Ps2, _) => input.device == InputDevice::Tablet,
        _ => false,
    };
    if missing {
        return Err(DesktopError::NoBus {
            key: key.to_owned(),
            device: input.device.as_str(),
            bus: input.bus.as_str(),
            board,
        });
    }
    Ok(())
}

fn of_host(id: &Id, table: &InputTable, key: &str) -> Result<Input, DesktopError> {
    if table.bus.is_some() {
        return Err(DesktopError::NotOf {
            key: format!("{key}.bus"),
            model: "evdev",
        });
    }
    let EvdevTable {
        path,
        grab_all,
        repeat,
        hotkey,
    } = table.evdev.clone().unwrap_or_default();
    let path = path.ok_or_else(|| DesktopError::NoEvdev(key.to_owned()))?;
    let path = PathBuf::from(path);
    if !path.is_absolute() {
        return Err(DesktopError::Relative {
            key: format!("{key}.evdev.path"),
            path: path.display().to_string(),
        });
    }
    Ok(Input {
        evdev: Some(Evdev {
            path,
            grab_all,
            repeat,
            hotkey,
        }),
        ..Input::new(id.clone(), InputDevice::Evdev, InputBus::Ps2)
    })
}
