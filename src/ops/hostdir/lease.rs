//! Who has a device.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Alive, HostDir, HostLock, Record, alive, is_root, now};
use crate::handover::Extent;
use crate::ids::PciRef;
use crate::ops::device_error::DeviceError;
use crate::plan::step::{Step, User};

/// A device that a guest has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Lease {
    /// The lease's name, which is the file's.
    pub key: String,
    /// The device as people name it.
    pub device: String,
    /// The PCI function that it comes and goes with.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub part_of: Option<PciRef>,
    /// The guest.
    pub guest: String,
    /// Its run-time directory, whose `lock` it holds as long as it lives.
    pub run_dir: PathBuf,
    /// The user whose guest it is.
    pub uid: u32,
    /// The process that took the device.
    pub pid: u32,
    /// When, in seconds since 1970.
    pub since: u64,
    /// What gives the device back, oldest first, should the guest's own journal be gone.
    #[serde(default)]
    pub undo: Vec<Step>,
}

/// A function that somebody took by hand (`mvm bind`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ByHand {
    /// The device as people name it.
    pub device: String,
    /// When, in seconds since 1970.
    pub since: u64,
    /// What gives it back.
    pub undo: Step,
    /// What puts the owners of its nodes back, before that.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub nodes: Vec<Step>,
}

impl Record<Lease> {
    /// Which device it is of; the file's name counts.
    pub fn extent(&self) -> Extent {
        Extent {
            key: self.key.clone(),
            part_of: self.content.part_of,
        }
    }

    /// What is carried out, newest first, where the guest's journal is gone: what gives this lease's own
    /// device back, and nothing else that the file may say.
    pub fn take_back(&self) -> Vec<Step> {
        let own = |step: &&Step| {
            matches!(
                step,
                Step::GiveBack { .. }
                    | Step::GiveBackUsb { .. }
                    | Step::RemoveMdev { .. }
                    | Step::SetVfNet { .. }
            ) && step.lease().as_ref() == Some(&self.key)
        };
        let undo = self.content.undo.iter().rev();
        undo.filter(|_| self.trusted).filter(own).cloned().collect()
    }
}

pub(super) const LEASES: &str = "leases";
const BOUND: &str = "bound";

