//! Where profiles and machine files lie, and how they are read.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};

use super::error::ProfileError;
use super::scheme;
use super::tree::Source;
use crate::dirs::Dirs;

/// The largest file that is read, in bytes. A profile is a page or two.
pub const MAX_SIZE: u64 = 1 << 20;

static BUILT_IN: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/machine-profiles");

/// The names and texts of the built-in profiles.
pub(super) fn built_in() -> impl Iterator<Item = (&'static str, &'static str)> {
    BUILT_IN.files().filter_map(|file| {
        let name = file.path().to_str()?.strip_suffix(".toml")?;
        Some((name, file.contents_utf8()?))
    })
}

/// The JSON schema (draft-07) of profiles, for editors.
pub fn schema_json() -> &'static str {
    let file = BUILT_IN.get_file("schema.json");
    file.and_then(include_dir::File::contents_utf8)
        .expect("it lies beside the built-in profiles")
}

fn built_in_text(name: &str) -> Option<&'static str> {
    BUILT_IN.get_file(format!("{name}.toml"))?.contents_utf8()
}

/// One place of the search path, most specific first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Level {
    Machines(PathBuf),
    Profiles(PathBuf),
    BuiltIn,
}

/// The search path of these directories.
pub(super) fn levels(dirs: &Dirs) -> Vec<Level> {
    let machines = dirs.machines().into_iter().map(Level::Machines);
    let profiles = dirs.profiles().into_iter().map(Level::Profiles);
    machines.chain(profiles).chain([Level::BuiltIn]).collect()
}

/// A file that was found, and at which level of the search path; a file named by its path is above
/// all levels.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) source: Source,
    pub(super) level: Option<usize>,
    pub(super) name: String,
    pub(super) text: String,
}

/// Whether the name can be that of a profile: it becomes a file name.
pub(super) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Looks for a name in the levels from `from` on.
pub(super) fn find(
    levels: &[Level],
    from: usize,
    name: &str,
) -> Result<Option<Found>, ProfileError> {
    for (at, level) in levels.iter().enumerate().skip(from) {
        let found = |source, text| Found {
            source,
            level: Some(at),
            name: name.to_owned(),
            text,
        };
        match level {
            Level::Machines(dir) | Level::Profiles(dir) => {
                let path = dir.join(format!("{name}.toml"));
                if let Some(text) = read(&path)? {
                    return Ok(Some(found(Source::File(path), text)));
                }
            }
            Level::BuiltIn => {
                let text = built_in_text(name).map(str::to_owned);
                if let Some(text) = text.or_else(|| scheme::text(name)) {
                    return Ok(Some(found(Source::BuiltIn(name.to_owned()), text)));
                }
            }
        }
    }
    Ok(None)
}

/// The file at a path. One that lies in the search path stands at its level there, so that it can
/// extend the profile of its own name below it.
pub(super) fn file(levels: &[Level], path: &Path) -> Result<Found, ProfileError> {
    let missing = || ProfileError::Read {
        path: path.to_owned(),
        source: std::io::Error::from_raw_os_error(nix::libc::ENOENT),
    };
    let text = read(path)?.ok_or_else(missing)?;
    let stem = path.file_stem().unwrap_or_default();
    let real = path.canonicalize().ok();
    let level = levels.iter().position(|level| match level {
        Level::Machines(dir) | Level::Profiles(dir) => {
            let own = path.file_name().map(|name| dir.join(name));
            real.is_some() && own.and_then(|own| own.canonicalize().ok()) == real
        }
        Level::BuiltIn => false,
    });
    Ok(Found {
        source: Source::File(path.to_owned()),
        level,
        name: stem.to_string_lossy().into_owned(),
        text,
    })
}

/// A file's text; `None` where there is no such file.
fn read(path: &Path) -> Result<Option<String>, ProfileError> {
    let failed = |source| ProfileError::Read {
        path: path.to_owned(),
        source,
    };
    // A FIFO would block an ordinary open for ever.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(ProfileError::NotAFile {
            path: path.to_owned(),
            what: if meta.is_dir() {
                "a directory"
            } else {
                "a device, a pipe or a socket"
            },
        });
    }
    let mut bytes = Vec::new();
    let read = if meta.len() > MAX_SIZE {
        meta.len()
    } else {
        // It may have grown in between.
        file.take(MAX_SIZE + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)? as u64
    };
    if read > MAX_SIZE {
        return Err(ProfileError::TooBig {
            path: path.to_owned(),
        });
    }
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|error| ProfileError::NotUtf8 {
            path: path.to_owned(),
            line: 1 + error.as_bytes()[..error.utf8_error().valid_up_to()]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count(),
        })
}

/// The names in a folder of profiles or machine files; a folder that is not there has none.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, ProfileError> {
    let failed = |source| ProfileError::Read {
        path: dir.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let file = entry.map_err(failed)?.file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(".toml"));
        names.extend(name.filter(|name| is_name(name)).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Every name that [`find`] could find; folders that cannot be read are passed over.
pub(super) fn all_names(levels: &[Level]) -> Vec<String> {
    let mut all: Vec<String> = levels
        .iter()
        .flat_map(|level| match level {
            Level::Machines(dir) | Level::Profiles(dir) => names(dir).unwrap_or_default(),
            Level::BuiltIn => built_in().map(|(name, _)| name.to_owned()).collect(),
        })
        .collect();
    all.sort();
    all.dedup();
    all
}
