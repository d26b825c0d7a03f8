//! Names of ids: the host's own `pci.ids` and `usb.ids` first, the list in this program after them.
//!
//! The files have a megabyte; they are walked through once, and only names that are wanted are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::pci::Names;

/// Where distributions keep `pci.ids`.
const PCI_FILES: [&str; 3] = [
    "usr/share/misc/pci.ids",
    "usr/share/hwdata/pci.ids",
    "usr/share/pci.ids",
];

/// Where distributions keep `usb.ids`.
const USB_FILES: [&str; 3] = [
    "usr/share/misc/usb.ids",
    "usr/share/hwdata/usb.ids",
    "var/lib/usbutils/usb.ids",
];

/// Made of the crate `pci-ids` when mvm is built: classes, vendors and devices, without subsystems.
static OWN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pci.ids"));

/// Names that were found, by ids.
#[derive(Debug, Default)]
pub(super) struct Found {
    vendors: BTreeMap<u16, Option<String>>,
    devices: BTreeMap<(u16, u16), Option<String>>,
    /// By base class.
    classes: BTreeMap<u8, Option<String>>,
    /// By base class and subclass.
    subclasses: BTreeMap<(u8, u8), Option<String>>,
}

impl Found {
    fn wanting(
        devices: impl Iterator<Item = (u16, u16)>,
        classes: impl Iterator<Item = u16>,
    ) -> Self {
        let devices: BTreeSet<(u16, u16)> = devices.collect();
        let classes: BTreeSet<(u8, u8)> = classes
            .map(|code| ((code >> 8) as u8, code as u8))
            .collect();
        Self {
            vendors: devices.iter().map(|(vendor, _)| (*vendor, None)).collect(),
            devices: devices.into_iter().map(|ids| (ids, None)).collect(),
            classes: classes.iter().map(|(base, _)| (*base, None)).collect(),
            subclasses: classes.into_iter().map(|code| (code, None)).collect(),
        }
    }

    fn is_complete(&self) -> bool {
        self.vendors.values().all(Option::is_some)
            && self.devices.values().all(Option::is_some)
            && self.subclasses.values().all(Option::is_some)
    }

    /// Takes the wanted names of a list that are not known yet.
    ///
    /// A vendor's line starts with its id, one of its devices' with a tab, a class' with `C `, a
    /// subclass' with a tab again (<https://pci-ids.ucw.cz>; `usb.ids` is alike).
    fn take(&mut self, list: &[u8]) {
        enum Section {
            Vendor(u16),
            Class(u8),
            Skipped,
        }
        let mut section = Section::Skipped;
        for line in list.split(|byte| *byte == b'\n') {
            match line {
                [b'\t', b'\t', ..] | [b'#', ..] | [] => {}
                [b'\t', rest @ ..] => match section {
                    Section::Vendor(vendor) => {
                        if let Some((device, name)) = entry(rest, 4) {
                            fill(self.devices.get_mut(&(vendor, device)), name);
                        }
                    }
                    Section::Class(base) => {
                        if let Some((subclass, name)) = entry(rest, 2) {
                            fill(self.subclasses.get_mut(&(base, subclass as u8)), name);
                        }
                    }
                    Section::Skipped => {}
                },
                [b'C', b' ', rest @ ..] => {
                    section = Section::Skipped;
                    if let Some((base, name)) = entry(rest, 2) {
                        if let Some(wanted) = self.classes.get_mut(&(base as u8)) {
                            fill(Some(wanted), name);
                            section = Section::Class(base as u8);
                        }
                    }
                }
                line => {
                    section = Section::Skipped;
                    if let Some((vendor, name)) = entry(line, 4) {
                        if let Some(wanted) = self.vendors.get_mut(&vendor) {
                            fill(Some(wanted), name);
                            section = Section::Vendor(vendor);
                        }
                    }
                }
            }
        }
    }

    /// What a PCI function is called; where there is no name, the id is in its place.
    pub(super) fn pci(&self, class: u16, vendor: u16, device: u16) -> Names {
        let (base, sub) = ((class >> 8) as u8, class as u8);
        let general = || self.classes.get(&base).cloned().flatten();
        Names {
            class: self
                .subclasses
                .get(&(base, sub))
                .cloned()
                .flatten()
                .or_else(general)
                .unwrap_or_else(|| format!("Class {class:04x}")),
            vendor: self
                .vendor(vendor)
                .unwrap_or_else(|| format!("Vendor {vendor:04x}")),
            device: self
                .device(vendor, device)
                .unwrap_or_else(|| format!("Device {device:04x}")),
        }
    }

