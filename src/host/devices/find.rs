//! The device that people mean: by address, by id, or by words and number.
//!
//! Words are looked for, whatever their case, in the line of class, vendor, device and ids that
//! `lspci -nn` shows, as one phrase first (`network controller`); where no line holds it, each word for
//! itself (`intel 15f3`), then without hyphens (`wi-fi` finds `WiFi`). The number is the place among those that match, in bus order, from 1.

mod usb;

use std::collections::BTreeSet;

use uuid::Uuid;

use super::{DeviceFacts, Mdev, PciDevice};
use crate::error::{ExitCode, Hint, did_you_mean};
use crate::ids::{Bdf, UsbPort};

pub use usb::{usb, usb_at, usb_id, usb_line, usb_matching, usb_serial, usb_words};

/// How many devices an error names.
const NAMED: usize = 6;

/// A device that is not there, or not as often as was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// Nothing matches.
    #[error("no {what} device matches `{asked}`")]
    Nothing {
        /// `PCI` or `USB`.
        what: &'static str,
        /// What was asked for.
        asked: String,
        /// Devices that may have been meant, one line each.
        near: Vec<String>,
    },
    /// Fewer match than the number that was asked for.
    #[error("`{asked}` asks for number {nth}, but only {} {what} device{} match{}",
        found.len(), if found.len() == 1 { "" } else { "s" }, if found.len() == 1 { "es" } else { "" })]
    TooFew {
        /// `PCI` or `USB`.
        what: &'static str,
        /// What was asked for.
        asked: String,
        /// The number.
        nth: usize,
        /// What matches, one line each.
        found: Vec<String>,
    },
    /// There is no device at that place.
    #[error("there is no {what} device at {place}")]
    Empty {
        /// `PCI` or `USB`.
        what: &'static str,
        /// The address or port.
        place: String,
        /// What is near it, one line each.
        near: Vec<String>,
    },
}

impl Hint for FindError {
    fn hints(&self) -> Vec<String> {
        let (lead, lines, what) = match self {
            Self::Nothing { near, what, .. } => ("perhaps", near, what),
            Self::TooFew { found, what, .. } => ("these match", found, what),
            Self::Empty { near, what, .. } => ("near it", near, what),
        };
        let mut hints: Vec<String> = Vec::new();
        if !lines.is_empty() {
            let named: Vec<&str> = lines.iter().take(NAMED).map(String::as_str).collect();
            hints.push(format!("{lead}: {}", named.join("; ")));
        }
        hints.push(format!(
            "`mvm devices {}` lists what there is",
            what.to_lowercase()
        ));
        hints
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Host
    }
}

/// What a text asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// The function at an address.
    Address(Bdf),
    /// The device at a USB port.
    Port(UsbPort),
    /// Vendor and device (product), and which of those that match, from 1.
    Id(u16, u16, usize),
    /// Words, and which of those that match, from 1.
    Words(String, usize),
}

impl Asked {
    /// `0000:01:00.0`, `8086:15f3`, `8086:15f3:2`, `wi-fi`, `network controller:2`.
    pub fn pci(text: &str) -> Self {
        match text.trim().parse() {
            Ok(bdf) => Self::Address(bdf),
            Err(_) => Self::other(text),
        }
    }

    /// `1-3.2`, `0781:5567`, `keyboard:2`.
    pub fn usb(text: &str) -> Self {
        match text.trim().parse() {
            Ok(port) => Self::Port(port),
            Err(_) => Self::other(text),
        }
    }

    fn other(text: &str) -> Self {
        let text = text.trim();
        if let Some((vendor, device)) = parse_id(text) {
            return Self::Id(vendor, device, 1);
        }
        let numbered = text.rsplit_once(':').and_then(|(words, number)| {
            let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            let nth: usize = number.parse().ok().filter(|nth| digits && *nth > 0)?;
            Some((words.trim(), nth)).filter(|(words, _)| !words.is_empty())
        });
        let (words, nth) = numbered.unwrap_or((text, 1));
        match parse_id(words) {
            Some((vendor, device)) => Self::Id(vendor, device, nth),
            None => Self::Words(words.to_owned(), nth),
        }
    }
}

