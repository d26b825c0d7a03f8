//! Copies that are whole or not there.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::OpsError;

/// Copies a file where there is none yet: written beside it, synced, then linked into place, so
/// that neither a crash nor a second copy at the same moment can leave half a file.
pub(crate) fn copy_if_absent(from: &Path, to: &Path, mode: u32) -> Result<(), OpsError> {
    match fs::metadata(to) {
        Ok(meta) if meta.is_file() => return Ok(()),
        Ok(meta) => {
            return Err(OpsError::InTheWay {
                path: to.to_owned(),
                found: super::dirs::kind(&meta),
                wanted: "a file",
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(OpsError::io("look at", to)(error)),
    }
    let temporary = beside(to);
    let copied = write_synced(from, &temporary, mode).and_then(|()| {
        match fs::hard_link(&temporary, to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            // A file system without links.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(nix::libc::EPERM | nix::libc::EOPNOTSUPP)
                ) =>
            {
                fs::rename(&temporary, to).map_err(OpsError::io("write", to))
            }
            done => done.map_err(OpsError::io("write", to)),
        }
    });
    let removed = super::dirs::remove_file(&temporary);
    copied.and(removed)?;
    if let Some(parent) = to.parent() {
        fs::File::open(parent)
            .and_then(|dir| dir.sync_all())
            .map_err(OpsError::io("sync", parent))?;
    }
    Ok(())
}

/// Writes a small file of mvm's own, whole or not at all; one that says the same is left alone.
pub(crate) fn keep(path: &Path, text: &str) -> Result<(), OpsError> {
    if fs::read(path).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(());
    }
    let temporary = beside(path);
    super::dirs::remove_file(&temporary)?;
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    };
    write().map_err(OpsError::io("write", path))
}

fn beside(to: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(to.file_name().unwrap_or_default());
    name.push(format!(".{}.mvm-new", std::process::id()));
    to.with_file_name(name)
}

fn write_synced(from: &Path, to: &Path, mode: u32) -> Result<(), OpsError> {
    super::dirs::remove_file(to)?;
    let mut source = fs::File::open(from).map_err(OpsError::io("read", from))?;
    let mut target = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(to)
        .map_err(OpsError::io("write", to))?;
    io::copy(&mut source, &mut target)
        .and_then(|_| target.sync_all())
        .map_err(OpsError::io("write", to))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_copy_is_made_once_and_kept() {
        let top = tempfile::tempdir().unwrap();
        let (from, to) = (top.path().join("from"), top.path().join("to"));
        fs::write(&from, "first").unwrap();
        copy_if_absent(&from, &to, 0o600).unwrap();
        fs::write(&from, "second").unwrap();
        copy_if_absent(&from, &to, 0o600).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "first");
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 2);

        let error = copy_if_absent(&top.path().join("none"), &top.path().join("x"), 0o600);
        assert!(error.unwrap_err().to_string().starts_with("cannot read"));
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 2);
    }
}
