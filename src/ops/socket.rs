//! Listening Unix sockets, made before the process that serves them.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen as start_listening,
    socket,
};
use nix::sys::stat::{Mode, fchmod};

use super::OpsError;

/// The longest path that fits a socket address, without its terminating zero.
const MAX_PATH: usize = 107;

/// The address of a path of any length; the descriptor must be kept while the address is used.
fn address(path: &Path) -> io::Result<(UnixAddr, Option<OwnedFd>)> {
    if path.as_os_str().len() <= MAX_PATH {
        return Ok((UnixAddr::new(path)?, None));
    }
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir: OwnedFd = fs::File::open(dir)?.into();
    let short = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
    Ok((UnixAddr::new(&short)?, Some(dir)))
}

fn stream() -> nix::Result<OwnedFd> {
    socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )
}

/// Binds a listening socket, mode 0600. A socket file where nobody listens is one that a dead
/// process left: it is replaced, because the guest's lock, taken before, is ours.
///
/// # Errors
/// Somebody listens there, or something else is in the way.
pub fn listen(path: &Path) -> Result<OwnedFd, OpsError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(OpsError::io("look at", path)(error)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(OpsError::InTheWay {
                path: path.to_owned(),
                found: super::dirs::kind(&meta),
                wanted: "a socket",
            });
        }
        Ok(_) if is_listening(path) => {
            return Err(OpsError::Listening {
                path: path.to_owned(),
            });
        }
        Ok(_) => super::dirs::remove_file(path)?,
    }
    let (at, _dir) = address(path).map_err(OpsError::io("bind", path))?;
    let fd = stream().map_err(OpsError::io("bind", path))?;
    // The file gets the mode that the socket has when it is bound.
    fchmod(&fd, Mode::from_bits_truncate(0o600)).map_err(OpsError::io("bind", path))?;
    bind(fd.as_raw_fd(), &at).map_err(OpsError::io("bind", path))?;
    let backlog = Backlog::new(64).map_err(OpsError::io("listen on", path))?;
    start_listening(&fd, backlog).map_err(OpsError::io("listen on", path))?;
    Ok(fd)
}

/// Whether a connection would find somebody. A full backlog is somebody.
pub fn is_listening(path: &Path) -> bool {
    let Ok((at, _dir)) = address(path) else {
        return false;
    };
    let Ok(fd) = stream() else { return true };
    !matches!(
        connect(fd.as_raw_fd(), &at),
        Err(nix::Error::ECONNREFUSED | nix::Error::ENOENT)
    )
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let top = tempfile::tempdir().unwrap();
        for path in [
            top.path().join("s"),
            top.path().join("d".repeat(120)).join("s"),
        ] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let live = listen(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
            assert!(is_listening(&path));
            let error = listen(&path).unwrap_err().to_string();
            assert!(error.starts_with("a process listens on"), "{error}");
            drop(live);
            assert!(!is_listening(&path));
            drop(listen(&path).unwrap());
        }
        let file = top.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(listen(&file).unwrap_err().to_string().contains("a file"));
        assert!(file.exists());
    }
}
