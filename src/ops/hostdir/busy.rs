//! Who is at work on a device right now.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::libc;
use rustix::fs::{MemfdFlags, memfd_create};

use super::{BusyLock, HostDir, note, open_or_create, safe};
use crate::ops::device_error::DeviceError;
use crate::ops::lock;

/// The lock of a device, which the helper process that works on it holds as long as it lives. One that
/// was left behind by an mvm before is waited for.
///
/// # Errors
/// It is not done in time: [`DeviceError::Busy`].
pub(crate) fn take(
    dir: &HostDir,
    key: &str,
    what: &str,
    limit: Duration,
) -> Result<BusyLock, DeviceError> {
    if !dir.is_safe("busy")? {
        // An ordinary user in a directory that root made in part: as below.
        return private(what).map_err(DeviceError::host_dir(dir.path()));
    }
    let folder = dir.path().join("busy");
    let path = folder.join(key);
    let end = Instant::now() + limit;
    loop {
        let file = match open_or_create(&path, 0o644) {
            // An ordinary user in root's directory: it can see who is at work, and is itself not
            // seen, but it cannot write to devices either.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                if !lock::is_held(&path).unwrap_or(true) {
                    return private(what).map_err(DeviceError::host_dir(&path));
                }
                None
            }
            opened => Some(opened.map_err(DeviceError::host_dir(&path))?),
        };
        let Some(file) = file else {
            wait_or_tell(key, &path, end)?;
            continue;
        };
        if lock::try_file(&file).map_err(DeviceError::host_dir(&path))? {
            if !lock::is_at(&file, &path) {
                continue;
            }
            note(&file, &format!("{what} (process {})\n", std::process::id()))
                .map_err(DeviceError::host_dir(&path))?;
            return Ok(file.into());
        }
        wait_or_tell(key, &path, end)?;
    }
}

fn wait_or_tell(key: &str, path: &Path, end: Instant) -> Result<(), DeviceError> {
    if Instant::now() >= end {
        let what = fs::read_to_string(path).unwrap_or_default();
        return Err(DeviceError::Busy {
            device: key.to_owned(),
            what: what.trim().to_owned(),
        });
    }
    std::thread::sleep(Duration::from_millis(5));
    Ok(())
}

fn private(what: &str) -> io::Result<BusyLock> {
    let name = what.split(' ').next().unwrap_or_default();
    Ok(memfd_create(name, MemfdFlags::CLOEXEC)?)
}

/// Removes the file of a lock that we hold: nobody works on the device any more.
pub(crate) fn done(dir: &HostDir, key: &str) {
    // A file that stays harms nobody: it is the lock that counts.
    let _ = fs::remove_file(dir.path().join("busy").join(key));
}

/// Removes the files of locks that nobody holds: those of helpers that are done and whose mvm had died.
pub(super) fn tidy(dir: &HostDir) {
    let entries = fs::read_dir(dir.path().join("busy")).into_iter().flatten();
    for entry in entries.flatten() {
        let path = entry.path();
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path);
        let Ok(file) = file else {
            continue;
        };
        let ours = |meta: fs::Metadata| meta.is_file() && safe::is_ours(&meta);
        if !file.metadata().is_ok_and(ours) {
            continue;
        }
        if matches!(lock::try_file(&file), Ok(true)) && lock::is_at(&file, &path) {
            // As for one that is done.
            let _ = fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_operation_under_way_is_waited_for_then_told() {
        let top = tempfile::tempdir().unwrap();
        let dir = HostDir::new(&top.path().join("host"));
        drop(dir.lock().unwrap());
        let short = Duration::from_millis(20);
        let first = take(&dir, "pci-0000:01:00.0", "unbind", short).unwrap();
        let error = take(&dir, "pci-0000:01:00.0", "reset", short).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "an earlier operation on pci-0000:01:00.0 is not done yet: unbind (process {})",
                std::process::id()
            )
        );
        take(&dir, "pci-0000:02:00.0", "reset", short).unwrap();
        done(&dir, "pci-0000:01:00.0");
        drop(first);
        take(&dir, "pci-0000:01:00.0", "reset", short).unwrap();
    }
}
