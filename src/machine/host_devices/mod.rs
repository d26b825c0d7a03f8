//! Devices of the host that the guest gets, and what has to be done with the host for it.

pub mod error;
pub(in crate::machine) mod gpu;
mod group;
mod limits;
mod may;
mod mdev;
mod place;
mod resolve;
#[cfg(test)]
mod tests;
mod usb;
mod vf;

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use error::DeviceError;
pub use limits::{PhysBits, backend};
pub use resolve::{Asked, resolve, wants, write_memory};

use super::drivers;
use crate::handover::Extent;
pub use crate::handover::{ConsoleRef, Provision, VfNet};
use crate::ids::{Bdf, Id, PciRef, UsbPort};

/// The driver that hands a PCI function to a guest.
pub const VFIO_PCI: &str = "vfio-pci";

/// A device of the host that the guest gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDevice {
    /// Its name, which is QEMU's id of it.
    pub id: Id,
    /// What it is, for people: class, names and ids.
    pub text: String,
    /// What it is on the host.
    pub kind: HostDeviceKind,
    /// Whether it is taken although the host itself uses it.
    pub take_from_host: bool,
    /// Whether it is out of the guest while that sleeps.
    #[serde(default)]
    pub park: bool,
    /// How the guest sees it.
    pub guest: GuestSide,
}

impl HostDevice {
    /// The profile's table that it is from, or that the flag stands for.
    pub fn key(&self) -> String {
        let id = &self.id;
        match self.kind {
            _ if id.as_str() == "gpu" => id.to_string(),
            HostDeviceKind::Pci(_) => format!("pci.{id}"),
            HostDeviceKind::Mdev(_) => format!("mdev.{id}"),
            HostDeviceKind::Usb(_) => format!("usb.{id}"),
        }
    }
}

impl fmt::Display for HostDeviceKind {
    /// Its place on the host, as `mvm devices` tells what a guest has.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(pci) => pci.function.fmt(f),
            Self::Mdev(mdev) => write!(f, "mdev {}", mdev.uuid),
            Self::Usb(usb) => write!(f, "usb {}", usb.port),
        }
    }
}

impl HostDeviceKind {
    /// The PCI function, if it is one.
    pub const fn function(&self) -> Option<PciRef> {
        match self {
            Self::Pci(pci) => Some(pci.function),
            Self::Mdev(_) | Self::Usb(_) => None,
        }
    }

    /// What the guest's lease of it is of.
    pub fn extent(&self) -> Extent {
        match self {
            Self::Pci(pci) => Extent::pci(pci.function),
            Self::Mdev(mdev) => Extent::mdev(mdev.uuid, mdev.part_of),
            Self::Usb(usb) => Extent::usb(&usb.port, usb.part_of),
        }
    }
}

impl fmt::Display for HostDevice {
    /// Which device of the host it is: its place there, and what people call it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            HostDeviceKind::Pci(pci) => {
                match pci.function {
                    PciRef::Function(bdf) => write!(f, "{bdf}")?,
                    function @ PciRef::Vf { .. } if pci.predicted => {
                        write!(f, "{function}, expected at {}", pci.address)?;
                    }
                    function @ PciRef::Vf { .. } => write!(f, "{function} at {}", pci.address)?,
                }
                if let Some(group) = pci.group {
                    write!(f, " in IOMMU group {group}")?;
                }
            }
            HostDeviceKind::Mdev(mdev) => write!(f, "mediated device {}", mdev.uuid)?,
            HostDeviceKind::Usb(usb) => write!(f, "USB port {}", usb.port)?,
        }
        write!(f, ": {}", self.text)
    }
}

/// What a device is on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostDeviceKind {
    /// A PCI function.
    Pci(HostPci),
    /// A mediated device.
    Mdev(HostMdev),
    /// A USB device.
    Usb(HostUsb),
}

/// A PCI function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPci {
    /// Its one name.
    pub function: PciRef,
    /// Where it is.
    pub address: Bdf,
    /// Whether the address is only what is expected: the virtual function is still to be made.
    pub predicted: bool,
    /// Its IOMMU group, where it is known yet.
    pub group: Option<u32>,
    /// The driver that it is bound to for the guest.
    pub driver: String,
    /// The driver that it had when the host was looked at.
    pub had: Option<String>,
}

