//! What of mvm's own files the user as whom QEMU runs gets. He gets files and the way to them, never a
//! directory: what lies beside them (locks, state, the journal) decides who controls the guest.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::Path;

use nix::libc;

use super::OpsError;
use super::dirs::kind;

/// Lets a group, or everybody, go through a directory.
pub(crate) fn open_dir(path: &Path, group: Option<u32>) -> Result<(), OpsError> {
    let look = || fs::metadata(path).map_err(OpsError::io("look at", path));
    let meta = look()?;
    if !meta.is_dir() {
        return Err(OpsError::InTheWay {
            path: path.to_owned(),
            found: kind(&meta),
            wanted: "a directory",
        });
    }
    let (mode, bits) = match group {
        // Everybody may already.
        _ if meta.mode() & 0o001 != 0 => return Ok(()),
        Some(group) => {
            if meta.gid() != group {
                chown(path, None, Some(group)).map_err(OpsError::io("set the group of", path))?;
            }
            (meta.mode() | 0o010, 0o010)
        }
        None => (meta.mode() | 0o011, 0o001),
    };
    fs::set_permissions(path, Permissions::from_mode(mode & 0o7777))
        .map_err(OpsError::io("set the mode of", path))?;
    let now = look()?;
    if now.mode() & bits == bits && group.is_none_or(|group| now.gid() == group) {
        return Ok(());
    }
    Err(OpsError::NoEffect {
        what: format!("the mode of {}", path.display()),
    })
}

/// Gives a file to a user; an empty one where there is none.
pub(crate) fn give_file(path: &Path, uid: u32, gid: u32) -> Result<(), OpsError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(OpsError::io("open", path))?;
    let look = || file.metadata().map_err(OpsError::io("look at", path));
    let meta = look()?;
    if !meta.is_file() {
        return Err(OpsError::InTheWay {
            path: path.to_owned(),
            found: kind(&meta),
            wanted: "a file",
        });
    }
    if (meta.uid(), meta.gid()) != (uid, gid) {
        fchown(&file, Some(uid), Some(gid)).map_err(OpsError::io("set the owner of", path))?;
    }
    if meta.mode() & 0o600 != 0o600 {
        file.set_permissions(Permissions::from_mode(meta.mode() & 0o777 | 0o600))
            .map_err(OpsError::io("set the mode of", path))?;
    }
    let now = look()?;
    if (now.uid(), now.gid()) == (uid, gid) {
        return Ok(());
    }
    Err(OpsError::NoEffect {
        what: format!("the owner of {}", path.display()),
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_directory_is_a_way_and_no_more() {
        let top = tempfile::tempdir().unwrap();
        let gid = nix::unistd::Gid::effective().as_raw();
        fs::set_permissions(top.path(), Permissions::from_mode(0o700)).unwrap();
        open_dir(top.path(), Some(gid)).unwrap();
        assert_eq!(mode(top.path()), 0o710);
        open_dir(top.path(), None).unwrap();
        assert_eq!(mode(top.path()), 0o711);
        let file = top.path().join("file");
        fs::write(&file, "").unwrap();
        let error = open_dir(&file, None).unwrap_err().to_string();
        assert!(error.ends_with("is a file, not a directory"), "{error}");
    }

    #[test]
    fn a_file_is_given_as_it_is() {
        let top = tempfile::tempdir().unwrap();
        let (file, link) = (top.path().join("file"), top.path().join("link"));
        let root = nix::unistd::Uid::effective().is_root();
        let uid = if root {
            65534
        } else {
            nix::unistd::Uid::effective().as_raw()
        };
        let gid = nix::unistd::Gid::effective().as_raw();
        give_file(&file, uid, gid).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().uid(), uid);
        fs::write(&file, "kept").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap();
        if root {
            give_file(&file, uid, gid).unwrap();
            assert_eq!(
                (fs::read_to_string(&file).unwrap(), mode(&file)),
                ("kept".to_owned(), 0o600)
            );
        }
        // Where it leads is not mvm's own.
        std::os::unix::fs::symlink(&file, &link).unwrap();
        give_file(&link, uid, gid).unwrap_err();
    }
}
