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
mod parts;
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
pub use parts::{
    Accel, AccelKind, BalloonDoes, Board, BoardKind, Bus, Cpu, Disk, Firmware, Forward, Image,
    Kernel, Nic, NicBackend, Qemu, Share, Vars, Watchdog,
};
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

use crate::ids::{Arch, Bdf, GuestName, Id, PciRef};
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
