//! Files of init systems: written as a whole, and taken away again. What is there and is not mvm's stays.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use crate::error::{ExitCode, Hint};
use crate::service::{Item, Set, runtime_line};

/// A unit that cannot be installed or taken away.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// Somebody else's file is in the place of ours.
    #[error("{} is there already and is not mvm's", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl UnitError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

impl Hint for UnitError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Foreign { .. } => vec!["`--force` writes over it".to_owned()],
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                vec!["units of the system are root's".to_owned()]
            }
            Self::Io { .. } => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Foreign { .. } => ExitCode::Failed,
            Self::Io { .. } => ExitCode::Host,
        }
    }
}

/// What is in an item's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum There {
    Nothing,
    /// Just what is wanted.
    Same,
    /// Ours, and not as it is wanted.
    Other,
    Foreign,
}

/// The place below another root.
pub(super) fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn read(path: &Path) -> Result<Option<String>, UnitError> {
    match fs::read(path) {
        // What is no text is nobody's we know.
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(UnitError::io("read", path)(error)),
    }
}

fn has_line(text: &str, line: &str) -> bool {
    text.lines().any(|own| own == line)
}

/// Whether another file of the set, beside this one, is ours by its mark.
fn in_our_folder(root: &Path, path: &Path, set: &Set, mark: &str) -> Result<bool, UnitError> {
    for item in &set.items {
        if let Item::File {
            path: other, text, ..
        } = item
        {
            if other.parent() == path.parent() && has_line(text, mark) {
                let there = read(&below(root, other))?;
                if there.is_some_and(|text| has_line(&text, mark)) {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

fn look(root: &Path, item: &Item, set: &Set, mark: &str) -> Result<There, UnitError> {
    let path = below(root, item.path());
    let meta = match path.symlink_metadata() {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(There::Nothing),
        Err(error) => return Err(UnitError::io("look at", &path)(error)),
    };
    Ok(match item {
        Item::Link { target, .. } => match fs::read_link(&path) {
            Ok(there) if there == *target => There::Same,
            _ => There::Foreign,
        },
        Item::Lines { text, .. } => match block(&read(&path)?.unwrap_or_default(), mark) {
            None => There::Nothing,
            Some((_, own, _)) if own == *text => There::Same,
            Some(_) => There::Other,
        },
        // A link may lead anywhere.
        Item::File { .. } if !meta.is_file() => There::Foreign,
        Item::File { text, mode, .. } => {
            let there = read(&path)?.unwrap_or_default();
            let same_mode = meta.permissions().mode() & 0o7777 == *mode;
            if there == *text && same_mode {
                There::Same
            } else if has_line(&there, mark)
                || (!has_line(text, mark) && in_our_folder(root, item.path(), set, mark)?)
            {
                There::Other
            } else {
                There::Foreign
            }
        }
    })
}

/// Our lines in a text: what is before them, they, and what is after them.
fn block<'a>(text: &'a str, mark: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let mut at = 0;
    let mut begin = None;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end_matches('\n');
        match begin {
            None if bare == mark => begin = Some(at),
            // The lines that mvm writes below its mark, and no other.
            Some(begin) if !bare.starts_with("# mvm-runtime: ") && !bare.starts_with("::") => {
                return Some((&text[..begin], &text[begin..at], &text[at..]));
            }
            _ => {}
        }
        at += line.len();
    }
    begin.map(|begin| (&text[..begin], &text[begin..], ""))
}

/// Writes what is not there yet as it should be; gives back what was written. After a failure all is as before.
///
/// # Errors
/// A file of somebody else is in the way (`force` writes over it), or the host does not let it.
pub fn install(root: &Path, set: &Set, mark: &str, force: bool) -> Result<Vec<PathBuf>, UnitError> {
    let mut wanted = Vec::new();
    for item in &set.items {
        match look(root, item, set, mark)? {
            There::Same => {}
            There::Foreign if !force => {
                return Err(UnitError::Foreign {
                    path: below(root, item.path()),
                });
            }
            There::Nothing | There::Other | There::Foreign => wanted.push(item),
        }
    }
    let mut done: Vec<Before> = Vec::new();
    for item in wanted {
        let path = below(root, item.path());
        let written = Before::of(&path).and_then(|before| {
            done.push(before);
            put(item, &path, mark)
        });
        if let Err(error) = written {
            for before in done.iter().rev() {
                if let Err(error) = before.put_back() {
                    tracing::warn!(%error, "left as it is");
                }
            }
            return Err(error);
        }
    }
    Ok(done.into_iter().map(|before| before.path).collect())
}

/// What was in a place.
struct Before {
    path: PathBuf,
    what: Was,
}

enum Was {
    Nothing,
    Link(PathBuf),
    File(Vec<u8>, u32),
}

impl Before {
    fn of(path: &Path) -> Result<Self, UnitError> {
        let cannot = UnitError::io("read", path);
        let what = match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Was::Nothing),
            Err(error) => Err(error),
            Ok(meta) if meta.is_symlink() => fs::read_link(path).map(Was::Link),
            Ok(meta) => {
                fs::read(path).map(|text| Was::File(text, meta.permissions().mode() & 0o7777))
            }
        };
        Ok(Self {
            path: path.to_owned(),
            what: what.map_err(cannot)?,
        })
    }

    fn put_back(&self) -> Result<(), UnitError> {
        match &self.what {
            Was::Nothing => remove_if_there(&self.path),
            Was::Link(target) => link(&self.path, target),
            Was::File(text, mode) => write(&self.path, text, *mode),
        }
    }
}

fn put(item: &Item, path: &Path, mark: &str) -> Result<(), UnitError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(UnitError::io("make", folder))?;
    }
    match item {
        Item::File { mode, text, .. } => write(path, text.as_bytes(), *mode),
        Item::Link { target, .. } => link(path, target),
        Item::Lines { text, .. } => {
            let there = read(path)?.unwrap_or_default();
            let all = match block(&there, mark) {
                Some((before, _, after)) => format!("{before}{text}{after}"),
                None if there.is_empty() || there.ends_with('\n') => there + text,
                None => format!("{there}\n{text}"),
            };
            rewrite(path, &all)
        }
    }
}

