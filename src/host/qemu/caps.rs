//! What one QEMU binary can do, in the form that is cached.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ids::Arch;

/// A QEMU version: major, minor, micro.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version(pub u32, pub u32, pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// What one QEMU binary can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QemuCaps {
    /// The binary.
    pub binary: PathBuf,
    /// The architecture it emulates.
    pub arch: Arch,
    /// Its version.
    pub version: Version,
    /// The packager's suffix, as in `Debian 1:7.2+dfsg-7`; may be empty.
    pub package: String,
    /// Machine types by name; aliases are entries of their own.
    pub machines: BTreeMap<String, MachineType>,
    /// CPU models by name.
    pub cpus: BTreeMap<String, CpuModel>,
    /// Device types that `-device` can make.
    pub devices: BTreeSet<String>,
    /// Object types that `-object` can make.
    pub objects: BTreeSet<String>,
    /// The properties of the device types that were asked for.
    pub properties: BTreeMap<String, Properties>,
    /// Network backends (`user`, `tap`, `stream`, …).
    pub netdevs: BTreeSet<String>,
    /// Character device backends (`socket`, `pty`, …).
    pub chardevs: BTreeSet<String>,
    /// Displays (`gtk`, `sdl`, `spice-app`, …); those whose module file is missing are in `unloadable`.
    pub displays: BTreeSet<String>,
    /// Members of the display options beyond the display's name, such as `gtk.zoom-to-fit`.
    pub display_options: BTreeSet<String>,
    /// Audio backends.
    pub audiodevs: BTreeSet<String>,
    /// Block drivers.
    pub blockdevs: BTreeSet<String>,
    /// Accelerators that are built in: `kvm`, `tcg`, …
    pub accels: BTreeSet<String>,
    /// Command line options by name, with their parameters where QEMU tells them.
    pub options: BTreeMap<String, BTreeSet<String>>,
    /// QMP commands.
    pub commands: BTreeSet<String>,
    /// `-device` takes JSON, and means by it what `device_add` means.
    pub json_device: bool,
    /// Devices, displays and audio backends that QEMU lists while the module file they are in is
    /// not installed: name to file name.
    pub unloadable: BTreeMap<String, String>,
}

/// A machine type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineType {
    /// The real name, where this entry is an alias (`q35` for `pc-q35-7.2`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias_of: Option<String>,
    /// The most CPUs.
    pub cpu_max: u32,
    /// It is going to be removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deprecated: bool,
    /// The CPU model it takes by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_cpu: Option<String>,
}

/// A CPU model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuModel {
    /// It works with KVM (or another hardware accelerator) only, such as `host`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_kvm: bool,
    /// It is going to be removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deprecated: bool,
}

/// The properties of one device type, by kind: `{"bool": "packed iommu_platform", …}`.
/// Kept as text because most starts look at none of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Properties(pub BTreeMap<String, String>);

/// What JSON a property wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PropertyKind {
    /// `true` or `false`; `"on"` is refused.
    Bool,
    /// A whole number, 0 or more.
    Unsigned,
    /// A whole number.
    Signed,
    /// Text: strings, enumerations (`on`/`off`/`auto` among them), sizes, links by id.
    Text,
    /// A list of values.
    List,
}

/// The device types whose properties every probe reads: those that mvm itself puts on a command line.
pub const PROBED_DEVICES: &[&str] = &[
    "ICH9-LPC",
    "PIIX4_PM",
    "amd-iommu",
    "e1000",
    "e1000e",
    "hda-duplex",
    "i6300esb",
    "ich9-ahci",
    "ich9-intel-hda",
    "ide-cd",
    "ide-hd",
    "igb",
    "intel-hda",
    "intel-iommu",
    "nvdimm",
    "nvme",
    "nvme-ns",
    "pcie-root-port",
    "piix3-ide",
    "pvpanic-pci",
    "qemu-xhci",
    "qxl-vga",
    "ramfb",
    "rtl8139",
    "scsi-cd",
    "scsi-hd",
    "tpm-crb",
    "tpm-tis-device",
    "usb-host",
    "usb-kbd",
    "usb-mouse",
    "usb-redir",
    "usb-storage",
    "usb-tablet",
    "vfio-pci",
    "vhost-user-fs-device",
    "vhost-user-fs-pci",
    "vhost-vsock-device",
    "vhost-vsock-pci",
    "virtconsole",
    "virtio-9p-device",
    "virtio-9p-pci",
    "virtio-balloon-device",
    "virtio-balloon-pci",
    "virtio-blk-device",
    "virtio-blk-pci",
    "virtio-gpu-gl-pci",
    "virtio-gpu-pci",
    "virtio-input-host-pci",
    "virtio-iommu-pci",
    "virtio-keyboard-pci",
    "virtio-mouse-pci",
    "virtio-net-device",
    "virtio-net-pci",
    "virtio-rng-device",
    "virtio-rng-pci",
    "virtio-scsi-device",
    "virtio-scsi-pci",
    "virtio-serial-device",
    "virtio-serial-pci",
    "virtio-tablet-pci",
    "virtio-vga",
    "virtio-vga-gl",
    "virtserialport",
    "vmgenid",
];
