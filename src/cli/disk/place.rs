//! Where images are: names to paths, and a new file that appears whole or not at all.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::cli::Context;
use crate::error::{ExitCode, Hint};
use crate::settings::Settings;

/// An image that is not where it should be, or is where it should not.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlaceError {
    #[error("{0} is already there")]
    Exists(PathBuf),
    #[error("there is no image `{name}`")]
    Missing { name: String, looked: Vec<PathBuf> },
    #[error("cannot make {path}")]
    Make { path: PathBuf, source: io::Error },
    #[error("`{0}` does not name a file")]
    NoFile(PathBuf),
    #[error("{0} is not UTF-8, and QEMU takes no other path")]
    NotUtf8(PathBuf),
}

impl Hint for PlaceError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Exists(_) => vec![
                "mvm overwrites no image: choose another name, or remove that file first"
                    .to_owned(),
            ],
            Self::Missing { looked, .. } => looked
                .iter()
                .map(|path| format!("looked for {}", path.display()))
                .chain([
                    "`mvm disk create NAME --size SIZE` makes one, `mvm disk import FILE` takes one over"
                        .to_owned(),
                ])
                .collect(),
            Self::Make { .. } | Self::NoFile(_) | Self::NotUtf8(_) => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoFile(_) | Self::NotUtf8(_) => ExitCode::Usage,
            _ => ExitCode::Failed,
        }
    }
}

/// Whether the path says itself where it is, as a shell would read it.
fn says_where(path: &Path) -> bool {
    path.is_absolute() || path.starts_with(".") || path.starts_with("..")
}

/// The absolute path: `qemu-img` would take a name with a colon for a protocol, one with a dash for an
/// option.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, PlaceError> {
    if path.to_str().is_none() {
        return Err(PlaceError::NotUtf8(path.to_owned()));
    }
    std::path::absolute(path).map_err(|source| PlaceError::Make {
        path: path.to_owned(),
        source,
    })
}

/// Where a new image of that name goes.
pub(super) fn of_new(name: &Path, context: &Context) -> Result<PathBuf, PlaceError> {
    if name.file_name().is_none() || name.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(PlaceError::NoFile(name.to_owned()));
    }
    let path = if says_where(name) {
        absolute(name)?
    } else {
        absolute(&context.dirs.images().join(name))?
    };
    match fs::symlink_metadata(&path) {
        Ok(_) => Err(PlaceError::Exists(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path),
        Err(source) => Err(PlaceError::Make { path, source }),
    }
}

/// Where the image of that name is: the image folders are looked through in their order.
pub(super) fn of_old(
    name: &Path,
    context: &Context,
    settings: &Settings,
) -> Result<PathBuf, PlaceError> {
    let looked: Vec<PathBuf> = if says_where(name) {
        vec![absolute(name)?]
    } else {
        settings
            .image_folders(&context.dirs)
            .iter()
            .map(|folder| absolute(&folder.join(name)))
            .collect::<Result<_, _>>()?
    };
    match looked.iter().find(|path| path.exists()) {
        Some(path) => Ok(path.clone()),
        None => Err(PlaceError::Missing {
            name: name.display().to_string(),
            looked,
        }),
    }
}

/// A file beside `path` that [`finish`] gives its name; it is removed when that does not happen.
pub(super) fn draft(path: &Path, context: &Context) -> Result<NamedTempFile, PlaceError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let failed = |source| PlaceError::Make {
        path: path.to_owned(),
        source,
    };
    // Only mvm's own folder is made without being asked for; another one may be a slip.
    if folder.starts_with(context.dirs.images()) {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    tempfile::Builder::new()
        .prefix(".mvm-")
        .suffix(".part")
        .tempfile_in(folder)
        .map_err(failed)
}

/// Gives the draft its name, unless somebody took it meanwhile.
pub(super) fn finish(draft: NamedTempFile, path: &Path) -> Result<(), PlaceError> {
    draft
        .persist_noclobber(path)
        .map(drop)
        .map_err(|error| match error.error.kind() {
            io::ErrorKind::AlreadyExists => PlaceError::Exists(path.to_owned()),
            _ => PlaceError::Make {
                path: path.to_owned(),
                source: error.error,
            },
        })
}
