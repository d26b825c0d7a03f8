//! The resolved machine: what mvm runs. Complete, comparable, and without a "decide later".

mod addition;
pub mod board;
pub mod boot;
pub mod check;
pub mod clock;
pub mod controller;
pub mod cpu;
pub mod cpu_options;
pub mod desktop;
pub mod disk;
pub mod drivers;
pub mod error;
pub mod extras;
pub mod files;
pub mod hooks;
pub mod host_devices;
pub mod hyperv;
pub mod iommu;
pub mod lifecycle;
pub mod memory;
mod names;
pub mod net;
pub mod overrides;
pub mod ports;
mod positions;
pub mod power;
mod resolve;
pub mod run_as;
pub mod slots;
pub mod smbios;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod threads;
pub mod tpm;
pub mod virtiofs;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use addition::{Addition, AdditionError, addition};
pub use boot::BootMenu;
pub use clock::Clock;
pub use controller::{Controller, VirtioOptions};
pub use desktop::Desktop;
pub use disk::{DiskOptions, Throttle};
pub use error::ResolveError;
pub use files::wanted;
pub use hooks::{HookError, HookRule};
pub use host_devices::{
    ConsoleRef, HostDevice, HostDeviceKind, HostMdev, HostPci, HostUsb, UsbAsk, VfSet,
};
pub use iommu::Iommu;
pub use lifecycle::Lifecycle;
pub use net::NicOptions;
pub use overrides::OverrideError;
pub use ports::{Channel, Console, End};
pub use positions::{Positions, PositionsError};
pub use power::{Power, PowerError};
pub use resolve::{Inputs, arch, image_folders, resolve};
pub use run_as::{RunAs, RunAsError};
pub use smbios::Smbios;
pub use threads::Threads;
pub use tpm::{Tpm, TpmBackend, TpmError};
pub use virtiofs::{Virtiofs, VirtiofsError};

use serde::{Deserialize, Serialize};

use crate::ids::{Arch, Bdf, GuestName, Id, MacAddr, PciRef};
use crate::profile::schema::{
    Aio, Cache, DiskBus, DiskFormat, Gic, Irqchip, Media, NicModel, SecurityModel, WatchdogAction,
    WatchdogModel,
};
use crate::units::{Size, Span};

/// What a device's own registers and QEMU's tables take of the memory that stays in place.
const LOCKED_OVERHEAD: u64 = 1 << 30;

/// A guest with every question answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The guest's name.
    pub name: GuestName,
    /// The profile or machine file it was made from.
    pub profile: String,
    /// The guest's UUID: derived from its name, so that it stays.
    pub uuid: uuid::Uuid,
    /// The guest's architecture.
    pub arch: Arch,
    /// The board.
    pub board: Board,
    /// The accelerator and why it was chosen.
    pub accel: Accel,
    /// The processors.
    pub cpu: Cpu,
    /// Where on the host its threads run.
    #[serde(default, skip_serializing_if = "Threads::is_default")]
    pub threads: Threads,
    /// The clocks.
    #[serde(default)]
    pub clock: Clock,
    /// What the firmware says of the machine.
    #[serde(default)]
    pub smbios: Smbios,
    /// The memory.
    pub memory: Size,
    /// What it is made of.
    #[serde(default)]
    pub ram: memory::Ram,
    /// The kernel that is started directly.
    pub kernel: Option<Kernel>,
    /// The firmware.
    pub firmware: Firmware,
    /// Disks and drives: those with a place in the boot order first, then by name.
    pub disks: Vec<Disk>,
    /// Threads that do the work of disks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub iothreads: Vec<Id>,
    /// Controllers of disks beside mvm's own, in the order of their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controllers: Vec<Controller>,
    /// Network cards, in the order of their names.
    pub nics: Vec<Nic>,
    /// Consoles, `main` first.
    pub consoles: Vec<Console>,
    /// Channels beside the agent's.
    pub channels: Vec<Channel>,
    /// Whether the agent's channel is there.
    pub agent: bool,
    /// Shares, 9p and virtiofs.
    pub shares: Vec<Share>,
    /// The random number generator's source.
    pub rng: Option<PathBuf>,
    /// Whether there is a balloon.
    pub balloon: bool,
    /// What the balloon does by itself.
    #[serde(default)]
    pub balloon_does: BalloonDoes,
    /// The watchdog.
    pub watchdog: Option<Watchdog>,
    /// Whether there is a device by which the guest's kernel tells of its panic.
    #[serde(default)]
    pub panic: bool,
    /// The TPM.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tpm: Option<Tpm>,
    /// The context id of the virtual socket.
    pub vsock: Option<u32>,
    /// Devices of the host that the guest gets.
    #[serde(default)]
    pub host_devices: Vec<HostDevice>,
    /// The virtual functions that must exist for that.
    #[serde(default)]
    pub vfs: Vec<VfSet>,
    /// Functions that are bound to vfio-pci without being the guest's: the rest of an IOMMU group.
    #[serde(default)]
    pub companions: Vec<HostPci>,
    /// Consoles of the host that let go of a GPU first, in that order.
    #[serde(default)]
    pub detach_consoles: Vec<ConsoleRef>,
    /// Whether those reach the guest through `/dev/iommu` rather than their groups.
    #[serde(default)]
    pub iommufd: bool,
    /// Whether the profile asks for a virtual GPU of QEMU's own; it is among `desktop.video`.
    #[serde(default)]
    pub virtio_gpu: bool,
    /// What a person sees, hears and holds of it.
    #[serde(default)]
    pub desktop: Desktop,
    /// Root ports that are kept free for devices that come while the guest runs.
    #[serde(default)]
    pub hotplug_ports: u8,
    /// Where its devices sit, from start to start.
    #[serde(default)]
    pub positions: Positions,
    /// Trace patterns.
    pub trace: Vec<String>,
    /// What the firmware offers before it boots.
    #[serde(default)]
    pub boot_menu: BootMenu,
    /// Programs that run at points of its life.
    #[serde(default)]
    pub hooks: Vec<HookRule>,
    /// Variables of QEMU's environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Properties of devices, by id, as QEMU takes them.
    #[serde(default)]
    pub overrides: BTreeMap<String, serde_json::Map<String, serde_json::Value>>,
    /// Arguments handed through.
    pub qemu_args: Vec<String>,
    /// How long a graceful stop may take.
    pub stop_timeout: Span,
    /// How it sleeps.
    #[serde(default)]
    pub power: Power,
    /// What follows its end.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// The QEMU.
    pub qemu: Qemu,
    /// As whom it runs, where that is another user than the one who runs mvm.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub run_as: Option<RunAs>,
    /// What the user should know before the start, one sentence each.
    pub notes: Vec<String>,
    /// The guest's run-time directory.
    pub run_dir: PathBuf,
    /// The guest's state directory.
    pub state_dir: PathBuf,
}

