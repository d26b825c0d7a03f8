//! The descriptors that QEMU inherits.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{OpsError, sidecar, tap};
use crate::qemu::command::FdSource;

/// Opens a descriptor that no step made: a tap's queue, a device file, a connection to a program
/// beside QEMU. `None` for those that
/// steps make.
///
/// # Errors
/// The device is missing, busy, or not for us.
pub fn open_source(source: &FdSource) -> Result<Option<OwnedFd>, OpsError> {
    match source {
        FdSource::Listen(_) | FdSource::Lock(_) => Ok(None),
        FdSource::Tap(name) => tap::open(name).map(Some),
        FdSource::Device(path) => open_device(path).map(Some),
        FdSource::Connect(path) => sidecar::connect(path).map(Some),
        FdSource::Secret(path) => secret(path).map(Some),
    }
}

fn open_device(path: &Path) -> Result<OwnedFd, OpsError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map(Into::into)
        .map_err(OpsError::io("open", path))
}

/// No password is as long.
const LONGEST_SECRET: u64 = 4096;

/// A copy of a password in memory. Who made the file with an editor or `echo` ended the line, and does not
/// mean that end.
fn secret(path: &Path) -> Result<OwnedFd, OpsError> {
    let read = || {
        let mut text = Vec::new();
        // Whoever names a FIFO is not waited for.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                "it is no file",
            ));
        }
        file.take(LONGEST_SECRET).read_to_end(&mut text)?;
        let end = text.iter().rposition(|byte| !b"\r\n".contains(byte));
        text.truncate(end.map_or(0, |last| last + 1));
        if text.is_empty() {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                "there is no password in it",
            ));
        }
        Ok(text)
    };
    let text = read().map_err(OpsError::io("read", path))?;
    let copy = || -> std::io::Result<OwnedFd> {
        let fd =
            nix::sys::memfd::memfd_create(c"mvm-secret", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
        let mut file = File::from(fd);
        file.write_all(&text)?;
        Ok(file.into())
    };
    copy().map_err(OpsError::io("copy", path))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::Seek;

    use super::*;

    #[test]
    fn a_passwords_line_end_is_no_part_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        for (said, meant) in [
            ("secret\n", "secret"),
            (" a b \r\n", " a b "),
            ("x\ny", "x\ny"),
        ] {
            std::fs::write(&path, said).unwrap();
            let mut file = File::from(secret(&path).unwrap());
            file.rewind().unwrap();
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, meant);
        }
        std::fs::write(&path, "\n").unwrap();
        let error = secret(&path).unwrap_err();
        assert!(error.to_string().contains("password"), "{error}");
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(secret(&fifo).is_err(), "and is not waited for");
    }
}
