//! PCI functions.

pub(super) mod read;

use serde::{Deserialize, Serialize};

use super::uses::HostUse;
use crate::ids::{Bdf, PciRef};

/// A PCI function, as `/sys/bus/pci/devices/` shows it (`Documentation/ABI/testing/sysfs-bus-pci`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct PciDevice {
    /// Its address.
    pub bdf: Bdf,
    /// Base class, subclass and programming interface: 24 bits.
    pub class: u32,
    /// The vendor.
    pub vendor: u16,
    /// The vendor's number for the device.
    pub device: u16,
    /// Vendor and number of the board it is on.
    pub subsystem: Option<(u16, u16)>,
    /// Its revision.
    pub revision: u8,
    /// What people call these.
    pub names: Names,
    /// The driver that has it.
    pub driver: Option<String>,
    /// The only driver that may have it.
    pub driver_override: Option<String>,
    /// Its IOMMU group: what can only be given away together.
    pub group: Option<u32>,
    /// The NUMA node it is at.
    pub numa: Option<u32>,
    /// How the kernel can reset it (`flr`, `pm`, `bus`, `device_specific`, `acpi`, …), best first. Kernels
    /// before 5.15 do not tell.
    pub reset_methods: Vec<String>,
    /// Whether the kernel can reset it alone.
    pub can_reset: bool,
    /// Whether the firmware showed its messages on it.
    pub boot_vga: bool,
    /// Whether it is a bridge: it needs no driver for its group to be given away, and cannot be.
    pub bridge: bool,
    /// The bridge it is behind.
    pub parent: Option<Bdf>,
    /// For a virtual function: its physical function, and its number from 1.
    pub physfn: Option<(Bdf, u32)>,
    /// For a physical function: its virtual ones.
    pub sriov: Option<Sriov>,
    /// Its network devices.
    pub net: Vec<String>,
    /// Those of them that are switched off.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub net_down: Vec<String>,
    /// Its block devices, whole disks.
    pub block: Vec<String>,
    /// Its DRM devices, `card0`, `renderD128`.
    pub drm: Vec<String>,
    /// Whether it may sleep at run time: `auto` or `on`.
    pub power_control: Option<String>,
    /// Whether it does not answer: its driver hangs.
    pub silent: bool,
    /// What mvm is doing to it at this moment, or has not come back from.
    pub under_way: Option<String>,
    /// What the host does with it.
    pub used_by_host: Vec<HostUse>,
}

/// What people call a device; the ids in brackets where nobody named it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Names {
    /// What it is: `VGA compatible controller`.
    pub class: String,
    /// Who made it.
    pub vendor: String,
    /// Which one it is.
    pub device: String,
}

/// The virtual functions of a physical function.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Sriov {
    /// How many it can have.
    pub total: u32,
    /// How many it has.
    pub current: u32,
    /// How far the first one's routing id is from its own.
    pub offset: u32,
    /// How far the routing ids are apart.
    pub stride: u32,
    /// The device id of each.
    pub vf_device: Option<u16>,
    /// Whether the kernel looks for a driver for new ones.
    pub autoprobe: bool,
    /// Those that exist, in the order of their numbers (the number of each is in its `physfn`).
    pub vfs: Vec<Bdf>,
}

impl PciDevice {
    /// The base class: 0x02 network, 0x03 display, 0x0c serial bus, …
    pub const fn base_class(&self) -> u8 {
        (self.class >> 16) as u8
    }

    /// Class and subclass: 0x0300 VGA, 0x0403 audio device, 0x0c03 USB controller, …
    pub const fn class_code(&self) -> u16 {
        (self.class >> 8) as u16
    }

    /// Whether it can show a picture or compute one: VGA, 3D and other display controllers.
    pub const fn is_gpu(&self) -> bool {
        self.base_class() == 0x03
    }

    /// Whether the host's console is on it.
    pub fn shows_console(&self) -> bool {
        let console = |used: &HostUse| matches!(used, HostUse::ConsoleGpu { .. });
        self.used_by_host.iter().any(console)
    }

    /// Its one name.
    pub const fn reference(&self) -> PciRef {
        match self.physfn {
            Some((pf, index)) => PciRef::Vf { pf, index },
            None => PciRef::Function(self.bdf),
        }
    }

    /// Class, vendor and device name with the ids, as `lspci -nn` shows them: what words are looked for
    /// in.
    pub fn line(&self) -> String {
        let Names {
            class,
            vendor,
            device,
        } = &self.names;
        format!(
            "{class} [{:04x}]: {vendor} {device} [{:04x}:{:04x}]",
            self.class_code(),
            self.vendor,
            self.device
        )
    }
}
