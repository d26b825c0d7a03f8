//! Files in the place of leases that are none: whose the device is nobody knows, so nobody gets it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::lease::LEASES;
use super::{HostDir, HostLock, Lease, is_root};
use crate::ids::{PciRef, UsbPort};
use crate::ops::device_error::DeviceError;
use crate::owner::Owner;

/// What stands in the place of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// The lease's name.
    pub key: String,
    /// The file, or whatever it is.
    pub path: PathBuf,
    /// The user whose it is.
    pub uid: u32,
}

impl Damaged {
    /// As the reason why the device cannot be had.
    pub(crate) fn error(self) -> DeviceError {
        DeviceError::BadLease {
            path: self.path,
            owner: Owner::other(self.uid),
        }
    }

    /// Whether this user may remove it: root, and whose it is.
    pub(crate) fn is_removable(&self) -> bool {
        is_root() || Owner::other(self.uid).is_none()
    }
}

impl HostDir {
    /// All that have a lease's name and are none.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn damaged_leases(&self) -> Result<Vec<Damaged>, DeviceError> {
        if !self.is_safe(LEASES)? {
            return Ok(Vec::new());
        }
        let entries = fs::read_dir(self.path().join(LEASES)).into_iter().flatten();
        let keys = entries.flatten().filter_map(|entry| {
            let key = entry.file_name().into_string().ok()?;
            is_key(&key).then_some(key)
        });
        Ok(keys.filter_map(|key| self.damaged(&key)).collect())
    }

    /// What stands in the place of that lease and is none.
    pub(crate) fn damaged(&self, key: &str) -> Option<Damaged> {
        self.lease(key).err()?;
        let path = self.path().join(LEASES).join(key);
        let uid = fs::symlink_metadata(&path).ok()?.uid();
        Some(Damaged {
            key: key.to_owned(),
            path,
            uid,
        })
    }

    /// Removes what is in the place of leases and is none, where nobody has the device open: all of it as root,
    /// else this user's. What was removed.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn drop_damaged(
        &self,
        _lock: &HostLock,
        in_use: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Vec<Damaged>, DeviceError> {
        let mut gone = Vec::new();
        for damaged in self.damaged_leases()? {
            if !damaged.is_removable() || in_use(&damaged.key).is_some() {
                continue;
            }
            match self.remove_damaged(&damaged) {
                Ok(()) => gone.push(damaged),
                // A directory with something in it: that must not keep anything else from being given back.
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, cause, "no lease, and not removed");
                }
            }
        }
        Ok(gone)
    }

    pub(super) fn remove_damaged(&self, damaged: &Damaged) -> Result<(), DeviceError> {
        let path = &damaged.path;
        let is_dir = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
        if !is_dir {
            return self.remove(LEASES, &damaged.key);
        }
        fs::remove_dir(path).map_err(DeviceError::host_dir(path))
    }
}

/// Whether a lease can have that name.
fn is_key(name: &str) -> bool {
    let usb = |name: &str| name.parse::<UsbPort>().is_ok();
    let mdev = |name: &str| name.parse::<uuid::Uuid>().is_ok();
    PciRef::from_key(name).is_some()
        || name.strip_prefix("usb-").is_some_and(usb)
        || name.strip_prefix("mdev-").is_some_and(mdev)
}

impl super::Record<Lease> {
    /// As the reason why the device cannot be had.
    pub(crate) fn error(&self) -> DeviceError {
        let lock = self.content.run_dir.join("lock");
        DeviceError::Leased {
            device: self.content.device.clone(),
            guest: self.content.guest.clone(),
            owner: Owner::other(self.uid).map(|owner| owner.holding(&lock)),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::error::Hint as _;
    use crate::handover::Extent;
    use crate::ops::lock;
    use crate::plan::step::User;

    #[test]
    fn what_is_no_lease_is_named_and_removed() {
        let top = tempfile::tempdir().unwrap();
        let dir = HostDir::new(&top.path().join("host"));
        let held = dir.lock().unwrap();
        let at = |name: &str| dir.path().join(LEASES).join(name);
        fs::write(at("usb-1-3"), "{").unwrap();
        fs::write(at("pci-0000:01:00.0"), "").unwrap();
        fs::create_dir(at("usb-1-4")).unwrap();
        std::os::unix::fs::symlink("/nowhere", at("usb-1-5")).unwrap();
        // Nobody's business.
        fs::write(at("README"), "x").unwrap();
        let names = |all: &[Damaged]| {
            let mut names: Vec<String> = all.iter().map(|one| one.key.clone()).collect();
            names.sort();
            names
        };
        let all = ["pci-0000:01:00.0", "usb-1-3", "usb-1-4", "usb-1-5"];
        assert_eq!(names(&dir.damaged_leases().unwrap()), all);

        // What is open is not known to be free.
        let open = |key: &str| (key == "pci-0000:01:00.0").then(|| "process 7".to_owned());
        let user = User {
            guest: "us".to_owned(),
            run_dir: top.path().join("us"),
        };
        let taken = Extent::pci("01:00.0".parse().unwrap());
        let error = dir.take_lease(&held, &taken, "x", &user, &open);
        assert!(matches!(error, Err(DeviceError::InUse { .. })), "{error:?}");
        let gone = dir.drop_damaged(&held, &open).unwrap();
        assert_eq!(names(&gone), all[1..]);
        dir.take_lease(&held, &taken, "x", &user, &|_| None)
            .unwrap();
        assert_eq!(dir.damaged_leases().unwrap(), []);
        assert!(at("README").exists());
    }

    /// Another user's file can only be had by root.
    #[test]
    fn a_living_stranger_is_named_with_his_process() {
        if !is_root() {
            return;
        }
        let top = tempfile::tempdir().unwrap();
        let dir = HostDir::new(&top.path().join("host"));
        let held = dir.lock().unwrap();
        let user = |guest: &str| User {
            guest: guest.to_owned(),
            run_dir: top.path().join(guest),
        };
        let (theirs, ours) = (user("theirs"), user("ours"));
        fs::create_dir(&theirs.run_dir).unwrap();
        let _life = lock::take(&theirs.run_dir.join("lock")).unwrap();
        let wanted = Extent::pci("01:00.0".parse().unwrap());
        let take = |user: &User| dir.take_lease(&held, &wanted, "x", user, &|_| None);
        take(&theirs).unwrap();
        let path = dir.path().join(LEASES).join(&wanted.key);
        std::os::unix::fs::chown(path, Some(54_321), None).unwrap();
        let error = take(&ours).unwrap_err();
        let us = std::process::id();
        let said = format!("{error} / {}", error.hints().join(" / "));
        assert!(
            said.starts_with("x is guest `theirs`'s, of user 54321, process "),
            "{said}"
        );
        assert!(said.contains(&format!("`kill {us}`")), "{said}");
    }
}
