//! Why a device does not come or go.

use std::io;
use std::time::Duration;

use mvm_qmp::QmpError;

use super::super::conflicts::Conflict;
use crate::error::{ExitCode, Hint};
use crate::machine::ResolveError;
use crate::ops::{DeviceError, OpsError};
use crate::plan::apply::ApplyError;
use crate::plan::journal::JournalError;

/// Why a device does not come or go.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HotplugError {
    /// The guest ends.
    #[error("guest `{0}` has ended")]
    Ended(String),
    /// What the supervisor keeps about it.
    #[error("cannot read or write what is known about the guest's devices")]
    Book(#[from] io::Error),
    /// The guest has something of that already.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// Another guest has it.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// A change to the host failed.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A descriptor for QEMU.
    #[error(transparent)]
    Ops(#[from] OpsError),
    /// Memory that may not be kept in place.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The guest's journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// All ports are taken.
    #[error("guest `{0}` has no free port for another device")]
    NoPort(String),
    /// QEMU refuses.
    #[error("QEMU does not take `{id}`: {why}")]
    Refused {
        /// What it was to make.
        id: String,
        /// Its words.
        why: String,
    },
    /// QEMU cannot be asked.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// QEMU said yes, and it is not there.
    #[error("QEMU took `{0}`, and it is not there")]
    NotThere(String),
    /// There is no such device.
    #[error("guest `{guest}` has no device `{id}` that could be detached")]
    Unknown {
        /// The guest.
        guest: String,
        /// The device.
        id: String,
        /// Those it has.
        known: Vec<String>,
    },
    /// Another command is at it.
    #[error("`{0}` is on its way in")]
    Coming(String),
    /// It cannot leave its bus.
    #[error("`{id}` cannot leave a guest that runs: {why}")]
    Fixed {
        /// The device.
        id: String,
        /// QEMU's words.
        why: String,
    },
    /// The guest said no.
    #[error("the guest does not let `{0}` go")]
    GuestRefused(String),
    /// The guest says nothing.
    #[error("the guest has not let `{id}` go within {:.0?}", within)]
    Silent {
        /// The device.
        id: String,
        /// How long it had.
        within: Duration,
        /// Whether its processors are held.
        held: bool,
        /// The guest.
        guest: String,
    },
    /// It left the guest, and the host is not as it was.
    #[error("`{id}` has left the guest, and is not given back: {what}")]
    NotGivenBack {
        /// The device.
        id: String,
        /// What stood in the way.
        what: String,
    },
    /// What was begun could not be taken back.
    #[error("{error}; not taken back: {left}")]
    Left {
        /// What went wrong first.
        error: Box<HotplugError>,
        /// What is left.
        left: String,
    },
}

impl Hint for HotplugError {
    fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::Resolve(error) => return error.hints(),
            Self::Conflict(error) => return error.hints(),
            Self::Apply(error) => return error.hints(),
            Self::Ops(error) => return error.hints(),
            Self::Device(error) => return error.hints(),
            Self::Journal(error) => return error.hints(),
            Self::Left { error, .. } => return error.hints(),
            Self::NoPort(guest) => format!(
                "detach a device, or give it more with `hotplug.ports` and start it again: `mvm show {guest}`"
            ),
            Self::Unknown { known, .. } if known.is_empty() => return Vec::new(),
            Self::Unknown { known, .. } => format!("it has `{}`", known.join("`, `")),
            Self::Coming(_) => "try again when it is there".to_owned(),
            Self::GuestRefused(_) => {
                "a disk that is mounted, or a network card in use, is let go of in the guest first"
                    .to_owned()
            }
            Self::Silent {
                held: true, guest, ..
            } => {
                format!("its processors are held: `mvm resume {guest}` lets it go on")
            }
            Self::Silent { .. } => {
                "it still has it: has it booted, and does its kernel handle hot-plug? \
                 When it lets go later, all is given back then"
                    .to_owned()
            }
            Self::NotGivenBack { id, .. } => {
                format!("`mvm detach` for `{id}` tries again, and so does the guest's end")
            }
            _ => return Vec::new(),
        };
        vec![hint]
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Ended(_) => ExitCode::NotRunning,
            Self::Unknown { .. } => ExitCode::Usage,
            Self::Resolve(error) => error.exit_code(),
            Self::Apply(error) => error.exit_code(),
            Self::Left { error, .. } => error.exit_code(),
            _ => ExitCode::Failed,
        }
    }
}
