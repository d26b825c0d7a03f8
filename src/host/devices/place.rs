//! Whose a network or block device is: read from the path that its link in a class leads to.

use std::path::Path;

use crate::host::sysfs::Sysfs;
use crate::ids::{Bdf, UsbPort};

/// The devices on the way from the root of sysfs to another one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Every PCI function on the way, the outermost first. A disk behind a controller that makes a
    /// domain of its own (VMD) goes with that one too.
    pub(super) pci: Vec<Bdf>,
    /// The USB device it is a part of, by the kernel's name, with the hubs before it.
    pub(super) usb: Vec<String>,
}

impl Place {
    /// The function it belongs to.
    pub(super) fn function(&self) -> Option<Bdf> {
        self.pci.last().copied()
    }
}

/// The place of what the link `rel` leads to.
pub(super) fn of(sysfs: &Sysfs, rel: &str) -> Place {
    match std::fs::read_link(sysfs.path(rel)) {
        Ok(target) => of_path(&target),
        Err(_) => Place::default(),
    }
}

/// The place of a path into `devices`.
pub(super) fn of_path(path: &Path) -> Place {
    let mut place = Place::default();
    let mut behind_usb = false;
    for part in path.iter().filter_map(|part| part.to_str()) {
        if let Ok(bdf) = part.parse() {
            place.pci.push(bdf);
        } else if part.starts_with("usb") {
            behind_usb = true;
        } else if behind_usb && part.parse::<UsbPort>().is_ok() {
            place.usb.push(part.to_owned());
        }
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_devices() {
        let disk = "../../devices/pci0000:00/0000:00:14.0/usb1/1-7/1-7.2/1-7.2:1.0/host6/target6:0:0/6:0:0:0/block/sdb";
        let place = of_path(Path::new(disk));
        assert_eq!(
            place.function().map(|f| f.to_string()).as_deref(),
            Some("0000:00:14.0")
        );
        assert_eq!(place.usb, ["1-7", "1-7.2"]);
        let vmd = "../../devices/pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0/nvme/nvme0/nvme0n1";
        let all: Vec<String> = of_path(Path::new(vmd))
            .pci
            .iter()
            .map(Bdf::to_string)
            .collect();
        assert_eq!(all, ["0000:00:0e.0", "10000:e0:06.0", "10000:e1:00.0"]);
        assert_eq!(
            of_path(Path::new("../../devices/virtual/block/dm-0")),
            Place::default()
        );
    }
}
