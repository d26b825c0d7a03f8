//! The machine files of guests: where they are, and whether what is in one can be run.

use std::path::{Path, PathBuf};

use super::{Context, Failure};
use crate::error::{ExitCode, Report};
use crate::ids::GuestName;
use crate::profile::{self, Choices};

/// Where this user's machine file of that name belongs.
pub(super) fn path(context: &Context, name: &GuestName) -> PathBuf {
    context
        .dirs
        .config
        .join("machines")
        .join(format!("{name}.toml"))
}

/// The machine file of that name, this user's or the system's.
pub(super) fn find(context: &Context, name: &GuestName) -> Option<PathBuf> {
    let folders = context.dirs.machines().into_iter();
    folders
        .map(|folder| folder.join(format!("{name}.toml")))
        .find(|path| path.symlink_metadata().is_ok())
}

/// Everything that is wrong with the file.
pub(super) fn check(context: &Context, path: &Path) -> Result<(), Failure> {
    // A text with a slash is a path; the folders that files are in are absolute.
    let problems = profile::check(&context.dirs, &path.to_string_lossy())?;
    Failure::collect(problems.into_iter().map(|problem| {
        Report {
            chain: vec![problem.message],
            hints: problem.hints,
            code: ExitCode::Profile,
        }
        .into()
    }))
}

/// A machine file that says what the choices say, over that profile.
pub(super) fn text(
    context: &Context,
    name: &GuestName,
    base: &str,
    choices: &Choices,
) -> Result<String, Failure> {
    let said = profile::machine_text(&context.dirs, &path(context, name), base, choices)?;
    Ok(format!(
        "# The guest `{name}`: what stands here lies over the profile {base}.\n\
         #\n\
         #   mvm edit {name}            change this file, with a check afterwards\n\
         #   mvm profile show {name}    everything it comes to, and where each value is from\n\
         #   mvm start {name}\n\n\
         {said}"
    ))
}
