//! Directories and the removal of what mvm put into them.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use super::OpsError;

/// What root makes further up than mvm's own directories: a way for the user as whom QEMU may run.
const WAY: u32 = 0o711;

/// Makes a directory with its parents. One that is not kept is a run-time directory: it must be a
/// real directory of ours, because sockets and locks in it decide who controls the guest.
///
/// Its mode is that of the directory around it too, which holds what is mvm's and nothing else. What leads
/// there holds nothing to be hidden; an ordinary user's is for himself all the same.
pub(crate) fn make(path: &Path, mode: u32, keep: bool) -> Result<(), OpsError> {
    let above = path.parent().and_then(Path::parent);
    if let Some(above) = above.filter(|above| !above.exists()) {
        let root = nix::unistd::Uid::effective().is_root();
        make_with_parents(above, if root { WAY } else { mode })?;
    }
    make_with_parents(path, mode)?;
    if keep {
        let meta = fs::metadata(path).map_err(OpsError::io("look at", path))?;
        return expect_dir(path, &meta);
    }
    let meta = fs::symlink_metadata(path).map_err(OpsError::io("look at", path))?;
    expect_dir(path, &meta)?;
    expect_owner(path, &meta, &[])?;
    if let Some(parent) = path.parent() {
        let above = fs::metadata(parent).map_err(OpsError::io("look at", parent))?;
        expect_owner(parent, &above, &[0])?;
    }
    if meta.mode() & 0o7777 != mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(OpsError::io("set the mode of", path))?;
    }
    Ok(())
}

fn make_with_parents(path: &Path, mode: u32) -> Result<(), OpsError> {
    for _ in 0..3 {
        match DirBuilder::new().mode(mode).create(path) {
            // A mode for others is not what the umask leaves of it.
            Ok(()) if mode & 0o077 != 0 => {
                return fs::set_permissions(path, fs::Permissions::from_mode(mode))
                    .map_err(OpsError::io("set the mode of", path));
            }
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            // The parent is missing, or was removed between two tries.
            Err(error) if error.kind() == io::ErrorKind::NotFound => match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => make_with_parents(parent, mode)?,
                _ => return Err(OpsError::io("make", path)(error)),
            },
            Err(error) => return Err(OpsError::io("make", path)(error)),
        }
    }
    Err(OpsError::io("make", path)(io::Error::from(
        io::ErrorKind::NotFound,
    )))
}

fn expect_dir(path: &Path, meta: &Metadata) -> Result<(), OpsError> {
    if meta.is_dir() {
        return Ok(());
    }
    Err(OpsError::InTheWay {
        path: path.to_owned(),
        found: kind(meta),
        wanted: "a directory",
    })
}

fn expect_owner(path: &Path, meta: &Metadata, also: &[u32]) -> Result<(), OpsError> {
    let us = nix::unistd::Uid::effective().as_raw();
    if meta.uid() == us || also.contains(&meta.uid()) {
        return Ok(());
    }
    Err(OpsError::NotOurs {
        path: path.to_owned(),
        owner: meta.uid(),
        us,
    })
}

/// What a file is, in words.
pub(crate) fn kind(meta: &Metadata) -> &'static str {
    let kind = meta.file_type();
    if kind.is_dir() {
        "a directory"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_block_device() || kind.is_char_device() {
        "a device"
    } else {
        "a file"
    }
}

/// Removes a file; it may be gone already.
pub(crate) fn remove_file(path: &Path) -> Result<(), OpsError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(OpsError::io("remove", path)(error)),
    }
}

/// Whether a name in a guest's run-time directory is one that mvm or its QEMU puts there.
pub fn is_ours(name: &str) -> bool {
    const FIXED: [&str; 14] = [
        "vnc.sock",
        "spice.sock",
        "lock",
        "supervisor.lock",
        "state.json",
        "plan.json",
        "first-plan.json",
        "devices.json",
        "journal.jsonl",
        "monitor.sock",
        "events.sock",
        "events.log",
        "qmp.sock",
        "control.sock",
    ];
    FIXED.contains(&name)
        || name == "agent.sock"
        || name.starts_with("shmem-")
        || name.ends_with(".mvm-new")
        || (name.ends_with(".sock")
            && (name.starts_with("console-") || name.starts_with("channel-")))
        || ([".sock", ".lock", ".ready"]
            .iter()
            .any(|end| name.ends_with(end))
            && name.starts_with("sidecar-"))
        || (name.starts_with("hook-") && name.ends_with(".ran"))
        || name.ends_with(".overlay.qcow2")
        || (name.starts_with("overlay-") && name.ends_with(".qcow2"))
}

