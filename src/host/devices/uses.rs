//! What the host itself does with a device.

pub(super) mod block;
pub(super) mod net;

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::console::BootConsole;
use super::mdev::Mdev;
use super::pci::PciDevice;
use super::place::Place;
use super::usb::UsbDevice;
use crate::host::sysfs::Sysfs;

/// A use by the host that ends when the device is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostUse {
    /// A file system on it is mounted.
    Mounted {
        /// The block device that is mounted, `nvme0n1p2`, `dm-0`.
        what: String,
        /// Where.
        at: String,
    },
    /// The host swaps to it.
    Swap {
        /// The block device.
        what: String,
    },
    /// A part of it belongs to a volume or array that has nothing mounted.
    Held {
        /// The block device.
        what: String,
        /// What holds it, `dm-0`, `md127`.
        by: String,
    },
    /// The host's way to other networks goes through it.
    DefaultRoute {
        /// The network device.
        link: String,
    },
    /// It is a port of a bridge.
    BridgeMember {
        /// The network device.
        link: String,
        /// The bridge.
        bridge: String,
    },
    /// It is a part of a bond or team.
    BondMember {
        /// The network device.
        link: String,
        /// The bond.
        bond: String,
    },
    /// The host's console is on it.
    ConsoleGpu {
        /// What draws it.
        console: String,
    },
    /// It has virtual functions.
    LiveVfs {
        /// How many.
        count: u32,
    },
    /// It has mediated devices.
    LiveMdevs {
        /// How many.
        count: u32,
    },
}

impl fmt::Display for HostUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mounted { what, at } => write!(f, "{what} is mounted at {at}"),
            Self::Swap { what } => write!(f, "the host swaps to {what}"),
            Self::Held { what, by } => write!(f, "{what} is a part of {by}"),
            Self::DefaultRoute { link } => write!(f, "the host's default route goes over {link}"),
            Self::BridgeMember { link, bridge } => write!(f, "{link} is a port of bridge {bridge}"),
            Self::BondMember { link, bond } => write!(f, "{link} is a part of {bond}"),
            Self::ConsoleGpu { console } => write!(f, "the host's console is on it ({console})"),
            Self::LiveVfs { count: 1 } => f.write_str("it has a virtual function"),
            Self::LiveVfs { count } => write!(f, "it has {count} virtual functions"),
            Self::LiveMdevs { count: 1 } => f.write_str("it has a mediated device"),
            Self::LiveMdevs { count } => write!(f, "it has {count} mediated devices"),
        }
    }
}

/// Tells each device its network and block devices, and what the host does with it.
pub(super) fn fill(
    sysfs: &Sysfs,
    around: Option<&Path>,
    pci: &mut [PciDevice],
    usb: &mut [UsbDevice],
    consoles: &[BootConsole],
    mdevs: &[Mdev],
) {
    for link in net::read(sysfs, around) {
        let of = |device: &mut PciDevice| {
            device.net.push(link.name.clone());
            device.net_down.extend(link.down.then(|| link.name.clone()));
        };
        own(pci, &link.place, of);
        spread(pci, usb, &link.place, &link.uses);
    }
    for disk in block::read(sysfs, around) {
        if !disk.partition {
            own(pci, &disk.place, |device| {
                device.block.push(disk.name.clone());
            });
        }
        spread(pci, usb, &disk.place, &disk.uses);
    }
    for device in pci {
        let own = consoles.iter().filter(|c| c.gpu == Some(device.bdf));
        let shown = own.map(|console| HostUse::ConsoleGpu {
            console: console.device.clone(),
        });
        device.used_by_host.extend(shown);
        if let Some(sriov) = device.sriov.as_ref().filter(|sriov| sriov.current > 0) {
            device.used_by_host.push(HostUse::LiveVfs {
                count: sriov.current,
            });
        }
        let name = device.bdf.to_string();
        let count = mdevs.iter().filter(|mdev| mdev.parent == name).count() as u32;
        if count > 0 {
            device.used_by_host.push(HostUse::LiveMdevs { count });
        }
    }
}

/// Does something with the function that a device belongs to itself; what is behind a USB controller is
/// not the controller's.
fn own(pci: &mut [PciDevice], place: &Place, mut tell: impl FnMut(&mut PciDevice)) {
    if place.usb.is_empty() {
        for device in pci.iter_mut().filter(|d| place.function() == Some(d.bdf)) {
            tell(device);
        }
    }
}

/// All that would go away with it is used: a disk, the stick it is in, the controller that is behind.
fn spread(pci: &mut [PciDevice], usb: &mut [UsbDevice], place: &Place, uses: &[HostUse]) {
    let functions = pci
        .iter_mut()
        .filter(|device| !device.bridge && place.pci.contains(&device.bdf))
        .map(|device| &mut device.used_by_host);
    let sticks = usb
        .iter_mut()
        .filter(|device| place.usb.contains(&device.path))
        .map(|device| &mut device.used_by_host);
    for known in functions.chain(sticks) {
        for each in uses {
            if !known.contains(each) {
                known.push(each.clone());
            }
        }
    }
}
