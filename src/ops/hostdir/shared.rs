//! What was changed once for several guests: the last user takes it back.

use serde::{Deserialize, Serialize};

use super::{Alive, HostDir, HostLock, Record, alive};
use crate::ops::device_error::DeviceError;
use crate::plan::step::{Step, User};

/// A change that guests share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Shared {
    /// Who uses it.
    pub users: Vec<User>,
    /// What takes it back, oldest first.
    pub undo: Vec<Step>,
}

const SHARED: &str = "shared";

/// What is to be done by one who gives up a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Last {
    /// Others need it, or nobody ever made it.
    No,
    /// Take this back, then [`HostDir::forget_shared`].
    Yes(Shared),
}

impl HostDir {
    /// All of them.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn shared(&self) -> Result<Vec<Record<Shared>>, DeviceError> {
        self.records(SHARED)
    }

    /// One; nobody's but root's or ours is believed.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn shared_of(&self, key: &str) -> Result<Option<Shared>, DeviceError> {
        let found = self.record::<Shared>(SHARED, key)?;
        Ok(found
            .filter(|record| record.trusted)
            .map(|record| record.content))
    }

    /// Begins to share something that is about to be changed, or joins those who share it already.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn share(
        &self,
        _lock: &HostLock,
        key: &str,
        user: &User,
        undo: impl FnOnce() -> Result<Vec<Step>, DeviceError>,
    ) -> Result<(), DeviceError> {
        let mut shared = match self.shared_of(key)? {
            Some(shared) => shared,
            None => Shared {
                users: Vec::new(),
                undo: undo()?,
            },
        };
        if !shared
            .users
            .iter()
            .any(|there| there.run_dir == user.run_dir)
        {
            shared.users.push(user.clone());
            self.write(SHARED, key, &shared)?;
        }
        Ok(())
    }

    /// Gives up a share. Users that are dead do not count. The record stays with its last user in it
    /// until everything is taken back.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn unshare(&self, _lock: &HostLock, key: &str, user: &User) -> Result<Last, DeviceError> {
        let Some(mut shared) = self.shared_of(key)? else {
            return Ok(Last::No);
        };
        let before = shared.users.len();
        let others = |there: &User| there.run_dir != user.run_dir;
        let living = |there: &&User| others(there) && alive(&there.run_dir) == Alive::Yes;
        if shared.users.iter().find(living).is_none() {
            return Ok(Last::Yes(shared));
        }
        shared.users.retain(others);
        if shared.users.len() != before {
            self.write(SHARED, key, &shared)?;
        }
        Ok(Last::No)
    }

    /// Removes the record of what has been taken back.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn forget_shared(&self, _lock: &HostLock, key: &str) -> Result<(), DeviceError> {
        self.remove(SHARED, key)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::ops::lock;

    #[test]
    fn the_last_user_takes_it_back() {
        let top = tempfile::tempdir().unwrap();
        let dir = HostDir::new(&top.path().join("host"));
        let held = dir.lock().unwrap();
        let user = |guest: &str| {
            let run_dir = top.path().join(guest);
            std::fs::create_dir(&run_dir).unwrap();
            let life = lock::take(&run_dir.join("lock")).unwrap();
            let guest = guest.to_owned();
            (User { guest, run_dir }, life)
        };
        let (a, a_lives) = user("a");
        let (b, b_lives) = user("b");
        let undo = vec![Step::RemoveMdev {
            uuid: uuid::Uuid::nil(),
        }];
        let known = || Ok(undo.clone());
        let asked_again = || panic!("what was there before the first is what counts");
        dir.share(&held, "vfs-x", &a, known).unwrap();
        dir.share(&held, "vfs-x", &b, asked_again).unwrap();
        dir.share(&held, "vfs-x", &b, asked_again).unwrap();
        assert_eq!(dir.shared_of("vfs-x").unwrap().unwrap().users.len(), 2);
        assert_eq!(dir.unshare(&held, "vfs-x", &a).unwrap(), Last::No);
        assert_eq!(dir.unshare(&held, "vfs-x", &a).unwrap(), Last::No);
        drop(a_lives);
        let Last::Yes(last) = dir.unshare(&held, "vfs-x", &b).unwrap() else {
            panic!("b is the last");
        };
        assert_eq!(last.undo, undo);
        assert!(dir.shared_of("vfs-x").unwrap().is_some());
        // Somebody dead does not count.
        dir.share(&held, "vfs-x", &a, asked_again).unwrap();
        assert!(matches!(dir.unshare(&held, "vfs-x", &b), Ok(Last::Yes(_))));
        drop(b_lives);
        dir.forget_shared(&held, "vfs-x").unwrap();
        assert_eq!(dir.unshare(&held, "vfs-x", &b).unwrap(), Last::No);
    }
}