/// Removes a run-time directory with the files that mvm puts there, the supervisor's lock last:
/// nobody else can have the guest while that file is there and held.
pub(crate) fn remove_dir(path: &Path) -> Result<(), OpsError> {
    empty_dir(path)?;
    remove_file(&path.join("supervisor.lock"))?;
    match fs::remove_dir(path) {
        Ok(()) => Ok(()),
        // Somebody who waited for the guest's name has it now: the directory is theirs.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(OpsError::io("remove", path)(error)),
    }
}

/// Removes all that mvm puts into a run-time directory but the supervisor's lock: the guest is still his who
/// has that.
pub(crate) fn empty_dir(path: &Path) -> Result<(), OpsError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(OpsError::io("read", path)(error)),
    };
    let mut foreign = Vec::new();
    for entry in entries {
        let entry = entry.map_err(OpsError::io("read", path))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if folder || !is_ours(&name) {
            foreign.push(name);
        } else if name != "lock" && name != "supervisor.lock" && name != "journal.jsonl" {
            remove_file(&entry.path())?;
        }
    }
    if !foreign.is_empty() {
        foreign.sort();
        return Err(OpsError::Foreign {
            path: path.to_owned(),
            files: foreign,
        });
    }
    // The journal first: as long as it is there, a recovery does all this again. The supervisor's lock
    // last: whoever finds it gone, and takes it anew, must not find the guest's lock still held by us,
    // or would take us for a QEMU without supervisor.
    for name in ["journal.jsonl", "lock"] {
        remove_file(&path.join(name))?;
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_run_directory_is_ours_alone() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("a/b");
        make(&dir, 0o700, false).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        make(&dir, 0o700, false).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);

        let link = top.path().join("link");
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        let error = make(&link, 0o700, false).unwrap_err();
        assert!(error.to_string().contains("a symbolic link"), "{error}");
        make(&link, 0o700, true).unwrap();

        if nix::unistd::Uid::effective().is_root() {
            std::os::unix::fs::chown(&dir, Some(4242), None).unwrap();
            let error = make(&dir, 0o700, false).unwrap_err();
            assert!(error.to_string().contains("user 4242"), "{error}");
        }
    }

    #[test]
    fn what_leads_to_a_directory_of_root_s_can_be_gone_through() {
        let top = tempfile::tempdir().unwrap();
        let mode = |name: &str| fs::metadata(top.path().join(name)).unwrap().mode() & 0o777;
        fs::create_dir(top.path().join("theirs")).unwrap();
        fs::set_permissions(top.path().join("theirs"), fs::Permissions::from_mode(0o750)).unwrap();
        make(&top.path().join("theirs/a/b/mvm/guest"), 0o700, true).unwrap();
        let way = if nix::unistd::Uid::effective().is_root() {
            0o711
        } else {
            0o700
        };
        for (name, wanted) in [
            ("theirs", 0o750),
            ("theirs/a", way),
            ("theirs/a/b", way),
            ("theirs/a/b/mvm", 0o700),
            ("theirs/a/b/mvm/guest", 0o700),
        ] {
            assert_eq!(mode(name), wanted, "{name}");
        }
    }

    #[test]
    fn only_files_of_mvm_are_removed() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("g");
        make(&dir, 0o700, false).unwrap();
        for name in ["lock", "state.json", "console-main.sock", "precious.txt"] {
            fs::write(dir.join(name), "x").unwrap();
        }
        let error = remove_dir(&dir).unwrap_err();
        assert!(error.to_string().ends_with("precious.txt"), "{error}");
        assert!(
            dir.join("lock").exists(),
            "the lock outlives what is not removed"
        );
        fs::remove_file(dir.join("precious.txt")).unwrap();
        remove_dir(&dir).unwrap();
        assert!(!dir.exists());
        remove_dir(&dir).unwrap();
    }
}
