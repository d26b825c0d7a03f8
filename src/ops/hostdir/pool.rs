//! Huge pages that were added to the host's pools, and for whom.

use serde::{Deserialize, Serialize};

use super::{Alive, HostDir, HostLock, Record, alive};
use crate::ops::device_error::DeviceError;
use crate::plan::step::User;

/// A pool that mvm has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Pool {
    /// Who has how many.
    pub users: Vec<Claim>,
    /// A change that was about to be made: whoever finds it looks how far it came.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub under_way: Option<Change>,
}

/// The pages of one guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Claim {
    /// The guest.
    pub user: User,
    /// How many it needs.
    pub pages: u64,
    /// How many were added for it.
    pub added: u64,
    /// Whether its QEMU has them: then the kernel does not count them as free.
    pub settled: bool,
}

/// A pool's size before and after a change that is made for one guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Change {
    /// The guest.
    pub user: User,
    /// Pages before.
    pub from: u64,
    /// Pages after.
    pub to: u64,
}

const POOLS: &str = "pools";

impl Pool {
    /// The claim of a guest.
    pub fn of(&mut self, user: &User) -> Option<&mut Claim> {
        self.users
            .iter_mut()
            .find(|claim| claim.user.run_dir == user.run_dir)
    }

    /// Books a change of which it is not known whether it was made, now that the pool has `now` pages. What
    /// somebody else did to the pool meanwhile is not told apart; no more is booked than was to be changed.
    pub fn settle_change(&mut self, now: u64) {
        let Some(change) = self.under_way.take() else {
            return;
        };
        let Some(claim) = self.of(&change.user) else {
            return;
        };
        if change.to > change.from {
            claim.added += now.clamp(change.from, change.to) - change.from;
        } else {
            let gone = change.from - now.clamp(change.to, change.from);
            claim.added = claim.added.saturating_sub(gone);
        }
    }

    /// Pages that look free and that a QEMU is about to take: of everybody, or of everybody but one.
    pub fn promised(&self, but: Option<&User>) -> u64 {
        let open = self.users.iter().filter(|claim| {
            !claim.settled
                && but.is_none_or(|user| claim.user.run_dir != user.run_dir)
                && alive(&claim.user.run_dir) == Alive::Yes
        });
        open.map(|claim| claim.pages).sum()
    }
}

impl HostDir {
    /// All of them.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn pools(&self) -> Result<Vec<Record<Pool>>, DeviceError> {
        self.records(POOLS)
    }

    /// One; nobody's but root's or ours is believed.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn pool(&self, key: &str) -> Result<Option<Pool>, DeviceError> {
        let found = self.record::<Pool>(POOLS, key)?;
        Ok(found
            .filter(|record| record.trusted)
            .map(|record| record.content))
    }

    /// Puts one down; one without users is removed.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put_pool(&self, _lock: &HostLock, key: &str, pool: &Pool) -> Result<(), DeviceError> {
        if pool.users.is_empty() {
            return self.remove(POOLS, key);
        }
        self.write(POOLS, key, pool)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_was_cut_short_is_booked_as_far_as_it_came() {
        let user = User {
            guest: "a".to_owned(),
            run_dir: "/nonexistent/a".into(),
        };
        let booked = |from, to, had, now| {
            let mut pool = Pool {
                users: vec![Claim {
                    user: user.clone(),
                    pages: 100,
                    added: had,
                    settled: false,
                }],
                under_way: Some(Change {
                    user: user.clone(),
                    from,
                    to,
                }),
            };
            pool.settle_change(now);
            assert_eq!(pool.under_way, None);
            pool.of(&user).unwrap().added
        };
        // Not begun, in part, done, and others have added some as well.
        assert_eq!(booked(10, 110, 0, 10), 0);
        assert_eq!(booked(10, 110, 0, 50), 40);
        assert_eq!(booked(10, 110, 0, 110), 100);
        assert_eq!(booked(10, 110, 0, 500), 100);
        assert_eq!(booked(10, 110, 0, 5), 0);
        // Given back.
        assert_eq!(booked(110, 10, 100, 110), 100);
        assert_eq!(booked(110, 10, 100, 60), 50);
        assert_eq!(booked(110, 10, 100, 10), 0);
    }
}
