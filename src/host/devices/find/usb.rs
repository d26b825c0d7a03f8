//! USB devices: by port, ids, serial number, or what they are.

use super::{Asked, FindError, matching, nearby, pick};
use crate::host::devices::usb::kinds_named;
use crate::host::devices::{DeviceFacts, UsbDevice};
use crate::ids::UsbPort;

/// The USB device that `text` means: a port, `vendor:product[:N]` or words`[:N]`.
///
/// # Errors
/// Where there is none; the error names what comes near.
pub fn usb<'a>(facts: &'a DeviceFacts, text: &str) -> Result<&'a UsbDevice, FindError> {
    match Asked::usb(text) {
        Asked::Port(port) => usb_at(facts, &port),
        Asked::Id(vendor, product, nth) => usb_id(facts, vendor, product, nth),
        Asked::Words(words, nth) => usb_words(facts, &words, nth),
        Asked::Address(_) => unreachable!("a USB text is never read as a PCI address"),
    }
}

/// The device at a port. A port's two halves are one port, and either's name is taken.
///
/// # Errors
/// Where none is there.
pub fn usb_at<'a>(facts: &'a DeviceFacts, port: &UsbPort) -> Result<&'a UsbDevice, FindError> {
    let own = facts.usb_at(port);
    let half = || {
        let mut all = facts.usb.iter();
        all.find(|device| device.path == port.as_str())
    };
    own.or_else(half).ok_or_else(|| FindError::Empty {
        what: "USB",
        place: format!("port {port}"),
        near: facts.usb.iter().filter(|d| !d.hub).map(usb_line).collect(),
    })
}

/// The Nth device (from 1, in the order of the ports) with these ids.
///
/// # Errors
/// Where there are fewer.
pub fn usb_id(
    facts: &DeviceFacts,
    vendor: u16,
    product: u16,
    nth: usize,
) -> Result<&UsbDevice, FindError> {
    let ours = |each: &&UsbDevice| (each.vendor, each.product) == (vendor, product);
    let found: Vec<&UsbDevice> = facts.usb.iter().filter(ours).collect();
    let asked = format!("{vendor:04x}:{product:04x}");
    let near = || facts.usb.iter().filter(|d| !d.hub).map(usb_line).collect();
    pick("USB", &asked, &found, nth, usb_line, near)
}

/// The device with this serial number.
///
/// # Errors
/// Where none has it.
pub fn usb_serial<'a>(facts: &'a DeviceFacts, serial: &str) -> Result<&'a UsbDevice, FindError> {
    let ours = |each: &&UsbDevice| each.serial.as_deref() == Some(serial);
    let found: Vec<&UsbDevice> = facts.usb.iter().filter(ours).collect();
    let near = || {
        let with = facts.usb.iter().filter(|d| d.serial.is_some());
        with.map(usb_line).collect()
    };
    pick("USB", serial, &found, 1, usb_line, near)
}

/// The Nth device (from 1, in the order of the ports) that is of the kinds that the words name
/// (`keyboard`, `storage`, …) or has the words in its names, ids or serial number.
///
/// # Errors
/// Where there are fewer.
pub fn usb_words<'a>(
    facts: &'a DeviceFacts,
    words: &str,
    nth: usize,
) -> Result<&'a UsbDevice, FindError> {
    let found = usb_matching(facts, words);
    let near = || {
        let devices = facts.usb.iter().filter(|d| !d.hub);
        nearby(words, devices.map(|d| (d.line(), usb_line(d))))
    };
    pick("USB", words, &found, nth, usb_line, near)
}

/// Every device that is of the kinds that the words name or has the words, in the order of the ports.
pub fn usb_matching<'a>(facts: &'a DeviceFacts, words: &str) -> Vec<&'a UsbDevice> {
    // A hub is nothing that people mean, unless they say so.
    let hubs = words.to_lowercase().contains("hub");
    let devices = || facts.usb.iter().filter(move |d| hubs || !d.hub);
    // A word for a kind means devices of that kind: a `USB Keyboard Hub` is none.
    let kind = kinds_named(words);
    if !kind.is_empty() {
        let ours = |d: &&UsbDevice| d.kinds.iter().any(|k| kind.contains(k));
        let found: Vec<&UsbDevice> = devices().filter(ours).collect();
        if !found.is_empty() {
            return found;
        }
    }
    let lines = devices().map(|d| (d, d.line().to_lowercase()));
    matching(words, lines, |device, line, word| {
        let kinds = kinds_named(word);
        line.contains(word) || device.kinds.iter().any(|k| kinds.contains(k))
    })
}

/// A USB device as errors and hints name it.
pub fn usb_line(device: &UsbDevice) -> String {
    format!("{} {}", device.port, device.line())
}
