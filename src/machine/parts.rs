//! The parts of a machine that are nothing but data.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{DiskOptions, Iommu, NicOptions, Virtiofs, net};
use crate::ids::{Id, MacAddr};
use crate::profile::schema::{
    Aio, Cache, DiskBus, DiskFormat, Gic, Irqchip, Media, NicModel, SecurityModel, WatchdogAction,
    WatchdogModel,
};

/// The QEMU that runs the guest, and what of it shapes the command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qemu {
    /// The program.
    pub binary: PathBuf,
    /// Its version: major, minor, micro.
    pub version: (u32, u32, u32),
    /// Whether its seccomp filter is on.
    pub sandbox: bool,
}

/// The board.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Board {
    /// QEMU's machine type, as the profile names it: `q35`, `pc-q35-7.2`.
    pub machine_type: String,
    /// The kind of board that it is.
    pub kind: BoardKind,
    /// The interrupt controller of `virt`.
    pub gic: Option<Gic>,
    /// Whether there is a virtio-iommu.
    pub virtio_iommu: bool,
    /// Whether there is VMware's port.
    #[serde(default)]
    pub vmport: bool,
    /// Where KVM's interrupt controllers are, if not where QEMU has them.
    #[serde(default)]
    pub irqchip: Option<Irqchip>,
    /// Another IOMMU, which is a part of the board.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub iommu: Option<Iommu>,
}

/// The boards that mvm drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BoardKind {
    /// x86_64 with PCI Express.
    Q35,
    /// x86_64 with PCI.
    Pc,
    /// x86_64 without PCI, for Linux.
    Microvm,
    /// aarch64.
    Virt,
}

impl BoardKind {
    /// The bus its devices sit on.
    pub const fn bus(self) -> Bus {
        match self {
            Self::Q35 | Self::Virt => Bus::Pcie,
            Self::Pc => Bus::Pci,
            Self::Microvm => Bus::Mmio,
        }
    }

    /// The kind's name, which is also that of its newest machine type.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Q35 => "q35",
            Self::Pc => "pc",
            Self::Microvm => "microvm",
            Self::Virt => "virt",
        }
    }
}

impl std::fmt::Display for BoardKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The bus that devices sit on; it decides the names of virtio devices (`-pci`, `-device`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bus {
    /// PCI Express: q35, virt.
    Pcie,
    /// PCI: pc.
    Pci,
    /// virtio-mmio: microvm.
    Mmio,
}

/// The accelerator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accel {
    /// Which.
    pub chosen: AccelKind,
    /// Why, for people.
    pub reason: String,
}

/// The accelerators that mvm drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccelKind {
    /// The kernel's.
    Kvm,
    /// QEMU's translation.
    Tcg,
}

/// The processors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// `-cpu`'s value: the model and its options.
    pub model: String,
    /// How many; the product of the next five.
    pub count: u32,
    /// Sockets.
    pub sockets: u32,
    /// Dies a socket.
    #[serde(default = "one")]
    pub dies: u32,
    /// Clusters a die.
    #[serde(default = "one")]
    pub clusters: u32,
    /// Cores a cluster.
    pub cores: u32,
    /// Threads a core.
    pub threads: u32,
    /// Features that the model is to have, or not.
    #[serde(default)]
    pub features: BTreeMap<String, bool>,
}

/// Plans of an older mvm say nothing of dies and clusters.
const fn one() -> u32 {
    1
}

/// A kernel that is started directly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// The image.
    pub image: PathBuf,
    /// The initial ramdisk.
    pub initrd: Option<PathBuf>,
    /// The command line.
    pub append: String,
}

/// The firmware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// The machine's own, or none: QEMU gets no word about it.
    Builtin,
    /// An image loaded with `-bios`.
    Bios(PathBuf),
    /// UEFI in flash.
    Flash {
        /// The code, which all guests share.
        code: PathBuf,
        /// The code's format.
        code_format: DiskFormat,
        /// The guest's variables; without them every start is the first.
        vars: Option<Vars>,
        /// Whether the code guards its variables by System Management Mode (x86, secure boot).
        smm: bool,
    },
}

/// The UEFI variable store of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vars {
    /// What it is copied from when the guest has none.
    pub template: PathBuf,
    /// The guest's own.
    pub path: PathBuf,
    /// The format of both.
    pub format: DiskFormat,
}

/// A disk or a drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its name.
    pub id: Id,
    /// The image; a drive may be empty.
    pub image: Option<Image>,
    /// The throw-away overlay that takes the writes.
    pub overlay: Option<PathBuf>,
    /// The bus.
    pub bus: DiskBus,
    /// Disk or drive.
    pub media: Media,
    /// The cache mode.
    pub cache: Cache,
    /// The I/O engine.
    pub aio: Aio,
    /// Whether discards reach the image.
    pub discard: bool,
    /// Whether writes are refused.
    pub read_only: bool,
    /// The place in the boot order, 1 first.
    pub boot: Option<u32>,
    /// The serial number.
    pub serial: Option<String>,
    /// What few disks have.
    #[serde(default, skip_serializing_if = "DiskOptions::is_default")]
    pub options: DiskOptions,
}

/// An image file or block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The absolute path.
    pub path: PathBuf,
    /// The format.
    pub format: DiskFormat,
    /// Whether it is a block device.
    pub block_device: bool,
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Its name.
    pub id: Id,
    /// What the guest sees.
    pub model: NicModel,
    /// Its address.
    pub mac: MacAddr,
    /// Where packets go.
    pub backend: NicBackend,
    /// What few cards have.
    #[serde(default, skip_serializing_if = "NicOptions::is_default")]
    pub options: NicOptions,
}

/// Where packets go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NicBackend {
    /// QEMU's own NAT.
    User {
        /// Ports that lead in.
        forwards: Vec<Forward>,
        /// Nothing beyond the host.
        restrict: bool,
        /// The network and the addresses in it, where they are not QEMU's own.
        #[serde(default)]
        addresses: net::Addresses,
    },
    /// A tap device.
    Tap {
        /// Its name on the host.
        name: String,
        /// The bridge that a new one joins.
        bridge: Option<String>,
        /// The address that a new one gets, with prefix length.
        address: Option<String>,
        /// Whether packets go through vhost-net.
        vhost: bool,
    },
    /// Another program of the host.
    VhostUser {
        /// The socket.
        socket: PathBuf,
        /// Whether QEMU listens there.
        server: bool,
    },
}

/// A host port that leads into the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// UDP rather than TCP.
    pub udp: bool,
    /// The host's address.
    pub address: std::net::Ipv4Addr,
    /// The host's port.
    pub host: u16,
    /// The guest's port.
    pub guest: u16,
}

/// A 9p share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Its name.
    pub id: Id,
    /// The folder.
    pub path: PathBuf,
    /// The mount tag.
    pub tag: String,
    /// Whether writes are refused.
    pub read_only: bool,
    /// How owners are kept.
    pub security_model: SecurityModel,
    /// The mode of new files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fmode: Option<u32>,
    /// The mode of new directories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dmode: Option<u32>,
    /// What serves it, where that is not QEMU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtiofs: Option<Virtiofs>,
}

/// The watchdog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watchdog {
    /// The device.
    pub model: WatchdogModel,
    /// What happens when it bites.
    pub action: WatchdogAction,
}

/// What the balloon does without being told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct BalloonDoes {
    /// The guest tells which pages it does not use.
    pub free_page_reporting: bool,
    /// It gives memory back before the guest runs out.
    pub deflate_on_oom: bool,
}
