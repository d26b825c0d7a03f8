//! This host's side of a copy.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use tokio::sync::mpsc::Receiver;

use crate::cli::{Failure, output, stdin};
use crate::error::{ExitCode, Report};
use crate::guest::inside::copy::PIECE;

/// What goes into a guest.
pub(super) enum Source {
    /// A file, its name, mode and size.
    File {
        path: PathBuf,
        name: Option<String>,
        file: File,
        mode: u32,
        size: u64,
    },
    /// Standard input.
    Stdin(Receiver<io::Result<Vec<u8>>>),
}

impl Source {
    pub(super) fn open(path: &str) -> Result<Self, Failure> {
        if path == "-" {
            return Ok(Self::Stdin(stdin::pieces()));
        }
        let path = PathBuf::from(path);
        let file = File::open(&path).map_err(|error| cannot("read", &path, &error))?;
        let meta = file
            .metadata()
            .map_err(|error| cannot("read", &path, &error))?;
        if meta.is_dir() {
            return Err(Report::new(ExitCode::Failed, format!("{} is a folder", path.display()))
                .hint("folders go by tar: `tar -C FOLDER -c . | mvm exec NAME -- tar -C FOLDER -xf -`")
                .into());
        }
        Ok(Self::File {
            name: path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned()),
            path,
            file,
            mode: meta.mode() & 0o777,
            size: meta.len(),
        })
    }

    /// Its own name.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::File { name, .. } => name.as_deref(),
            Self::Stdin(_) => None,
        }
    }

    /// Its mode.
    pub(super) fn mode(&self) -> Option<u32> {
        match self {
            Self::File { mode, .. } => Some(*mode),
            Self::Stdin(_) => None,
        }
    }

    /// Its size, where that is known.
    pub(super) fn size(&self) -> Option<u64> {
        match self {
            Self::File { size, .. } => Some(*size),
            Self::Stdin(_) => None,
        }
    }

    /// What follows; nothing at the end.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, Failure> {
        match self {
            Self::File { path, file, .. } => {
                let mut bytes = Vec::with_capacity(PIECE);
                let read = file.take(PIECE as u64).read_to_end(&mut bytes);
                read.map_err(|error| cannot("read", path, &error))?;
                Ok(bytes)
            }
            Self::Stdin(pieces) => match pieces.recv().await {
                Some(piece) => piece.map_err(|error| stdin::failed(&error)),
                None => Ok(Vec::new()),
            },
        }
    }
}

/// Where what comes out of a guest goes.
pub(super) enum Destination {
    /// A new file that becomes the one of that path.
    File { new: NamedTempFile, path: PathBuf },
    /// Standard output.
    Stdout,
}

impl Destination {
    /// Begins it; a folder takes it under the name that it had in the guest.
    pub(super) fn begin(path: &str, from: &str) -> Result<Self, Failure> {
        if path == "-" {
            return Ok(Self::Stdout);
        }
        let mut path = PathBuf::from(path);
        if path.is_dir() {
            // Only Windows' paths do not begin with a slash.
            let separators: &[char] = match from.starts_with('/') {
                true => &['/'],
                false => &['/', '\\'],
            };
            let name = from.rsplit(separators).next().unwrap_or_default();
            path.push(name);
        }
        // What a link leads to is replaced, not the link.
        if let Ok(real) = fs::canonicalize(&path) {
            path = real;
        }
        if path.exists() && !path.is_file() {
            return Err(Report::new(
                ExitCode::Failed,
                format!("{} is not an ordinary file", path.display()),
            )
            .hint("`-` as the destination writes to standard output, which can be led anywhere")
            .into());
        }
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let new = tempfile::Builder::new()
            .prefix(".mvm-")
            .tempfile_in(folder)
            .map_err(|error| cannot("write in", folder, &error))?;
        Ok(Self::File { new, path })
    }

    /// Adds to it; whether somebody takes more.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<bool, Failure> {
        match self {
            Self::File { new, path } => {
                let written = new.write_all(bytes);
                written.map_err(|error| cannot("write", path, &error))?;
                Ok(true)
            }
            Self::Stdout => Ok(output::stream(bytes)?),
        }
    }

    /// It is complete, and takes its place with that mode.
    pub(super) fn finish(self, mode: Option<u32>) -> Result<(), Failure> {
        let Self::File { new, path } = self else {
            return Ok(());
        };
        let there = fs::metadata(&path).ok();
        if let Some(there) = &there {
            // Only root can give a file away; for others it is theirs anyway.
            let _ = fchown(new.as_file(), Some(there.uid()), Some(there.gid()));
        }
        let mode = mode.or(there.map(|there| there.mode())).unwrap_or(0o644) & 0o777;
        let done = new
            .as_file()
            .set_permissions(Permissions::from_mode(mode))
            .and_then(|()| new.as_file().sync_all());
        done.map_err(|error| cannot("write", &path, &error))?;
        new.persist(&path)
            .map_err(|error| cannot("write", &path, &error.error))?;
        Ok(())
    }
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::message(
        ExitCode::Failed,
        format!("cannot {what} {}: {error}", path.display()),
    )
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_replaced_at_its_end_only() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("a");
        fs::write(&path, "old").unwrap();
        let link = top.path().join("link");
        std::os::unix::fs::symlink("a", &link).unwrap();
        let begin = || Destination::begin(link.to_str().unwrap(), "/x").unwrap();
        let mut given_up = begin();
        given_up.add(b"half").unwrap();
        drop(given_up);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        let mut done = begin();
        done.add(b"new").unwrap();
        done.finish(Some(0o750)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o750);
        assert!(link.is_symlink());
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_folder_takes_the_guests_name() {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().to_str().unwrap();
        for (from, name) in [("/etc/fstab", "fstab"), ("C:\\a b.txt", "a b.txt")] {
            let new = Destination::begin(folder, from).unwrap();
            new.finish(None).unwrap();
            assert!(top.path().join(name).is_file());
        }
        assert!(Destination::begin("/dev/null", "/x").is_err());
        assert!(Destination::begin("/nosuch/a", "/x").is_err());
    }
}
