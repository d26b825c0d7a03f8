//! What the steps of host devices carry beside names: the state from before, and what is asked for.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{MacAddr, PciRef, UsbPort};

/// Who takes a device, or shares something of the host: a guest by its name and run-time directory.
///
/// The directory is what counts: guests of two users may have one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct User {
    /// The guest's name; empty for what was asked for by hand.
    pub guest: String,
    /// Its run-time directory, whose `lock` is held as long as it lives.
    pub run_dir: PathBuf,
}

/// How a PCI function stood before it was taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Bound {
    /// The driver that had it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The only driver that might have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_override: Option<String>,
    /// `power/control`, which vfio-pci changes: `on` or `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_control: Option<String>,
}

/// A file of sysfs or debugfs and what it held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Attribute {
    /// The file, relative to `/sys`.
    pub path: PathBuf,
    /// Its text, without the white space around it.
    pub value: String,
}

/// What the host's network driver holds about a virtual function.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct VfNetState {
    /// Its address; all zeroes where the driver gave it none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<[u8; 6]>,
    /// Its VLAN; 0 for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
}

impl VfNetState {
    /// What a profile asks for.
    pub fn wanted(mac: Option<MacAddr>, vlan: Option<u16>) -> Self {
        Self {
            mac: mac.map(MacAddr::bytes),
            vlan,
        }
    }
}

/// An interface of a USB device and the driver that had it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Interface {
    /// The kernel's name, `1-3.2:1.0`.
    pub name: String,
    /// Its driver.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub driver: Option<String>,
}

/// A device that QEMU opens through VFIO.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VfioDevice {
    /// A PCI function.
    Pci(PciRef),
    /// A mediated device.
    Mdev(Uuid),
}

impl fmt::Display for VfioDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(pci) => pci.fmt(f),
            Self::Mdev(uuid) => uuid.fmt(f),
        }
    }
}

/// A device node that QEMU opens by its path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Node {
    /// The IOMMU group's, `/dev/vfio/14`.
    Group(VfioDevice),
    /// The device's own, `/dev/vfio/devices/vfio0`.
    Own(VfioDevice),
    /// A USB device's, `/dev/bus/usb/001/004`.
    Usb {
        /// The port.
        port: UsbPort,
        /// The kernel's name of the half of the port that it uses, `1-3.2`.
        name: String,
    },
    /// A keyboard's or mouse's, as it is named below `/dev/input`.
    Input(PathBuf),
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(device) | Self::Own(device) => write!(f, "the VFIO node of {device}"),
            Self::Usb { port, .. } => write!(f, "the node of the USB device at {port}"),
            Self::Input(path) => path.display().fmt(f),
        }
    }
}

/// Whose a device node is, and who may open it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The permission bits.
    pub mode: u32,
}

impl Owner {
    /// That user alone.
    pub const fn alone(uid: u32) -> Self {
        Self { uid, mode: 0o600 }
    }
}
