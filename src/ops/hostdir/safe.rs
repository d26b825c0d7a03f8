//! That nobody else decides what is in the directory: root, and users, act on what they find there.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use super::{HostDir, is_root};
use crate::ops::device_error::DeviceError;

/// The only folder that users write to in root's directory: each removes only his own there.
const EVERYBODYS: &str = "leases";
/// That one comes last: where it is, all is.
const FOLDERS: [&str; 5] = ["shared", "pools", "bound", "busy", EVERYBODYS];

fn us() -> u32 {
    nix::unistd::Uid::effective().as_raw()
}

/// Whether a file or directory is root's or this user's.
pub(super) fn is_ours(meta: &Metadata) -> bool {
    meta.uid() == us() || meta.uid() == 0
}

fn look(path: &Path) -> Result<Option<Metadata>, DeviceError> {
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(Some(meta)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DeviceError::host_dir(path)(error)),
    }
}

/// That a directory is one, root's or ours, and that others cannot put anything there; `shared` by all,
/// that they can only remove their own. One of ours is put right.
fn check(path: &Path, meta: &Metadata, everybodys: bool) -> Result<(), DeviceError> {
    let bad = |why: String| {
        Err(DeviceError::Unsafe {
            path: path.to_owned(),
            why,
        })
    };
    if !meta.is_dir() {
        return bad("it is no directory".to_owned());
    }
    if !is_ours(meta) {
        return bad(format!("it is user {}'s", meta.uid()));
    }
    let mode = meta.mode() & 0o7777;
    let wanted = match everybodys {
        true if is_root() => 0o1777,
        true if mode & 0o1000 != 0 => mode,
        _ if mode & 0o022 != 0 => mode & !0o1022,
        _ => mode,
    };
    if mode == wanted {
        return Ok(());
    }
    if meta.uid() != us() {
        return bad(format!("others may change it (mode {mode:o})"));
    }
    fs::set_permissions(path, Permissions::from_mode(wanted)).map_err(DeviceError::host_dir(path))
}

fn make(path: &Path) -> Result<(), DeviceError> {
    match DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(DeviceError::host_dir(path)(error))
        }
        Err(_) => Ok(()),
        // Whatever the umask is.
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o755))
            .map_err(DeviceError::host_dir(path)),
    }
}

impl HostDir {
    /// Whether it is this user's to change: root's is only added to by root.
    ///
    /// # Errors
    /// It cannot be made or relied upon.
    pub fn is_ours(&self) -> Result<bool, DeviceError> {
        self.make()
    }

    /// Makes the directory and its folders where they are missing. Whether it is this user's: root's is
    /// only added to by root.
    pub(super) fn make(&self) -> Result<bool, DeviceError> {
        let meta = match look(&self.path)? {
            Some(meta) => meta,
            None => {
                if let Some(parent) = self.path.parent() {
                    fs::create_dir_all(parent).map_err(DeviceError::host_dir(&self.path))?;
                }
                make(&self.path)?;
                fs::symlink_metadata(&self.path).map_err(DeviceError::host_dir(&self.path))?
            }
        };
        check(&self.path, &meta, false)?;
        let ours = meta.uid() == us();
        for folder in FOLDERS {
            if !self.is_safe(folder)? && (ours || folder == EVERYBODYS) {
                make(&self.path.join(folder))?;
                self.is_safe(folder)?;
            }
        }
        Ok(ours)
    }

    /// Whether a folder is there; an error where it, or the directory, cannot be relied upon.
    pub(super) fn is_safe(&self, folder: &str) -> Result<bool, DeviceError> {
        let Some(top) = look(&self.path)? else {
            return Ok(false);
        };
        check(&self.path, &top, false)?;
        let path = self.path.join(folder);
        let Some(meta) = look(&path)? else {
            return Ok(false);
        };
        check(&path, &meta, folder == EVERYBODYS)?;
        Ok(true)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::handover::Extent;
    use crate::plan::step::{Step, User};
    use std::os::unix::fs::{chown, symlink};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn only_leases_are_open_to_all_and_what_is_ours_is_put_right() {
        let top = tempfile::tempdir().unwrap();
        let dir = HostDir::new(&top.path().join("host"));
        drop(dir.lock().unwrap());
        assert_eq!(mode(dir.path()), 0o755);
        assert_eq!(mode(&dir.path().join("lock")), 0o600);
        let leases = if is_root() { 0o1777 } else { 0o755 };
        assert_eq!(mode(&dir.path().join("leases")), leases);
        // As an earlier mvm made them.
        for name in ["", "busy", "shared"] {
            let path = dir.path().join(name);
            fs::set_permissions(path, Permissions::from_mode(0o1777)).unwrap();
        }
        fs::set_permissions(dir.path().join("lock"), Permissions::from_mode(0o666)).unwrap();
        drop(dir.lock().unwrap());
        for name in ["", "busy", "shared"] {
            assert_eq!(mode(&dir.path().join(name)), 0o755, "{name}");
        }
        assert_eq!(mode(&dir.path().join("lock")), 0o600);
    }

    #[test]
    fn folders_that_lead_elsewhere_are_refused_and_nothing_there_is_removed() {
        let top = tempfile::tempdir().unwrap();
        let elsewhere = top.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join(".half"), "x").unwrap();
        for folder in FOLDERS {
            let dir = HostDir::new(&top.path().join(format!("host-{folder}")));
            fs::create_dir(dir.path()).unwrap();
            symlink(&elsewhere, dir.path().join(folder)).unwrap();
            let error = dir.tidy().unwrap_err().to_string();
            assert!(error.contains("it is no directory"), "{error}");
            assert!(elsewhere.join(".half").exists());
        }
        let link = HostDir::new(&top.path().join("host-link"));
        symlink(&elsewhere, link.path()).unwrap();
        assert!(matches!(link.leases(), Err(DeviceError::Unsafe { .. })));
        if is_root() {
            let dir = HostDir::new(&top.path().join("host"));
            drop(dir.lock().unwrap());
            chown(dir.path().join("shared"), Some(4242), None).unwrap();
            let error = dir.shared().unwrap_err().to_string();
            assert!(error.contains("it is user 4242's"), "{error}");
        }
    }