impl Machine {
    /// Which modes files that QEMU makes do not get: they are for its user alone, but for those of shares whose
    /// profile gives them to others.
    pub fn umask(&self) -> u32 {
        let shares = self.shares.iter();
        let given = shares
            .flat_map(|share| [share.fmode, share.dmode])
            .flatten();
        0o077 & !given.fold(0, |all, mode| all | mode)
    }

    /// Whether there is a controller of virtio consoles and channels.
    pub fn has_serial_controller(&self) -> bool {
        self.agent
            || !self.channels.is_empty()
            || self.desktop.has_agent()
            || self.desktop.has_webdav()
            || self.consoles.iter().any(|console| console.virtio)
    }

    /// Another program of the host that maps the guest's memory, as errors name it.
    pub(crate) fn mapped_by(disks: &[Disk], nics: &[Nic], shares: &[Share]) -> Option<String> {
        let disk = disks.iter().find(|disk| disk.options.vhost_user.is_some());
        let vhost_user = |nic: &&Nic| matches!(nic.backend, NicBackend::VhostUser { .. });
        let nic = nics.iter().find(vhost_user);
        let share = shares.iter().find(|share| share.virtiofs.is_some());
        disk.map(|disk| format!("the program behind disk `{}`", disk.id))
            .or_else(|| nic.map(|nic| format!("the program behind network `{}`", nic.id)))
            .or_else(|| share.map(|share| format!("the virtiofsd of share `{}`", share.id)))
    }

    /// How much of QEMU's memory stays in place, in bytes: as devices write to it by themselves, or because the
    /// profile says so. Otherwise 0.
    pub fn locked_memory(&self) -> u64 {
        let devices = self
            .host_devices
            .iter()
            .filter(|device| !matches!(device.kind, HostDeviceKind::Usb(_)));
        let mut count = u64::try_from(devices.count()).unwrap_or(u64::MAX);
        if count == 0 && !self.ram.locked {
            return 0;
        }
        if !self.board.translates() || count == 0 {
            // They share what they see of the memory.
            count = 1;
        }
        let memory = self.memory.as_bytes().saturating_mul(count);
        memory.saturating_add(LOCKED_OVERHEAD)
    }

    /// Replaces predicted addresses by those that the virtual functions really got. Says whether any
    /// differed: then the command line is to be made again.
    pub fn settle(&mut self, actual: &BTreeMap<PciRef, Bdf>) -> bool {
        let mut differed = false;
        for device in &mut self.host_devices {
            if let HostDeviceKind::Pci(pci) = &mut device.kind {
                if let Some(address) = actual.get(&pci.function) {
                    differed |= pci.address != *address;
                    pci.address = *address;
                    pci.predicted = false;
                }
            }
        }
        differed
    }
}

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
