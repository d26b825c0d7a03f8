//! `mvm create`

use std::io::Write as _;
use std::path::Path;

use clap::Args;

use super::choices::ChoiceArgs;
use super::{Context, Failure, machine_file, output};
use crate::error::{ExitCode, Report};
use crate::ids::GuestName;

/// Define a guest: write a machine file for it
///
/// The file extends the profile and holds what the flags say. Nothing is started, and a machine file that
/// is there is never overwritten.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm create web --profile ubuntu --memory 8G --disk web.qcow2
  mvm create web2 --profile debian --set network.lan.user.forward='[\"2222:22\"]'")]
pub(super) struct CreateArgs {
    /// The guest
    name: GuestName,
    /// The profile it is made from
    #[arg(long, value_name = "PROFILE")]
    profile: String,
    #[command(flatten)]
    choices: ChoiceArgs,
}

pub(super) fn run(args: &CreateArgs, context: &Context) -> Result<(), Failure> {
    refuse_existing(context, &args.name)?;
    let choices = args.choices.choices()?;
    let text = machine_file::text(context, &args.name, &args.profile, &choices)?;
    let path = machine_file::path(context, &args.name);
    write(context, &path, &text)?;
    output::note(&format!("made {}", path.display()));
    Ok(())
}

/// A machine file that is there is never overwritten.
pub(super) fn refuse_existing(context: &Context, name: &GuestName) -> Result<(), Failure> {
    let Some(path) = machine_file::find(context, name) else {
        return Ok(());
    };
    Err(Report::new(
        ExitCode::Failed,
        format!("there is a guest {name} already: {}", path.display()),
    )
    .hint(format!(
        "`mvm edit {name}` changes it, `mvm remove {name}` makes room"
    ))
    .into())
}

enum Wrong {
    Io(std::io::Error),
    Check(Failure),
}

/// Writes the file under another name, checks it, and gives it its name.
pub(super) fn write(context: &Context, path: &Path, text: &str) -> Result<(), Failure> {
    checked(context, path, text).map_err(|error| match error {
        Wrong::Io(error) => Failure::message(
            ExitCode::Failed,
            format!("cannot write {}: {error}", path.display()),
        ),
        Wrong::Check(failure) => failure,
    })
}

fn checked(context: &Context, path: &Path, text: &str) -> Result<(), Wrong> {
    let folder = match path.parent() {
        Some(folder) if folder == Path::new("") => Path::new("."),
        folder => folder.unwrap_or(Path::new("/")),
    };
    std::fs::create_dir_all(folder).map_err(Wrong::Io)?;
    let mut draft = tempfile::Builder::new()
        .prefix(".mvm-")
        .suffix(".new")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(Wrong::Io)?;
    draft.write_all(text.as_bytes()).map_err(Wrong::Io)?;
    machine_file::check(context, draft.path()).map_err(Wrong::Check)?;
    draft.as_file().sync_all().map_err(Wrong::Io)?;
    draft
        .persist_noclobber(path)
        .map_err(|error| Wrong::Io(error.error))?;
    Ok(())
}
