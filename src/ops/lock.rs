//! Locks that live as long as any process that has the open file.
//!
//! They are open-file-description locks (`F_OFD_SETLK`): like `flock`, they go to a child with the
//! descriptor and end with its last holder; unlike `flock`, one can ask who has them without taking
//! them, so that `mvm list` never makes a start fail.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::OpsError;

fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        // The constants are small; the field is a short.
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Takes the lock and writes this process's id into the file.
///
/// # Errors
/// [`OpsError::Held`] names the guest (the file's folder) and the process.
pub fn take(path: &Path) -> Result<OwnedFd, OpsError> {
    // The file may be removed by its last holder between our open and our lock.
    for _ in 0..16 {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(OpsError::io("open", path))?;
        if let Err(errno) = fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))) {
            if !matches!(errno, nix::Error::EAGAIN | nix::Error::EACCES) {
                return Err(OpsError::io("lock", path)(errno));
            }
            return Err(OpsError::Held {
                guest: guest_of(path),
                pid: written_pid(&mut file),
            });
        }
        if !is_at(&file, path) {
            continue;
        }
        let note = format!("{}\n", std::process::id());
        file.set_len(0)
            .and_then(|()| file.write_all(note.as_bytes()))
            .map_err(OpsError::io("write", path))?;
        return Ok(file.into());
    }
    Err(OpsError::io("lock", path)(io::Error::from(
        io::ErrorKind::ResourceBusy,
    )))
}

/// Takes the lock of a file that is open already; whether it could.
///
/// # Errors
/// The file system has no such locks.
pub(crate) fn try_file(file: &File) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))) {
        Ok(_) => Ok(true),
        Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Opens a file whose path others may have chosen: no link is followed, a FIFO is not waited for. `None`
/// where there is none, or none that could be a lock.
fn open_to_ask(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    match file {
        Ok(file) => Ok(file.metadata()?.is_file().then_some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // A link; a socket.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether somebody has the lock, without taking it. No regular file, no lock.
///
/// # Errors
/// The file cannot be read.
pub fn is_held(path: &Path) -> Result<bool, OpsError> {
    // To ask, it is enough to read it.
    let Some(file) = open_to_ask(path).map_err(OpsError::io("open", path))? else {
        return Ok(false);
    };
    let mut query = whole_file(libc::F_WRLCK);
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut query)).map_err(OpsError::io("ask for", path))?;
    Ok(libc::c_int::from(query.l_type) != libc::F_UNLCK)
}

/// The process id that the lock's last taker wrote.
pub fn holder(path: &Path) -> Option<u32> {
    written_pid(&mut open_to_ask(path).ok()??)
}

fn written_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn guest_of(path: &Path) -> String {
    path.parent()
        .and_then(Path::file_name)
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}

/// Whether a lock is on the file that is there now: its own may have been removed, and another made.
pub fn is_on(lock: &OwnedFd, path: &Path) -> bool {
    lock.try_clone()
        .is_ok_and(|lock| is_at(&File::from(lock), path))
}

/// Whether an open file is the one of that name.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_regular_file_is_no_lock_and_is_not_waited_for() {
        use nix::sys::stat::Mode;
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        let _held = take(&at("lock")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink(at("lock"), at("link")).unwrap();
        std::fs::create_dir(at("dir")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for name in ["fifo", "link", "dir", "socket"] {
            assert!(!is_held(&at(name)).unwrap(), "{name}");
            assert_eq!(holder(&at(name)), None, "{name}");
        }
        assert!(is_held(&at("lock")).unwrap());
    }

    #[test]
    fn one_holder_at_a_time_and_asking_does_not_take() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("lock");
        assert!(!is_held(&path).unwrap());
        let held = take(&path).unwrap();
        assert!(is_held(&path).unwrap());
        assert_eq!(holder(&path), Some(std::process::id()));
        let error = take(&path).unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        // A duplicate is the same open file: as with a QEMU that inherited it, the lock stays.
        let copy = held.try_clone().unwrap();
        drop(held);
        assert!(is_held(&path).unwrap());
        drop(copy);
        assert!(!is_held(&path).unwrap());
        take(&path).unwrap();
    }
}
