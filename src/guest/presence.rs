//! Which guests are there, from their locks and files alone: no guest is asked, so none can hang this.

use std::io;

use super::RunDir;
use super::state::{self, GuestState};
use crate::dirs::Dirs;
use crate::ids::GuestName;
use crate::ops::{OpsError, lock};

/// Whether a guest is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// It has no run-time directory.
    Absent,
    /// A supervisor has it; no state yet while it is being prepared.
    Supervised(Option<Box<GuestState>>),
    /// QEMU lives, its supervisor does not: `mvm recover` adopts it.
    Unsupervised(Option<Box<GuestState>>),
    /// Both are gone and left things behind: `mvm recover` cleans up.
    Dead(Option<Box<GuestState>>),
}

impl Presence {
    /// Whether a QEMU runs, or is about to.
    pub fn is_alive(&self) -> bool {
        matches!(self, Self::Supervised(_) | Self::Unsupervised(_))
    }

    /// What was written down last.
    pub fn state(&self) -> Option<&GuestState> {
        match self {
            Self::Absent => None,
            Self::Supervised(state) | Self::Unsupervised(state) | Self::Dead(state) => {
                state.as_deref()
            }
        }
    }
}

/// Looks at one guest.
///
/// # Errors
/// Its directory cannot be read.
pub fn look(dirs: &Dirs, name: &GuestName) -> Result<Presence, OpsError> {
    look_at(&RunDir::new(dirs, name))
}

/// The same by its paths.
///
/// # Errors
/// As [`look`].
pub fn look_at(run: &RunDir) -> Result<Presence, OpsError> {
    if !run.path().exists() {
        return Ok(Presence::Absent);
    }
    // The supervisor's first: it is taken first and given up last, so that a start or an end in
    // between is never taken for a QEMU without supervisor.
    let supervised = lock::is_held(&run.supervisor_lock())?;
    let alive = lock::is_held(&run.lock())?;
    let state = || {
        state::read::<GuestState>(&run.state())
            .ok()
            .flatten()
            .map(Box::new)
    };
    Ok(match (supervised, alive) {
        (true, _) => Presence::Supervised(state()),
        (false, true) => Presence::Unsupervised(state()),
        (false, false) if run.path().exists() => Presence::Dead(state()),
        (false, false) => Presence::Absent,
    })
}

/// Every guest that has a run-time directory, by name.
///
/// # Errors
/// The directory of them all cannot be read.
pub fn list(dirs: &Dirs) -> Result<Vec<(GuestName, Presence)>, OpsError> {
    let entries = match std::fs::read_dir(&dirs.runtime) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(OpsError::io("read", &dirs.runtime)(error)),
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Some(Ok(name)) = entry.file_name().to_str().map(str::parse::<GuestName>) else {
            continue;
        };
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        match look(dirs, &name) {
            Ok(Presence::Absent) => {}
            Ok(presence) => found.push((name, presence)),
            // Another user's, or damaged: one guest does not hide the others.
            Err(error) => tracing::warn!(%error, guest = %name, "cannot look at"),
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn locks_tell_who_is_there() {
        let top = tempfile::tempdir().unwrap();
        let mut dirs = Dirs::new(0, &|_| None);
        dirs.runtime = top.path().join("run");
        assert_eq!(list(&dirs).unwrap(), []);
        let name: GuestName = "g".parse().unwrap();
        let run = RunDir::new(&dirs, &name);
        assert_eq!(look(&dirs, &name).unwrap(), Presence::Absent);
        std::fs::create_dir_all(run.path()).unwrap();
        assert_eq!(look(&dirs, &name).unwrap(), Presence::Dead(None));
        let supervisor = lock::take(&run.supervisor_lock()).unwrap();
        let qemu = lock::take(&run.lock()).unwrap();
        assert_eq!(look(&dirs, &name).unwrap(), Presence::Supervised(None));
        drop(supervisor);
        assert_eq!(look(&dirs, &name).unwrap(), Presence::Unsupervised(None));
        drop(qemu);
        std::fs::write(dirs.runtime.join("not a guest"), "").unwrap();
        assert_eq!(list(&dirs).unwrap(), [(name, Presence::Dead(None))]);
    }
}
