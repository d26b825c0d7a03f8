//! Who has a guest: taken before anything of it is looked at or touched.

use std::os::fd::OwnedFd;

use super::RunDir;
use super::error::StartError;
use super::recover;
use crate::ops::{OpsError, dirs, lock};

/// The right to start, supervise or recover a guest: its supervisor lock.
#[derive(Debug)]
pub(crate) struct Claim {
    _lock: OwnedFd,
}

/// What was there when it was claimed.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// Nothing, or what was there is taken back.
    Free(Claim),
    /// A QEMU without supervisor.
    Orphan(Claim),
}

impl Claim {
    /// Gives up a claim under which nothing was begun.
    pub(crate) fn abandon(self, run: &RunDir) {
        let nothing_else = std::fs::read_dir(run.path()).is_ok_and(|mut entries| {
            entries.all(|entry| entry.is_ok_and(|entry| entry.path() == run.supervisor_lock()))
        });
        if nothing_else {
            // Either may be gone, or have become another's meanwhile: then there is nothing to do.
            let _ = std::fs::remove_file(run.supervisor_lock());
            let _ = std::fs::remove_dir(run.path());
        }
    }
}

/// Claims a guest. What a dead one of that name left behind is taken back.
///
/// # Errors
/// Somebody has it ([`StartError::Busy`]), or what was left behind cannot be taken back.
pub(crate) fn take(run: &RunDir) -> Result<Claimed, StartError> {
    for _ in 0..3 {
        dirs::make(run.path(), 0o700, false)?;
        let claim = match lock::take(&run.supervisor_lock()) {
            Ok(lock) => Claim { _lock: lock },
            Err(error @ OpsError::Held { .. }) => return Err(StartError::Busy(error)),
            // The directory was removed by its last owner between our two steps.
            Err(error) if error.os_error() == Some(nix::libc::ENOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        if lock::is_held(&run.lock())? {
            return Ok(Claimed::Orphan(claim));
        }
        if !recover::has_leftovers(run) {
            return Ok(Claimed::Free(claim));
        }
        // The directory goes with them, and with it the file that our claim is on.
        recover::take_back(run)?;
    }
    Err(StartError::Leftovers {
        guest: run.name().to_string(),
        what: format!("{} comes back again and again", run.path().display()),
    })
}