/// A mediated device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostMdev {
    /// Its name: where mvm makes it, one derived from the guest's name, so that it stays.
    pub uuid: Uuid,
    /// Its parent's name in `/sys/class/mdev_bus`: a PCI address, or that of a virtual device.
    pub parent: String,
    /// The PCI function that its parent is, if it is one.
    #[serde(default)]
    pub part_of: Option<PciRef>,
    /// Its type, where it is known.
    pub type_id: Option<String>,
    /// Whether mvm makes it.
    pub create: bool,
    /// Whether one that mvm made stays when the guest is gone.
    pub keep: bool,
}

/// A USB device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostUsb {
    /// The port that it is plugged into.
    pub port: UsbPort,
    /// The controller that it is behind.
    #[serde(default)]
    pub part_of: Option<PciRef>,
    /// The bus of the half of the port that it uses.
    pub bus: u8,
    /// Its number on that bus, which changes when it is plugged in again.
    pub address: u8,
    /// The path of ports on that bus, as QEMU's `hostport` wants it: `3.2`.
    pub hostport: String,
    /// The vendor's id.
    pub vendor: u16,
    /// The product's id.
    pub product: u16,
    /// The serial number.
    pub serial: Option<String>,
    /// The interfaces (`1-3.2:1.0`) and the drivers that they had.
    pub interfaces: Vec<(String, Option<String>)>,
    /// How it was asked for: what is plugged in later and answers to it is the same device.
    pub ask: UsbAsk,
}

/// How a USB device was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UsbAsk {
    /// By vendor and product.
    Id(u16, u16),
    /// By serial number.
    Serial(String),
    /// By port, whatever is plugged in there.
    Port(UsbPort),
    /// By kind or words, the Nth that they match, 1 first.
    Match(String, u32),
}

/// How the guest sees a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestSide {
    /// Where it sits; none for USB.
    pub place: Option<GuestPlace>,
    /// Another image than the device's own option ROM.
    pub rom: Option<PathBuf>,
    /// Whether the guest sees an option ROM at all.
    pub no_rom: bool,
    /// Whether it is the guest's VGA.
    pub x_vga: bool,
    /// What an Intel GPU needs.
    pub igd: Option<Igd>,
    /// Whether its picture goes to the guest's displays.
    #[serde(default)]
    pub display: bool,
    /// Whether firmware draws on it.
    #[serde(default)]
    pub ramfb: bool,
}

impl GuestSide {
    /// QEMU's device type of a device that comes through VFIO.
    pub const fn driver(&self) -> &'static str {
        // What firmware draws on cannot be taken away.
        if self.ramfb {
            drivers::VFIO_RAMFB
        } else {
            drivers::VFIO
        }
    }
}

/// What an Intel GPU needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Igd {
    /// The firmware's OpRegion with the table of the displays.
    pub opregion: bool,
    /// Stolen memory, in units of 32 MiB.
    pub gms: Option<u32>,
}

/// Where a device sits in the guest; `slots` turns it into bus and address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuestPlace {
    /// A slot of the root bus.
    Root {
        /// The slot.
        slot: u8,
        /// The function.
        function: u8,
        /// Whether other functions follow in the slot.
        multifunction: bool,
    },
    /// The slot with that number among those for devices of the host: behind a root port of its own
    /// where the board has them.
    Own {
        /// Its number, 0 first.
        index: u8,
        /// The function.
        function: u8,
        /// Whether other functions follow in the slot.
        multifunction: bool,
    },
}

/// Virtual functions that have to be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfSet {
    /// The physical function.
    pub pf: Bdf,
    /// How many there are to be; where they exist, how many there are.
    pub count: u32,
    /// Whether they exist already: then their number is not touched.
    pub existing: bool,
    /// Whether those that mvm makes stay when their last user is gone.
    pub keep: bool,
    /// What each of them gets.
    pub provision: Option<Provision>,
    /// The network side of the guest's own.
    pub net: Vec<VfNet>,
}

/// What the guest needs of the host's devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDevices {
    /// The devices that the guest gets.
    pub devices: Vec<HostDevice>,
    /// The virtual functions that must exist for it.
    pub vfs: Vec<VfSet>,
    /// Bound to vfio-pci without being the guest's: the rest of an IOMMU group.
    pub companions: Vec<HostPci>,
    /// Consoles that let go of a GPU first, in that order.
    pub detach_consoles: Vec<ConsoleRef>,
}

impl fmt::Display for UsbAsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(vendor, product) => write!(f, "{vendor:04x}:{product:04x}"),
            Self::Serial(serial) => write!(f, "the serial number {serial}"),
            Self::Port(port) => write!(f, "the port {port}"),
            Self::Match(words, 1) => write!(f, "`{words}`"),
            Self::Match(words, nth) => write!(f, "`{words}:{nth}`"),
        }
    }
}
