//! What a USB device is to people, from its interfaces' classes (<https://www.usb.org/defined-class-codes>).

use serde::{Deserialize, Serialize};

use super::{UsbDevice, UsbInterface};

/// What a USB device is to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UsbKind {
    /// A keyboard.
    Keyboard,
    /// A mouse.
    Mouse,
    /// A tablet or touch screen.
    Tablet,
    /// Another input device: a game controller, a remote control.
    Input,
    /// A disk, a stick, a card reader.
    Storage,
    /// A wired network adapter.
    Ethernet,
    /// A wireless network adapter or modem.
    Wireless,
    /// Bluetooth.
    Bluetooth,
    /// Sound.
    Audio,
    /// A camera, or a phone that shows its pictures.
    Camera,
    /// A serial port.
    Serial,
    /// A printer.
    Printer,
    /// A reader of chip cards.
    SmartCard,
    /// A hub.
    Hub,
}

/// Words for a kind, the one that is shown first.
const WORDS: [(UsbKind, &[&str]); 14] = [
    (UsbKind::Keyboard, &["keyboard", "kbd"]),
    (UsbKind::Mouse, &["mouse"]),
    (UsbKind::Tablet, &["tablet", "touchscreen"]),
    (UsbKind::Input, &["input", "hid", "gamepad", "joystick"]),
    (
        UsbKind::Storage,
        &["storage", "disk", "stick", "mass storage"],
    ),
    (UsbKind::Ethernet, &["ethernet", "lan", "network"]),
    (
        UsbKind::Wireless,
        &["wireless", "wi-fi", "wifi", "wlan", "modem"],
    ),
    (UsbKind::Bluetooth, &["bluetooth"]),
    (UsbKind::Audio, &["audio", "sound", "headset"]),
    (UsbKind::Camera, &["camera", "webcam", "video"]),
    (UsbKind::Serial, &["serial", "uart", "serial port"]),
    (UsbKind::Printer, &["printer"]),
    (
        UsbKind::SmartCard,
        &["smart-card", "smartcard", "card reader"],
    ),
    (UsbKind::Hub, &["hub"]),
];

impl UsbKind {
    /// Its word.
    pub fn word(self) -> &'static str {
        let own = WORDS.iter().find(|(kind, _)| *kind == self);
        own.map_or("", |(_, words)| words[0])
    }
}

/// The kinds that a text names, whatever its case; none for other words.
pub(in crate::host::devices) fn kinds_named(text: &str) -> Vec<UsbKind> {
    let text = text.trim().to_lowercase();
    WORDS
        .iter()
        .filter(|(_, words)| words.contains(&text.as_str()))
        .map(|(kind, _)| *kind)
        .collect()
}

/// USB to serial chips whose interfaces are of their makers' own class: FTDI, Silicon Labs, WCH,
/// Prolific.
const SERIAL_VENDORS: [u16; 4] = [0x0403, 0x10c4, 0x1a86, 0x067b];

/// What the device is; nothing where neither its classes nor its names tell.
pub(super) fn kinds(device: &UsbDevice) -> Vec<UsbKind> {
    let mut all: Vec<UsbKind> = device.interfaces.iter().filter_map(of_class).collect();
    if device.class == 0x09 {
        all.push(UsbKind::Hub);
    }
    if all.is_empty() {
        all.extend(of_own_class(device));
    }
    let has = |class: u8| device.interfaces.iter().any(|i| i.class == class);
    // A headset's buttons or a stick's lock do not make an input device of it.
    if all.is_empty() && has(0x03) {
        all.push(of_name(device));
    }
    all.sort_unstable();
    all.dedup();
    all
}

fn of_class(interface: &UsbInterface) -> Option<UsbKind> {
    let UsbInterface {
        class,
        subclass,
        protocol,
        ..
    } = *interface;
    Some(match (class, subclass, protocol) {
        (0x01, ..) => UsbKind::Audio,
        (0x02, 0x02, 0xff) | (0xe0, 0x01, 0x03) | (0xef, 0x04, 0x01) => UsbKind::Ethernet,
        (0x02, 0x02, _) => UsbKind::Serial,
        (0x02, 0x06 | 0x0c | 0x0d, _) => UsbKind::Ethernet,
        (0x02, 0x0e, _) | (0xe0, 0x02, _) => UsbKind::Wireless,
        // The protocol has a meaning for what a firmware's setup can use only.
        (0x03, 0x01, 0x01) => UsbKind::Keyboard,
        (0x03, 0x01, 0x02) => UsbKind::Mouse,
        (0x06 | 0x0e, ..) => UsbKind::Camera,
        (0x07, ..) => UsbKind::Printer,
        (0x08, ..) => UsbKind::Storage,
        (0x09, ..) => UsbKind::Hub,
        (0x0b, ..) => UsbKind::SmartCard,
        (0xe0, 0x01, 0x01) => UsbKind::Bluetooth,
        _ => return None,
    })
}

