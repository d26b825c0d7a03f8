//! Why a profile does not make a machine on this host.

use super::addition::AdditionError;
use super::board::BoardError;
use super::boot::BootError;
use super::check::LackError;
use super::clock::ClockError;
use super::controller::ControllerError;
use super::cpu::CpuError;
use super::cpu_options::CpuOptionError;
use super::desktop::DesktopError;
use super::disk::DiskError;
use super::extras::ExtraError;
use super::files::FileError;
use super::hooks::HookError;
use super::host_devices::DeviceError;
use super::hyperv::HypervError;
use super::memory::MemoryError;
use super::net::NetError;
use super::overrides::OverrideError;
use super::ports::PortError;
use super::power::PowerError;
use super::run_as::RunAsError;
use super::slots::{AddressError, SlotError};
use super::smbios::SmbiosError;
use super::threads::ThreadError;
use super::tpm::TpmError;
use super::virtiofs::VirtiofsError;
use crate::error::{ExitCode, Hint};

/// Why a profile does not make a machine on this host.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The architecture, the QEMU, the machine type or the accelerator.
    #[error(transparent)]
    Board(#[from] BoardError),
    /// The processors, or how much memory.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// What the memory is made of.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A clock.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// An option of the processor.
    #[error(transparent)]
    CpuOption(#[from] CpuOptionError),
    /// What a guest sees of Hyper-V.
    #[error(transparent)]
    Hyperv(#[from] HypervError),
    /// What its firmware says of the machine.
    #[error(transparent)]
    Smbios(#[from] SmbiosError),
    /// Where its threads run.
    #[error(transparent)]
    Thread(#[from] ThreadError),
    /// The kernel or the firmware.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// A disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A controller of disks.
    #[error(transparent)]
    Controller(#[from] ControllerError),
    /// A file that the profile names.
    #[error(transparent)]
    File(#[from] FileError),
    /// A network card.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A console or a channel.
    #[error(transparent)]
    Port(#[from] PortError),
    /// Its sleep.
    #[error(transparent)]
    Power(#[from] PowerError),
    /// Another device.
    #[error(transparent)]
    Extra(#[from] ExtraError),
    /// The environment, or a property of a device.
    #[error(transparent)]
    Override(#[from] OverrideError),
    /// A hook.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// Its TPM.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// A share that virtiofsd serves.
    #[error(transparent)]
    Virtiofs(#[from] VirtiofsError),
    /// A display, or what belongs to one.
    #[error(transparent)]
    Desktop(#[from] DesktopError),
    /// A device of the host.
    #[error(transparent)]
    Device(Box<DeviceError>),
    /// The board has no place for all devices.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// A slot that a device cannot have.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// This QEMU lacks something.
    #[error(transparent)]
    Lack(#[from] LackError),
    /// QEMU cannot run as the user that it is to run as.
    #[error(transparent)]
    RunAs(#[from] RunAsError),
    /// What cannot come to a guest that runs.
    #[error(transparent)]
    Addition(#[from] AdditionError),
    /// A text with a NUL byte, which no argument of a program can hold.
    #[error("{0} holds a NUL character, which cannot be handed to QEMU")]
    Nul(String),
    /// A directory of mvm's that QEMU's options, being UTF-8, cannot name.
    #[error("{0} is not UTF-8, which QEMU's options need")]
    NotUtf8(String),
    /// Two devices of one name.
    #[error("`{id}` is the name of both {first} and {second}")]
    SameName {
        /// The name.
        id: String,
        /// The one.
        first: String,
        /// The other.
        second: String,
    },
    /// A name that mvm uses itself.
    #[error("{what} cannot be called `{id}`: names that begin with `mvm-` are mvm's own")]
    ReservedName {
        /// The device.
        what: String,
        /// The name.
        id: String,
    },
}

impl From<DeviceError> for ResolveError {
    fn from(error: DeviceError) -> Self {
        Self::Device(Box::new(error))
    }
}

impl Hint for ResolveError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Board(e) => e.hints(),
            Self::Cpu(e) => e.hints(),
            Self::Memory(e) => e.hints(),
            Self::Clock(e) => e.hints(),
            Self::CpuOption(e) => e.hints(),
            Self::Hyperv(e) => e.hints(),
            Self::Smbios(e) => e.hints(),
            Self::Thread(e) => e.hints(),
            Self::Boot(e) => e.hints(),
            Self::Disk(e) => e.hints(),
            Self::Controller(e) => e.hints(),
            Self::File(e) => e.hints(),
            Self::Net(e) => e.hints(),
            Self::Port(e) => e.hints(),
            Self::Power(e) => e.hints(),
            Self::Extra(e) => e.hints(),
            Self::Override(e) => e.hints(),
            Self::Hook(e) => e.hints(),
            Self::Tpm(e) => e.hints(),
            Self::Virtiofs(e) => e.hints(),
            Self::Desktop(e) => e.hints(),
            Self::Device(e) => e.hints(),
            Self::Slot(e) => e.hints(),
            Self::Address(e) => e.hints(),
            Self::Lack(e) => e.hints(),
            Self::RunAs(e) => e.hints(),
            Self::Addition(e) => e.hints(),
            Self::SameName { .. } => vec![
                "disks, network cards, shares and devices of the host share one set of names: rename one"
                    .to_owned(),
            ],
            Self::Nul(_) | Self::NotUtf8(_) | Self::ReservedName { .. } => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Board(e) => e.exit_code(),
            Self::Cpu(e) => e.exit_code(),
            Self::Memory(e) => e.exit_code(),
            Self::Clock(e) => e.exit_code(),
            Self::CpuOption(e) => e.exit_code(),
            Self::Hyperv(e) => e.exit_code(),
            Self::Smbios(e) => e.exit_code(),
            Self::Thread(e) => e.exit_code(),
            Self::Boot(e) => e.exit_code(),
            Self::Disk(e) => e.exit_code(),
            Self::Controller(e) => e.exit_code(),
            Self::File(e) => e.exit_code(),
            Self::Net(e) => e.exit_code(),
            Self::Port(e) => e.exit_code(),
            Self::Power(e) => e.exit_code(),
            Self::Extra(e) => e.exit_code(),
            Self::Override(e) => e.exit_code(),
            Self::Hook(e) => e.exit_code(),
            Self::Tpm(e) => e.exit_code(),
            Self::Virtiofs(e) => e.exit_code(),
            Self::Desktop(e) => e.exit_code(),
            Self::Device(e) => e.exit_code(),
            Self::Slot(e) => e.exit_code(),
            Self::Address(e) => e.exit_code(),
            Self::Lack(e) => e.exit_code(),
            Self::RunAs(e) => e.exit_code(),
            Self::Addition(e) => e.exit_code(),
            Self::NotUtf8(_) => ExitCode::Host,
            Self::Nul(_) | Self::SameName { .. } | Self::ReservedName { .. } => ExitCode::Profile,
        }
    }
}