/// `8086:15f3`, four digits each.
pub fn parse_id(text: &str) -> Option<(u16, u16)> {
    let (vendor, device) = text.split_once(':')?;
    let number = |part: &str| {
        (part.len() == 4 && part.bytes().all(|b| b.is_ascii_hexdigit()))
            .then(|| u16::from_str_radix(part, 16).ok())?
    };
    Some((number(vendor)?, number(device)?))
}

/// The PCI function that `text` means: an address, `vendor:device[:N]` or words`[:N]`.
///
/// # Errors
/// Where there is none; the error names what comes near.
pub fn pci<'a>(facts: &'a DeviceFacts, text: &str) -> Result<&'a PciDevice, FindError> {
    match Asked::pci(text) {
        Asked::Address(bdf) => pci_at(facts, bdf),
        Asked::Id(vendor, device, nth) => pci_id(facts, vendor, device, nth),
        Asked::Words(words, nth) => pci_words(facts, &words, nth),
        Asked::Port(_) => unreachable!("a PCI text is never read as a port"),
    }
}

/// The function at an address.
///
/// # Errors
/// Where there is none.
pub fn pci_at(facts: &DeviceFacts, bdf: Bdf) -> Result<&PciDevice, FindError> {
    facts.function(bdf).ok_or_else(|| {
        let slot = |device: &&PciDevice| device.bdf.same_slot(bdf);
        let bus =
            |device: &&PciDevice| device.bdf.domain == bdf.domain && device.bdf.bus == bdf.bus;
        let mut near: Vec<String> = facts.pci.iter().filter(slot).map(pci_line).collect();
        if near.is_empty() {
            near = facts.pci.iter().filter(bus).map(pci_line).collect();
        }
        FindError::Empty {
            what: "PCI",
            place: bdf.to_string(),
            near,
        }
    })
}

/// The Nth function (from 1, in bus order) with these ids.
///
/// # Errors
/// Where there are fewer.
pub fn pci_id(
    facts: &DeviceFacts,
    vendor: u16,
    device: u16,
    nth: usize,
) -> Result<&PciDevice, FindError> {
    let found: Vec<&PciDevice> = facts
        .pci
        .iter()
        .filter(|each| (each.vendor, each.device) == (vendor, device))
        .collect();
    let asked = format!("{vendor:04x}:{device:04x}");
    let near = || {
        let same = facts.pci.iter().filter(|each| each.vendor == vendor);
        same.map(pci_line).collect()
    };
    pick("PCI", &asked, &found, nth, pci_line, near)
}

/// The Nth function (from 1, in bus order) whose line holds the words.
///
/// # Errors
/// Where there are fewer.
pub fn pci_words<'a>(
    facts: &'a DeviceFacts,
    words: &str,
    nth: usize,
) -> Result<&'a PciDevice, FindError> {
    let found = pci_matching(facts, words);
    let near = || nearby(words, facts.pci.iter().map(|d| (d.line(), pci_line(d))));
    pick("PCI", words, &found, nth, pci_line, near)
}

/// Every function whose line holds the words, in bus order.
pub fn pci_matching<'a>(facts: &'a DeviceFacts, words: &str) -> Vec<&'a PciDevice> {
    let lines = facts.pci.iter().map(|d| (d, d.line().to_lowercase()));
    matching(words, lines, |_, line, word| line.contains(word))
}

/// The GPU that `text` means: as for [`pci`], and words and numbers count GPUs only.
///
/// # Errors
/// Where there is none; the error names the GPUs.
pub fn gpu<'a>(facts: &'a DeviceFacts, text: &str) -> Result<&'a PciDevice, FindError> {
    let is_gpu = |device: &&PciDevice| device.is_gpu();
    let near = || facts.pci.iter().filter(is_gpu).map(pci_line).collect();
    let (found, asked, nth): (Vec<&PciDevice>, String, usize) = match Asked::pci(text) {
        Asked::Id(vendor, device, nth) => {
            let ids = |each: &&PciDevice| (each.vendor, each.device) == (vendor, device);
            let found = facts.pci.iter().filter(is_gpu).filter(ids).collect();
            (found, format!("{vendor:04x}:{device:04x}"), nth)
        }
        Asked::Words(words, nth) => {
            let mut found = pci_matching(facts, &words);
            found.retain(|device| device.is_gpu());
            (found, words, nth)
        }
        Asked::Address(bdf) => {
            let at = facts.pci.iter().filter(is_gpu).filter(|d| d.bdf == bdf);
            (at.collect(), bdf.to_string(), 1)
        }
        Asked::Port(_) => unreachable!("a PCI text is never read as a port"),
    };
    pick("GPU", &asked, &found, nth, pci_line, near)
}

