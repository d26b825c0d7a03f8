//! `mvm edit`

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use super::{Context, Failure, machine_file, output};
use crate::error::{ExitCode, Report};
use crate::ids::GuestName;

/// Change a guest's machine file in an editor
///
/// $VISUAL or else $EDITOR is started with a copy, which becomes the machine file when it is right. When
/// it is not, the text is kept and the next `mvm edit` goes on with it. A running guest changes at its
/// next start.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm edit web
  EDITOR='code --wait' mvm edit web")]
pub(super) struct EditArgs {
    /// The guest
    name: GuestName,
    /// Begin with the machine file as it is, and forget a text that was kept
    #[arg(long)]
    discard: bool,
}

pub(super) fn run(args: &EditArgs, context: &Context) -> Result<(), Failure> {
    let name = &args.name;
    let Some(path) = machine_file::find(context, name) else {
        return Err(Report::new(
            ExitCode::Profile,
            format!("there is no machine file of {name}"),
        )
        .hint(format!("`mvm create {name} --profile PROFILE` writes one"))
        .into());
    };
    let failed = |path: &Path, error: &std::io::Error| {
        Failure::message(
            ExitCode::Failed,
            format!("cannot write {}: {error}", path.display()),
        )
    };
    let copy = copy_of(&path);
    let kept = copy.exists() && !args.discard;
    if kept {
        output::note(&format!(
            "going on with the text kept in {}",
            copy.display()
        ));
    } else {
        std::fs::copy(&path, &copy).map_err(|error| failed(&copy, &error))?;
    }
    let edited = edit(&copy).and_then(|()| {
        let read = |path| std::fs::read(path).map_err(|error| failed(path, &error));
        Ok(read(&copy)? != read(&path)?)
    });
    match edited {
        Ok(true) => {}
        Ok(false) => {
            std::fs::remove_file(&copy).map_err(|error| failed(&copy, &error))?;
            output::note("nothing was changed");
            return Ok(());
        }
        Err(failure) => {
            // Without an editor there is no text worth keeping but one that was kept before.
            if !kept {
                let _ = std::fs::remove_file(&copy);
            }
            return Err(failure);
        }
    }
    if let Err(failure) = machine_file::check(context, &copy) {
        let mut reports = vec![failure];
        reports.push(
            Report::new(
                ExitCode::Profile,
                format!("{} stays as it was", path.display()),
            )
            .hint(format!(
                "`mvm edit {name}` goes on with your text, kept in {}",
                copy.display()
            ))
            .hint(format!("`mvm edit {name} --discard` begins again"))
            .into(),
        );
        return Failure::collect(reports);
    }
    std::fs::rename(&copy, &path).map_err(|error| failed(&path, &error))?;
    output::note(&format!("changed {}", path.display()));
    Ok(())
}

/// The copy that is edited: beside the file, and no machine file by its name.
fn copy_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".edit");
    path.with_file_name(name)
}

/// The copy of a machine file that a failed edit left.
pub(super) fn kept_copy(path: &Path) -> Option<PathBuf> {
    Some(copy_of(path)).filter(|copy| copy.exists())
}

/// Runs the user's editor; no shell is asked to read its words.
fn edit(path: &Path) -> Result<(), Failure> {
    let set = |name: &str| {
        std::env::var(name)
            .ok()
            .filter(|text| !text.trim().is_empty())
    };
    let line = set("VISUAL")
        .or_else(|| set("EDITOR"))
        .unwrap_or_else(|| "vi".to_owned());
    let hint = "set EDITOR to the editor of your choice, as in `EDITOR=nano mvm edit NAME`";
    let wrong = |text: String| Report::new(ExitCode::Failed, text).hint(hint);
    let words = shlex::split(&line).unwrap_or_default();
    let [program, arguments @ ..] = words.as_slice() else {
        return Err(wrong(format!("the editor `{line}` is not a command")).into());
    };
    let status = Command::new(program)
        .args(arguments)
        .arg(path)
        .status()
        .map_err(|error| wrong(format!("cannot start the editor `{program}`: {error}")))?;
    if status.success() {
        Ok(())
    } else {
        Err(wrong(format!("the editor `{program}` failed: {status}")).into())
    }
}