/// A device whose interfaces are of its maker's own class: its driver or its names tell.
fn of_own_class(device: &UsbDevice) -> Option<UsbKind> {
    let own = device.interfaces.iter().filter(|i| i.class == 0xff);
    let mut drivers = own.clone().filter_map(|i| i.driver.as_deref());
    own.clone().next()?;
    if SERIAL_VENDORS.contains(&device.vendor)
        || drivers
            .clone()
            .any(|d| ["ftdi_sio", "cp210x", "ch341", "pl2303"].contains(&d))
    {
        return Some(UsbKind::Serial);
    }
    let wired = [
        "r8152",
        "r8153_ecm",
        "asix",
        "ax88179_178a",
        "smsc75xx",
        "smsc95xx",
        "lan78xx",
        "aqc111",
    ];
    if drivers.any(|driver| wired.contains(&driver)) {
        return Some(UsbKind::Ethernet);
    }
    let line = device.line().to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| line.contains(word));
    if has(&["bluetooth"]) {
        Some(UsbKind::Bluetooth)
    } else if has(&["wireless", "wlan", "wi-fi", "wifi", "802.11"]) {
        Some(UsbKind::Wireless)
    } else if has(&["ethernet", " lan", "10/100"]) {
        Some(UsbKind::Ethernet)
    } else if has(&["serial", "uart"]) {
        Some(UsbKind::Serial)
    } else {
        None
    }
}

/// An input device that no firmware knows: its names tell.
fn of_name(device: &UsbDevice) -> UsbKind {
    let line = device.line().to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| line.contains(word));
    if has(&["keyboard"]) {
        UsbKind::Keyboard
    } else if has(&["mouse", "trackball"]) {
        UsbKind::Mouse
    } else if has(&["tablet", "touch", "digitizer"]) {
        UsbKind::Tablet
    } else {
        UsbKind::Input
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, interfaces: &[(u8, u8, u8)]) -> UsbDevice {
        UsbDevice {
            product_name: name.to_owned(),
            interfaces: interfaces
                .iter()
                .map(|&(class, subclass, protocol)| UsbInterface {
                    class,
                    subclass,
                    protocol,
                    ..UsbInterface::default()
                })
                .collect(),
            ..UsbDevice::default()
        }
    }

    #[test]
    fn interfaces_tell_what_a_device_is() {
        use UsbKind::*;
        for (name, interfaces, kinds_of) in [
            (
                "Receiver",
                &[(3, 1, 1), (3, 1, 2), (3, 0, 0)][..],
                &[Keyboard, Mouse][..],
            ),
            ("QEMU USB Tablet", &[(3, 0, 2)], &[Tablet]),
            ("Pad", &[(3, 0, 0)], &[Input]),
            ("Stick", &[(8, 6, 0x50)], &[Storage]),
            ("Headset", &[(1, 1, 0), (1, 2, 0), (3, 0, 0)], &[Audio]),
            ("Webcam", &[(0xe, 1, 0), (1, 1, 0)], &[Audio, Camera]),
            ("", &[(0xe0, 1, 1), (0xe0, 1, 1)], &[Bluetooth]),
            ("Pico", &[(2, 2, 0), (0xa, 0, 0)], &[Serial]),
            ("USB 10/100/1000 LAN", &[(0xff, 0xff, 0)], &[Ethernet]),
            ("802.11ac NIC", &[(0xff, 0xff, 0xff)], &[Wireless]),
            ("Thing", &[(0xff, 0xff, 0xff)], &[]),
        ] {
            assert_eq!(kinds(&device(name, interfaces)), kinds_of, "{name}");
        }
        let ftdi = UsbDevice {
            vendor: 0x0403,
            ..device("x", &[(0xff, 0xff, 0xff)])
        };
        assert_eq!(kinds(&ftdi), [Serial]);
    }

    #[test]
    fn each_kind_has_its_word() {
        for (kind, words) in WORDS {
            assert_eq!(kind.word(), words[0]);
            assert_eq!(kinds_named(&words[0].to_uppercase()), [kind]);
        }
        assert!(kinds_named("logitech").is_empty());
    }
}