    #[test]
    fn an_ordinary_user_takes_leases_in_roots_directory_and_no_more() {
        if !is_root() {
            return;
        }
        // Who a process is goes for all of its threads.
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let name = "ops::hostdir::safe::tests::ordinary_user";
        let out = child.args(["--exact", name, "--ignored"]).output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && said.contains("1 passed"), "{said}");
    }

    #[test]
    #[ignore = "started by the test above"]
    fn ordinary_user() {
        if !is_root() {
            return;
        }
        let top = tempfile::tempdir().unwrap();
        fs::set_permissions(top.path(), Permissions::from_mode(0o755)).unwrap();
        let dir = HostDir::new(&top.path().join("host"));
        let user = |guest: &str| User {
            guest: guest.to_owned(),
            run_dir: top.path().join(guest),
        };
        let usb = |key: &str| Extent {
            key: key.to_owned(),
            part_of: None,
        };
        let roots = dir.lock().unwrap();
        dir.take_lease(&roots, &usb("usb-1-1"), "x", &user("roots"), &|_| None)
            .unwrap();
        fs::create_dir(top.path().join("roots")).unwrap();
        let _life = crate::ops::lock::take(&top.path().join("roots/lock")).unwrap();
        fs::set_permissions(top.path().join("roots"), Permissions::from_mode(0o700)).unwrap();
        nix::unistd::seteuid(4242.into()).unwrap();

        // Root is at work meanwhile.
        let held = dir.lock().unwrap();
        let (us, undo) = (user("us"), Step::RemoveFile { path: "/x".into() });
        dir.take_lease(&held, &usb("usb-1-2"), "x", &us, &|_| None)
            .unwrap();
        dir.note_undo(&held, "usb-1-2", &undo).unwrap();
        assert!(dir.has_undo("usb-1-2", &undo).unwrap());
        let error = dir.take_lease(&held, &usb("usb-1-1"), "x", &us, &|_| None);
        assert!(
            matches!(error, Err(DeviceError::Leased { .. })),
            "{error:?}"
        );
        let error = dir.share(&held, "vfs-x", &us, || Ok(vec![undo.clone()]));
        assert!(
            matches!(error, Err(DeviceError::HostDir { .. })),
            "{error:?}"
        );
        dir.tidy().unwrap();
        dir.release_lease(&held, "usb-1-2", &us).unwrap();
        assert_eq!(dir.leases().unwrap().len(), 1);
        nix::unistd::seteuid(0.into()).unwrap();
        drop(roots);
    }

    #[test]
    fn tidying_removes_only_regular_files_of_ours() {
        let top = tempfile::tempdir().unwrap();
        let dir = HostDir::new(&top.path().join("host"));
        drop(dir.lock().unwrap());
        let at = |name: &str| dir.path().join(name);
        for name in ["leases/.half", "leases/.theirs", "busy/done", "busy/theirs"] {
            fs::write(at(name), "x").unwrap();
        }
        symlink(at("leases/.half"), at("leases/.link")).unwrap();
        nix::unistd::mkfifo(&at("busy/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut stays = vec!["leases/.link", "busy/fifo"];
        if is_root() {
            for name in ["leases/.theirs", "busy/theirs"] {
                chown(at(name), Some(4242), None).unwrap();
                stays.push(name);
            }
        }
        dir.tidy().unwrap();
        assert!(!at("leases/.half").exists() && !at("busy/done").exists());
        for name in stays {
            assert!(fs::symlink_metadata(at(name)).is_ok(), "{name}");
        }
    }
}
