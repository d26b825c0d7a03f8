//! Who has a device.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Alive, HostDir, HostLock, Record, alive, is_root, now};
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
}

impl Record<Lease> {
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

const LEASES: &str = "leases";
const BOUND: &str = "bound";

impl HostDir {
    /// All leases, by name.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn leases(&self) -> Result<Vec<Record<Lease>>, DeviceError> {
        self.records(LEASES)
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
                tracing::warn!(lease = %found.key, uid = found.content.uid, "removed another user's");
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
        key: &str,
        device: &str,
        user: &User,
        in_use: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), DeviceError> {
        for found in self.leases()? {
            let lease = &found.content;
            if !excludes(key, &found.key) {
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
                let guest = lease.guest.clone();
                return Err(DeviceError::Leased { device, guest });
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
            guest: user.guest.clone(),
            run_dir: user.run_dir.clone(),
            uid: nix::unistd::Uid::effective().as_raw(),
            pid: std::process::id(),
            since: now(),
            undo: Vec::new(),
        };
        if !self.write_new(LEASES, key, &lease)? {
            // Another user was faster, or it is none.
            let taken = |guest: String| DeviceError::Leased {
                device: device.to_owned(),
                guest,
            };
            match self.record::<Lease>(LEASES, key) {
                Ok(found) => {
                    return Err(taken(
                        found.map_or_else(|| "?".to_owned(), |f| f.content.guest),
                    ));
                }
                Err(_) => self.write(LEASES, key, &lease)?,
            }
        }
        // Users have no lock in common with root: whoever was faster with a function of the same is seen now.
        for found in self.leases()? {
            let theirs = found.key != key && found.content.run_dir != user.run_dir;
            if theirs && excludes(key, &found.key) {
                self.remove(LEASES, key)?;
                return Err(DeviceError::Leased {
                    device: found.content.device,
                    guest: found.content.guest,
                });
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
    ) -> Result<(), DeviceError> {
        let record = ByHand {
            device: device.to_owned(),
            since: now(),
            undo: undo.clone(),
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

/// Whether two leases cannot be different guests': the same device, or a physical function and one of
/// its virtual ones.
fn excludes(wanted: &str, there: &str) -> bool {
    let vf_of = |a: &str, b: &str| {
        a.strip_prefix(b)
            .is_some_and(|rest| rest.starts_with("-vf"))
    };
    wanted == there || vf_of(wanted, there) || vf_of(there, wanted)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::ops::lock;

    fn user(top: &std::path::Path, guest: &str) -> User {
        User {
            guest: guest.to_owned(),
            run_dir: top.join(guest),
        }
    }

    #[test]
    fn a_device_is_one_guests() {
        let top = tempfile::tempdir().unwrap();
        let dir = HostDir::new(&top.path().join("host"));
        let (a, b) = (user(top.path(), "a"), user(top.path(), "b"));
        let held = dir.lock().unwrap();
        let free = |_: &str| None;
        let take = |key: &str, user: &User| dir.take_lease(&held, key, key, user, &free);
        std::fs::create_dir(&a.run_dir).unwrap();
        let life = lock::take(&a.run_dir.join("lock")).unwrap();
        take("pci-0000:01:00.0-vf1", &a).unwrap();
        take("pci-0000:01:00.0-vf1", &a).unwrap();
        take("pci-0000:01:00.0-vf2", &b).unwrap();
        dir.release_lease(&held, "pci-0000:01:00.0-vf2", &b)
            .unwrap();
        for key in ["pci-0000:01:00.0-vf1", "pci-0000:01:00.0"] {
            let error = take(key, &b).unwrap_err();
            assert_eq!(error.to_string(), "pci-0000:01:00.0-vf1 is guest `a`'s");
        }
        dir.release_lease(&held, "pci-0000:01:00.0-vf1", &b)
            .unwrap();
        assert_eq!(dir.leases().unwrap().len(), 1, "another guest's stays");

        // The guest dies with something to give back, then with nothing.
        drop(life);
        let undo = Step::RemoveMdev {
            uuid: uuid::Uuid::nil(),
        };
        dir.note_undo(&held, "pci-0000:01:00.0-vf1", &undo).unwrap();
        let found = &dir.leases().unwrap()[0];
        assert_eq!(found.take_back(), [], "it is about another device");
        let error = take("pci-0000:01:00.0", &b).unwrap_err();
        assert!(matches!(error, DeviceError::LeftBehind { .. }), "{error}");
        dir.strike_undo(&held, "pci-0000:01:00.0-vf1", &undo)
            .unwrap();
        let open = |_: &str| Some("process 7".to_owned());
        let error = dir.take_lease(&held, "pci-0000:01:00.0", "x", &b, &open);
        assert!(matches!(error, Err(DeviceError::InUse { .. })), "{error:?}");
        take("pci-0000:01:00.0", &b).unwrap();
        let left = dir.leases().unwrap();
        assert_eq!((left.len(), left[0].content.guest.as_str()), (1, "b"));
    }

    #[test]
    fn only_what_gives_the_leases_own_device_back_is_carried_out() {
        let own = Step::GiveBack {
            device: "01:00.0".parse().unwrap(),
            driver: "vfio-pci".to_owned(),
            from: crate::plan::step::Bound::default(),
        };
        let undo = vec![
            own.clone(),
            Step::CopyFile {
                from: "/tmp/x".into(),
                to: "/etc/x".into(),
                mode: 0o644,
            },
            Step::RemoveMdev {
                uuid: uuid::Uuid::nil(),
            },
            Step::ReleaseLease {
                key: "pci-0000:01:00.0".to_owned(),
                user: user("/run".as_ref(), "a"),
            },
        ];
        let mut record = Record {
            key: "pci-0000:01:00.0".to_owned(),
            content: Lease {
                key: String::new(),
                device: "x".to_owned(),
                guest: "a".to_owned(),
                run_dir: "/nowhere".into(),
                uid: 0,
                pid: 1,
                since: 1,
                undo,
            },
            trusted: true,
        };
        assert_eq!(record.take_back(), [own]);
        record.trusted = false;
        assert_eq!(record.take_back(), []);
    }

    /// Another user's file can only be had by root.
    #[test]
    fn what_another_user_wrote_is_never_made_ones_own() {
        if !is_root() {
            return;
        }
        let top = tempfile::tempdir().unwrap();
        let dir = HostDir::new(&top.path().join("host"));
        let key = "pci-0000:01:00.0";
        let us = user(top.path(), "us");
        let held = dir.lock().unwrap();
        let undo = Step::GiveBack {
            device: "01:00.0".parse().unwrap(),
            driver: "vfio-pci".to_owned(),
            from: crate::plan::step::Bound::default(),
        };
        let path = dir.path().join(LEASES).join(key);
        for run_dir in [us.run_dir.clone(), "/nowhere".into()] {
            dir.take_lease(&held, key, "x", &user(top.path(), "us"), &|_| None)
                .unwrap();
            let mut lease = dir.leases().unwrap()[0].content.clone();
            lease.undo = vec![undo.clone()];
            lease.run_dir = run_dir;
            std::fs::write(&path, serde_json::to_vec(&lease).unwrap()).unwrap();
            std::os::unix::fs::chown(&path, Some(4242), None).unwrap();

            assert!(!dir.has_undo(key, &undo).unwrap());
            dir.note_undo(&held, key, &Step::RemoveFile { path: "/x".into() })
                .unwrap();
            dir.strike_undo(&held, key, &undo).unwrap();
            dir.release_lease(&held, key, &us).unwrap();
            let found = &dir.leases().unwrap()[0];
            assert!(!found.trusted);
            assert_eq!(found.content, lease, "nothing has touched it");
            assert_eq!(found.take_back(), []);

            // What it is about is free for root, without what it says.
            dir.drop_strangers(&held, &|_| Some("process 7".to_owned()))
                .unwrap();
            assert_eq!(dir.leases().unwrap().len(), 1);
            dir.take_lease(&held, key, "x", &us, &|_| None).unwrap();
            let found = &dir.leases().unwrap()[0];
            assert!(found.trusted && found.content.undo.is_empty());
            assert_eq!(found.content.run_dir, us.run_dir);
            dir.drop_strangers(&held, &|_| None).unwrap();
            assert_eq!(dir.leases().unwrap().len(), 1, "root's own stays");
            std::os::unix::fs::chown(&path, Some(4242), None).unwrap();
            dir.drop_strangers(&held, &|_| None).unwrap();
            assert_eq!(dir.leases().unwrap(), []);
        }
    }

    #[test]
    fn a_new_lease_replaces_none() {
        let top = tempfile::tempdir().unwrap();
        let dir = HostDir::new(&top.path().join("host"));
        let held = dir.lock().unwrap();
        let us = user(top.path(), "us");
        dir.take_lease(&held, "usb-1-1", "x", &us, &|_| None)
            .unwrap();
        let lease = &dir.leases().unwrap()[0].content;
        let mut other = lease.clone();
        other.guest = "other".to_owned();
        assert!(!dir.write_new(LEASES, "usb-1-1", &other).unwrap());
        assert_eq!(&dir.leases().unwrap()[0].content, lease);
        assert!(dir.write_new(LEASES, "usb-1-2", &other).unwrap());
        let files = std::fs::read_dir(dir.path().join(LEASES)).unwrap();
        assert_eq!(files.count(), 2, "nothing half written stays");

        // What is no record is none in the way either.
        let odd = dir.path().join(LEASES).join("usb-1-3");
        std::os::unix::fs::symlink("/nowhere", odd).unwrap();
        dir.take_lease(&held, "usb-1-3", "x", &us, &|_| None)
            .unwrap();
        assert_eq!(dir.leases().unwrap()[2].content.guest, "us");
    }

    #[test]
    fn odd_files_are_left_out() {
        use std::os::unix::ffi::OsStrExt;
        let top = tempfile::tempdir().unwrap();
        let dir = HostDir::new(&top.path().join("host"));
        let held = dir.lock().unwrap();
        let us = user(top.path(), "us");
        dir.take_lease(&held, "usb-1-1", "x", &us, &|_| None)
            .unwrap();
        let at = |name: &str| dir.path().join(LEASES).join(name);
        std::os::unix::fs::symlink(at("usb-1-1"), at("usb-1-2")).unwrap();
        std::fs::create_dir(at("usb-1-3")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("usb-1-4")).unwrap();
        nix::unistd::mkfifo(&at("usb-1-5"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::write(at("usb-1-6"), b"\xff{").unwrap();
        let name = std::ffi::OsStr::from_bytes(b"usb-\xff");
        std::fs::copy(at("usb-1-1"), dir.path().join(LEASES).join(name)).unwrap();
        let found = dir.leases().unwrap();
        let keys: Vec<&str> = found.iter().map(|found| found.key.as_str()).collect();
        assert_eq!(keys, ["usb-1-1"]);
        dir.take_lease(&held, "usb-1-7", "x", &us, &|_| None)
            .unwrap();
        dir.release_lease(&held, "usb-1-7", &us).unwrap();
    }

    #[test]
    fn names_that_begin_alike_are_different_devices() {
        assert!(!excludes("pci-0000:01:00.0-vf1", "pci-0000:01:00.0-vf11"));
        assert!(!excludes("usb-1-3", "usb-1-3.2"));
        assert!(excludes("pci-0000:01:00.0", "pci-0000:01:00.0-vf11"));
    }
}