/// Replaces a file of the host's, which keeps its mode; where it is a link, what that names.
fn rewrite(path: &Path, text: &str) -> Result<(), UnitError> {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mode = fs::metadata(&real).map_or(0o644, |meta| meta.permissions().mode() & 0o7777);
    write(&real, text.as_bytes(), mode)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".mvm-new");
    path.with_file_name(name)
}

/// A reader sees the old file or the new one, and so does a host that loses its power.
fn write(path: &Path, text: &[u8], mode: u32) -> Result<(), UnitError> {
    let new = beside(path);
    let written = (|| {
        let mut file = File::create(&new)?;
        file.write_all(text)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(path.parent().unwrap_or(path))?.sync_all()
    })();
    written.map_err(|error| {
        // It may not have been made.
        let _ = fs::remove_file(&new);
        UnitError::io("write", path)(error)
    })
}

fn link(path: &Path, target: &Path) -> Result<(), UnitError> {
    let new = beside(path);
    let made = remove_if_there(&new).and_then(|()| {
        symlink(target, &new)
            .and_then(|()| fs::rename(&new, path))
            .map_err(UnitError::io("make the link", path))
    });
    if made.is_err() {
        let _ = fs::remove_file(&new);
    }
    made
}

fn remove_if_there(path: &Path) -> Result<(), UnitError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(UnitError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Takes away what is there of the set and is mvm's; gives back what that was.
///
/// # Errors
/// The host does not let it. What is somebody else's is no error: it is not touched.
pub fn remove(root: &Path, set: &Set, mark: &str) -> Result<Vec<PathBuf>, UnitError> {
    // All is looked at before the mark goes that tells whose the folder is.
    let mut ours = Vec::new();
    for item in &set.items {
        if matches!(look(root, item, set, mark)?, There::Same | There::Other) {
            ours.push(item);
        }
    }
    let mut gone = Vec::new();
    // The links first, so that no service is there whose files are not.
    for item in ours.into_iter().rev() {
        let path = below(root, item.path());
        match item {
            Item::Lines { .. } => {
                let there = read(&path)?.unwrap_or_default();
                if let Some((before, _, after)) = block(&there, mark) {
                    rewrite(&path, &format!("{before}{after}"))?;
                }
            }
            Item::File { .. } | Item::Link { .. } => remove_if_there(&path)?,
        }
        gone.push(path);
    }
    let ours = |folder: &Path| {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        name == "mvm" || name.starts_with("mvm-") || name.ends_with(".wants")
    };
    for folder in gone
        .iter()
        .filter_map(|path| path.parent())
        .filter(|folder| ours(folder))
    {
        // What the init has made in it keeps it there.
        let _ = fs::remove_dir(folder);
    }
    Ok(gone)
}

/// Whether the unit is installed, for the guests of that run-time directory.
pub fn is_installed(root: &Path, set: &Set, mark: &str, runtime: &str) -> bool {
    let Some(item) = set.items.first() else {
        return false;
    };
    let text = read(&below(root, item.path()))
        .ok()
        .flatten()
        .unwrap_or_default();
    match item {
        Item::Lines { .. } => {
            block(&text, mark).is_some_and(|(_, own, _)| has_line(own, &runtime_line(runtime)))
        }
        _ => has_line(&text, mark) && has_line(&text, &runtime_line(runtime)),
    }
}