/// The mediated device with the UUID that `text` is, or whose type or parent it names.
///
/// # Errors
/// Where there is none; the error names those that there are.
pub fn mdev<'a>(facts: &'a DeviceFacts, text: &str) -> Result<&'a Mdev, FindError> {
    let line = |mdev: &Mdev| format!("{} ({} of {})", mdev.uuid, mdev.type_id, mdev.parent);
    let near = || facts.mdevs.iter().map(line).collect();
    if let Ok(uuid) = text.trim().parse::<Uuid>() {
        let found: Vec<&Mdev> = facts.mdevs.iter().filter(|one| one.uuid == uuid).collect();
        return pick("mdev", text, &found, 1, line, near);
    }
    let (words, nth) = match Asked::other(text) {
        Asked::Words(words, nth) => (words, nth),
        _ => (text.to_owned(), 1),
    };
    let lines = facts
        .mdevs
        .iter()
        .map(|mdev| (mdev, line(mdev).to_lowercase()));
    let found = matching(&words, lines, |_, line, word| line.contains(word));
    pick("mdev", &words, &found, nth, line, near)
}

/// Those whose line holds the words as one phrase; where there is none, those that hold each word; where
/// there is none either, the same without hyphens (`wi-fi` is `WiFi` to some).
fn matching<'a, D>(
    words: &str,
    lines: impl Iterator<Item = (&'a D, String)>,
    holds: impl Fn(&D, &str, &str) -> bool,
) -> Vec<&'a D> {
    let words = words.to_lowercase();
    let words: Vec<&str> = words.split_whitespace().collect();
    if words.is_empty() {
        return Vec::new();
    }
    let lines: Vec<(&D, String)> = lines.collect();
    let phrase = words.join(" ");
    let plain = |text: &str| text.replace('-', "");
    let select = |good: &dyn Fn(&D, &str) -> bool| -> Vec<&'a D> {
        let fits = lines.iter().filter(|(device, line)| good(device, line));
        fits.map(|(device, _)| *device).collect()
    };
    let whole = select(&|_, line| line.contains(&phrase));
    if !whole.is_empty() {
        return whole;
    }
    let each = select(&|device, line| words.iter().all(|word| holds(device, line, word)));
    let bare: Vec<String> = words.iter().map(|word| plain(word)).collect();
    if !each.is_empty() || bare.iter().any(String::is_empty) {
        return each;
    }
    select(&|device, line| bare.iter().all(|word| holds(device, &plain(line), word)))
}

fn pick<'a, D>(
    what: &'static str,
    asked: &str,
    found: &[&'a D],
    nth: usize,
    line: impl Fn(&D) -> String,
    near: impl FnOnce() -> Vec<String>,
) -> Result<&'a D, FindError> {
    if let Some(device) = nth.checked_sub(1).and_then(|place| found.get(place)) {
        return Ok(device);
    }
    if found.is_empty() {
        return Err(FindError::Nothing {
            what,
            asked: asked.to_owned(),
            near: near(),
        });
    }
    Err(FindError::TooFew {
        what,
        asked: asked.to_owned(),
        nth,
        found: found.iter().map(|device| line(device)).collect(),
    })
}

/// The lines that hold one of the words, or a word that is nearly one of them.
fn nearby(words: &str, lines: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let words = words.to_lowercase();
    let words: Vec<&str> = words.split_whitespace().filter(|w| w.len() > 2).collect();
    let lines = lines.filter(|(line, _)| {
        let line = line.to_lowercase();
        let whole = line.split(|c: char| !c.is_alphanumeric() && c != '-');
        let pieces = line.split(|c: char| !c.is_alphanumeric());
        let parts: BTreeSet<&str> = whole.chain(pieces).filter(|part| part.len() > 2).collect();
        words
            .iter()
            .any(|word| line.contains(word) || did_you_mean(word, parts.iter().copied()).is_some())
    });
    lines.map(|(_, shown)| shown).collect()
}

/// A function as errors and hints name it.
pub fn pci_line(device: &PciDevice) -> String {
    format!(
        "{} {} {} [{:04x}:{:04x}]",
        device.bdf, device.names.vendor, device.names.device, device.vendor, device.device
    )
}

#[cfg(test)]
mod tests;
