//! Why a guest could not be started or supervised.

use std::io;
use std::path::{Path, PathBuf};

use super::asleep::AsleepError;
use super::conflicts::Conflict;
use super::explain::Explained;
use crate::error::{ExitCode, Hint, Report};
use crate::ops::OpsError;
use crate::ops::wakesources::WakeError;
use crate::plan::apply::ApplyError;
use crate::plan::journal::JournalError;

/// A start or an adoption that failed. The host is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The guest is there already.
    #[error(transparent)]
    Busy(OpsError),
    /// The guest's directories cannot be made or read.
    #[error(transparent)]
    Host(#[from] OpsError),
    /// A step of the plan failed.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The host's wake sources.
    #[error(transparent)]
    Wake(#[from] WakeError),
    /// A leftover journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// It and another guest, or another process, want the same thing.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// It sleeps, and would wake in another machine.
    #[error(transparent)]
    Asleep(#[from] AsleepError),
    /// QEMU did not start.
    #[error(transparent)]
    Qemu(#[from] Explained),
    /// A file of the guest's, or QEMU itself, cannot be used.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The plan hands over a descriptor that nothing makes.
    #[error("the plan has no step that makes the descriptor `{0}`")]
    NoFd(String),
    /// Leftovers of an earlier guest of that name cannot be taken back.
    #[error("what guest `{guest}` left behind cannot be taken back: {what}")]
    Leftovers {
        /// The guest.
        guest: String,
        /// What is in the way.
        what: String,
    },
    /// QEMU has given up its monitor and does not end.
    #[error("the QEMU of guest `{guest}`{} has not ended within {seconds} s of its last words", pid.map_or_else(String::new, |pid| format!(" (process {pid})")))]
    Ending {
        /// The guest.
        guest: String,
        /// Its process, where it is known.
        pid: Option<u32>,
        /// How long was waited.
        seconds: u64,
    },
    /// The plan of a new start cannot be made.
    #[error("{}", .0.chain.join(": "))]
    Plan(Report),
    /// There is nothing to adopt.
    #[error("guest `{0}` has no QEMU that could be adopted")]
    NothingToAdopt(String),
    /// The runtime itself failed.
    #[error("cannot set up the supervisor")]
    Setup(#[source] io::Error),
}

impl From<crate::ops::DeviceError> for StartError {
    fn from(error: crate::ops::DeviceError) -> Self {
        Self::Host(error.into())
    }
}

impl StartError {
    /// Whether another guest took, just now, a device that this one wanted: prepared again, one that was
    /// asked for as `auto` is another one.
    pub fn is_lost_race(&self) -> bool {
        match self {
            Self::Apply(error) => error.is_lost_race(),
            Self::Conflict(Conflict::End { again, .. }) => *again,
            _ => false,
        }
    }

    pub(crate) fn stays(run: &super::RunDir) -> Self {
        Self::Leftovers {
            guest: run.name().to_string(),
            what: "its QEMU does not end, not even by SIGKILL".to_owned(),
        }
    }

    pub(crate) fn io<E: Into<io::Error>>(
        what: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self + use<E> {
        let path = path.to_owned();
        move |source| Self::Io {
            what,
            path,
            source: source.into(),
        }
    }
}

impl Hint for StartError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Busy(error) | Self::Host(error) => error.hints(),
            Self::Apply(error) => error.hints(),
            Self::Journal(error) => error.hints(),
            Self::Qemu(error) => error.hints(),
            Self::Plan(report) => report.hints.clone(),
            Self::Conflict(error) => error.hints(),
            Self::Asleep(error) => error.hints(),
            Self::Io { source, path, .. } if source.kind() == io::ErrorKind::NotFound => {
                vec![format!("{} is not there", path.display())]
            }
            // The same words as for a step.
            Self::Io { what, path, source } => {
                let source = source
                    .raw_os_error()
                    .map_or_else(|| source.kind().into(), io::Error::from_raw_os_error);
                OpsError::io(what, path)(source).hints()
            }
            Self::Ending { guest, .. } => vec![
                format!("end it: `mvm kill {guest}`"),
                "where that does not help it hangs in the kernel, mostly on a disk or a device: see `dmesg`".to_owned(),
            ],
            Self::Leftovers { guest, .. } => vec![format!("see `mvm recover {guest}`")],
            _ => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Host(error) => error.exit_code(),
            Self::Apply(error) => error.exit_code(),
            Self::Qemu(error) => error.exit_code(),
            Self::Plan(report) => report.code,
            Self::NothingToAdopt(_) => ExitCode::NotRunning,
            _ => ExitCode::Failed,
        }
    }
}