    /// The vendor's name.
    pub(super) fn vendor(&self, vendor: u16) -> Option<String> {
        self.vendors.get(&vendor).cloned().flatten()
    }

    /// The device's name.
    pub(super) fn device(&self, vendor: u16, device: u16) -> Option<String> {
        self.devices.get(&(vendor, device)).cloned().flatten()
    }
}

/// An id of so many digits, and the name that follows it after white space.
fn entry(line: &[u8], digits: usize) -> Option<(u16, &[u8])> {
    let (id, name) = line.split_at_checked(digits)?;
    let id = id.iter().try_fold(0u16, |id, byte| {
        let digit = char::from(*byte).to_digit(16)?;
        Some(id << 4 | digit as u16)
    })?;
    name.first().filter(|byte| byte.is_ascii_whitespace())?;
    Some((id, name.trim_ascii()))
}

fn fill(slot: Option<&mut Option<String>>, name: &[u8]) {
    if let Some(slot @ None) = slot {
        *slot = Some(String::from_utf8_lossy(name).into_owned());
    }
}

/// The names of PCI ids and class codes, from the files of `around` and mvm's own list.
pub(super) fn pci(
    around: Option<&Path>,
    devices: impl Iterator<Item = (u16, u16)>,
    classes: impl Iterator<Item = u16>,
) -> Found {
    let mut found = Found::wanting(devices, classes);
    if let Some(list) = first_of(around, &PCI_FILES) {
        found.take(&list);
    }
    if !found.is_complete() {
        found.take(OWN);
    }
    found
}

/// The names of USB ids, from the files of `around`.
pub(super) fn usb(around: Option<&Path>, devices: impl Iterator<Item = (u16, u16)>) -> Found {
    let mut found = Found::wanting(devices, std::iter::empty());
    if !found.is_complete() {
        if let Some(list) = first_of(around, &USB_FILES) {
            found.take(&list);
        }
    }
    found
}

fn first_of(around: Option<&Path>, files: &[&str]) -> Option<Vec<u8>> {
    let around = around?;
    files
        .iter()
        .find_map(|file| std::fs::read(around.join(file)).ok())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_hosts_list_goes_first_and_mvms_own_fills_the_gaps() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("usr/share/misc")).unwrap();
        let list = "# a comment\n8086  The Host Says Intel\n\t15f3  Its I225\n\t\t8086 0001  a board\n\
                    10de  NVIDIA Corporation\nC 02  Network things\n\t00  Ethernet thing\n";
        std::fs::write(dir.path().join("usr/share/misc/pci.ids"), list).unwrap();
        let wanted = [(0x8086, 0x15f3), (0x10de, 0x1e87), (0xfff3, 0x0001)];
        let found = pci(
            Some(dir.path()),
            wanted.into_iter(),
            [0x0200, 0x0300].into_iter(),
        );
        let ours = found.pci(0x0200, 0x8086, 0x15f3);
        assert_eq!(
            (
                ours.class.as_str(),
                ours.vendor.as_str(),
                ours.device.as_str()
            ),
            ("Ethernet thing", "The Host Says Intel", "Its I225")
        );
        let own = found.pci(0x0300, 0x10de, 0x1e87);
        assert_eq!(own.class, "VGA compatible controller");
        assert!(own.device.contains("RTX 2080"), "{}", own.device);
        let none = found.pci(0x0300, 0xfff3, 0x0001);
        assert_eq!(
            (none.vendor.as_str(), none.device.as_str()),
            ("Vendor fff3", "Device 0001")
        );
    }

    proptest! {
        #[test]
        fn no_list_upsets_the_reader(list in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut found = Found::wanting([(0x8086, 0x15f3)].into_iter(), [0x0200].into_iter());
            found.take(&list);
            let names = found.pci(0x0200, 0x8086, 0x15f3);
            prop_assert!(!names.class.is_empty());
        }
    }
}
