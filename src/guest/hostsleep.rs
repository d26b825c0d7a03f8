//! The host's sleep: which guests were put to sleep for it, so that those are woken and no others.
//!
//! A guest is noted before it is asked: whoever is killed in between, waking looks at what the guest does.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::RunDir;
use super::asleep::{self, Kind};
use super::error::StartError;
use super::presence::{self, Presence};
use super::state::{self, Condition};
use crate::dirs::Dirs;
use crate::ids::GuestName;
use crate::ops::wakesources::WakeSources;
use crate::ops::{OpsError, dirs as ops_dirs, lock};

/// For another command of the host's sleep to be done.
const OTHER: Duration = Duration::from_secs(60);

/// The guests that were put to sleep for the host.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slept {
    /// Their names, in the order in which they were asked.
    pub guests: Vec<GuestName>,
    /// The ACPI wake sources that were enabled for it.
    #[serde(default)]
    pub wake_sources: Vec<String>,
}

/// The record, with its lock: one command of the host's sleep at a time.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    _lock: OwnedFd,
    /// What it holds.
    pub slept: Slept,
}

/// What a guest needs to be as it was before the host slept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waking {
    /// It was woken by somebody else, has ended, or never slept.
    Nothing,
    /// It sleeps.
    Wake,
    /// It is paused.
    Resume,
    /// It hibernated, or is saved.
    Start,
    /// Its supervisor is gone, so that nobody can be asked: `mvm recover` comes first.
    Recover,
}

impl Record {
    /// Opens the record. A damaged one is told and begun anew.
    ///
    /// # Errors
    /// Another command has it for long, or the run-time directory is not usable.
    pub fn open(dirs: &Dirs) -> Result<Self, StartError> {
        ops_dirs::make(&dirs.runtime, 0o700, true)?;
        // A guest's name does not begin with a dot.
        let path = dirs.runtime.join(".host-sleep.json");
        let lock_path = dirs.runtime.join(".host-sleep.lock");
        let end = Instant::now() + OTHER;
        let lock = loop {
            match lock::take(&lock_path) {
                Ok(lock) => break lock,
                Err(OpsError::Held { .. }) if Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => return Err(error.into()),
            }
        };
        let slept = state::read(&path).unwrap_or_else(|error| {
            tracing::warn!(%error, "what slept before is not known any more");
            None
        });
        Ok(Self {
            path,
            _lock: lock,
            slept: slept.unwrap_or_default(),
        })
    }

    /// Notes a guest that is about to be asked.
    ///
    /// # Errors
    /// It cannot be written: the guest must not be asked.
    pub fn note(&mut self, name: &GuestName) -> Result<(), StartError> {
        if !self.slept.guests.contains(name) {
            self.slept.guests.push(name.clone());
        }
        self.write()
    }

    /// Strikes a guest out that is as it was.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn strike(&mut self, name: &GuestName) -> Result<(), StartError> {
        self.slept.guests.retain(|other| other != name);
        self.write()
    }

    /// Enables the host's wake sources of these names that are disabled; they are noted first.
    ///
    /// # Errors
    /// There is none of that name, or the kernel refuses.
    pub fn wake_by(&mut self, wanted: &[String]) -> Result<(), StartError> {
        if wanted.is_empty() {
            return Ok(());
        }
        let table = WakeSources::default();
        for name in table.disabled(wanted)? {
            if !self.slept.wake_sources.contains(&name) {
                self.slept.wake_sources.push(name.clone());
            }
            self.write()?;
            table.enable(&name)?;
        }
        Ok(())
    }

    /// Disables again what was enabled for the host's sleep.
    ///
    /// # Errors
    /// The kernel refuses: it is tried again next time.
    pub fn wake_as_before(&mut self) -> Result<(), StartError> {
        let table = WakeSources::default();
        while let Some(name) = self.slept.wake_sources.last() {
            table.disable(name)?;
            self.slept.wake_sources.pop();
            self.write()?;
        }
        Ok(())
    }

    fn write(&self) -> Result<(), StartError> {
        if self.slept != Slept::default() {
            return state::write(&self.path, &self.slept)
                .map_err(StartError::io("write", &self.path));
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StartError::io("remove", &self.path)(error))
            }
            _ => Ok(()),
        }
    }
}

/// What a guest of the record needs now.
///
/// # Errors
/// It cannot be looked at.
pub fn waking(dirs: &Dirs, name: &GuestName) -> Result<Waking, StartError> {
    let condition = match presence::look(dirs, name)? {
        Presence::Supervised(state) => state.map(|state| state.state),
        Presence::Unsupervised(_) => return Ok(Waking::Recover),
        Presence::Absent | Presence::Dead(_) => {
            let asleep = asleep::read(&RunDir::new(dirs, name))?;
            let started = asleep.is_some_and(|asleep| {
                matches!(
                    asleep.kind,
                    Kind::Hibernated | Kind::HibernationRequested | Kind::Saved
                )
            });
            return Ok(if started {
                Waking::Start
            } else {
                Waking::Nothing
            });
        }
    };
    Ok(match condition {
        Some(Condition::Suspended) => Waking::Wake,
        Some(Condition::Paused) => Waking::Resume,
        _ => Waking::Nothing,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_kept_until_a_guest_is_struck_out() {
        let top = tempfile::tempdir().unwrap();
        let mut dirs = Dirs::new(0, &|_| None);
        dirs.runtime = top.path().join("run");
        dirs.state = top.path().join("state");
        let name: GuestName = "g".parse().unwrap();
        let mut record = Record::open(&dirs).unwrap();
        record.note(&name).unwrap();
        record.note(&name).unwrap();
        drop(record);
        let mut record = Record::open(&dirs).unwrap();
        assert_eq!(record.slept.guests, std::slice::from_ref(&name));
        assert_eq!(waking(&dirs, &name).unwrap(), Waking::Nothing);
        record.strike(&name).unwrap();
        drop(record);
        assert!(!top.path().join("run/.host-sleep.json").exists());
        std::fs::write(top.path().join("run/.host-sleep.json"), "{").unwrap();
        assert_eq!(Record::open(&dirs).unwrap().slept, Slept::default());
    }
}