impl HostDir {
    /// All leases, by name.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn leases(&self) -> Result<Vec<Record<Lease>>, DeviceError> {
        self.records(LEASES)
    }

    /// The lease of that name.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn lease(&self, key: &str) -> Result<Option<Record<Lease>>, DeviceError> {
        self.record(LEASES, key)
    }

    /// The guest that has what that lease is of, where it is another one than that of the run-time
    /// directory.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn other_guest(&self, key: &str, run_dir: &Path) -> Result<Option<String>, DeviceError> {
        let found = self.lease(key)?.filter(|lease| lease.trusted);
        let other = found.filter(|lease| !is_same_dir(&lease.content.run_dir, run_dir));
        Ok(other.map(|lease| lease.content.guest))
    }

    /// Root's: removes leases of other users' guests that are gone and whose device nobody has open, without
    /// carrying out what they say, so that nobody keeps a device from root for ever.
    ///
    /// # Errors
    /// One cannot be removed.
    pub fn drop_strangers(
        &self,
        _lock: &HostLock,
        in_use: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), DeviceError> {
        if !is_root() {
            return Ok(());
        }
        for found in self.leases()?.iter().filter(|found| !found.trusted) {
            let gone = alive(&found.content.run_dir) == Alive::No;
            if gone && in_use(&found.key).is_none() {
                tracing::warn!(lease = %found.key, uid = found.uid, "removed another user's");
                self.remove(LEASES, &found.key)?;
            }
        }
        Ok(())
    }

    /// Takes a device for a guest. `in_use` is asked whether a process still has the device open though
    /// the guest that had it is gone.
    ///
    /// # Errors
    /// Another guest has it, or has not given it back.
    pub fn take_lease(
        &self,
        _lock: &HostLock,
        wanted: &Extent,
        device: &str,
        user: &User,
        in_use: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), DeviceError> {
        let key = wanted.key.as_str();
        for found in self.leases()? {
            let lease = &found.content;
            if !wanted.excludes(&found.extent()) {
                continue;
            }
            if lease.run_dir == user.run_dir {
                if !found.trusted {
                    // Somebody else wrote our name into it: what it says is not ours.
                    self.remove(LEASES, &found.key)?;
                } else if found.key == key {
                    return Ok(());
                }
                continue;
            }
            let device = lease.device.clone();
            if alive(&lease.run_dir) == Alive::Yes {
                return Err(found.error());
            }
            if let Some(by) = in_use(&found.key) {
                return Err(DeviceError::InUse { device, by });
            }
            // What another user's lease says is not carried out: root need not wait for him either.
            let left = !lease.undo.is_empty() || lease.run_dir.join("journal.jsonl").exists();
            if left && found.trusted || !found.trusted && !is_root() {
                return Err(DeviceError::LeftBehind {
                    device,
                    guest: lease.guest.clone(),
                    run_dir: lease.run_dir.clone(),
                });
            }
            self.remove(LEASES, &found.key)?;
        }
        let lease = Lease {
            key: key.to_owned(),
            device: device.to_owned(),
            part_of: wanted.part_of,
            guest: user.guest.clone(),
            run_dir: user.run_dir.clone(),
            uid: nix::unistd::Uid::effective().as_raw(),
            pid: std::process::id(),
            since: now(),
            undo: Vec::new(),
        };
        if !self.write_new(LEASES, key, &lease)? {
            // Another user was faster, or it is none.
            if let Some(faster) = self.lease(key).ok().flatten() {
                return Err(faster.error());
            }
            if let Some(damaged) = self.damaged(key) {
                if let Some(by) = in_use(key) {
                    let device = device.to_owned();
                    return Err(DeviceError::InUse { device, by });
                }
                if !damaged.is_removable() {
                    return Err(damaged.error());
                }
                self.remove_damaged(&damaged)?;
            }
            self.write(LEASES, key, &lease)?;
        }
        // Users have no lock in common with root: whoever was faster with a function of the same is seen now.
        for found in self.leases()? {
            let theirs = found.key != key && found.content.run_dir != user.run_dir;
            if theirs && wanted.excludes(&found.extent()) {
                self.remove(LEASES, key)?;
                return Err(found.error());
            }
        }
        Ok(())
    }

    /// Gives up a lease that this guest has; anybody else's stays.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn release_lease(
        &self,
        _lock: &HostLock,
        key: &str,
        user: &User,
    ) -> Result<(), DeviceError> {
        match self.record::<Lease>(LEASES, key)? {
            Some(found) if found.trusted && found.content.run_dir == user.run_dir => {
                self.remove(LEASES, key)
            }
            _ => Ok(()),
        }
    }

    /// Writes into a device's lease what gives the device back.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn note_undo(&self, _lock: &HostLock, key: &str, undo: &Step) -> Result<(), DeviceError> {
        self.change(key, |lease| {
            let missing = !lease.undo.contains(undo);
            if missing {
                lease.undo.push(undo.clone());
            }
            missing
        })
    }

    /// Whether a device's lease says that this gives the device back.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn has_undo(&self, key: &str, undo: &Step) -> Result<bool, DeviceError> {
        let found = self.record::<Lease>(LEASES, key)?;
        Ok(found.is_some_and(|lease| lease.trusted && lease.content.undo.contains(undo)))
    }

    /// Strikes out of a device's lease what has been carried out.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn strike_undo(&self, _lock: &HostLock, key: &str, undo: &Step) -> Result<(), DeviceError> {
        self.change(key, |lease| {
            let before = lease.undo.len();
            lease.undo.retain(|step| step != undo);
            lease.undo.len() != before
        })
    }

    fn change(&self, key: &str, with: impl Fn(&mut Lease) -> bool) -> Result<(), DeviceError> {
        let Some(mut found) = self.record::<Lease>(LEASES, key)? else {
            return Ok(());
        };
        // Written anew, it would be ours, with whatever another user wrote.
        if found.trusted && with(&mut found.content) {
            self.write(LEASES, key, &found.content)?;
        }
        Ok(())
    }

    /// What was taken by hand.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn by_hand(&self) -> Result<Vec<Record<ByHand>>, DeviceError> {
        self.records(BOUND)
    }

    /// What was taken by hand under that name.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn bound_by_hand(&self, key: &str) -> Result<Option<Record<ByHand>>, DeviceError> {
        self.record(BOUND, key)
    }

    /// Writes down what is taken by hand, before it is.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn note_by_hand(
        &self,
        _lock: &HostLock,
        key: &str,
        device: &str,
        undo: &Step,
        nodes: &[Step],
    ) -> Result<(), DeviceError> {
        let record = ByHand {
            device: device.to_owned(),
            since: now(),
            undo: undo.clone(),
            nodes: nodes.to_vec(),
        };
        self.write(BOUND, key, &record)
    }

    /// Forgets what was taken by hand.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn forget_by_hand(&self, _lock: &HostLock, key: &str) -> Result<(), DeviceError> {
        self.remove(BOUND, key)
    }
}

/// Whether both name one directory. One that is gone is known by its path alone.
fn is_same_dir(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    one == other || real(one).is_some_and(|one| Some(one) == real(other))
}

#[cfg(test)]
mod tests;
