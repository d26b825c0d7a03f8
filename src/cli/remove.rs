//! `mvm remove`

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Context, Failure, edit, guests, machine_file, output};
use crate::error::{ExitCode, Report};
use crate::guest;
use crate::host::images::{self, Content, FileKind, Look};
use crate::ids::GuestName;
use crate::profile::{self, Choices};
use crate::settings::Settings;

/// Remove a guest: its machine file and its state
///
/// What is going to be deleted is shown first: the machine file, the UEFI variables and the logs. Disk
/// images stay, but for those that `--disks` deletes: the ones in the image folders that no other guest
/// and no other image uses.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm remove web
  mvm remove web --disks --yes")]
pub(super) struct RemoveArgs {
    /// The guest
    name: GuestName,
    /// Also delete its disk images
    #[arg(long)]
    disks: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// What of a guest is on the disk.
#[derive(Default)]
struct Remains {
    files: Vec<PathBuf>,
    state: Option<PathBuf>,
    /// Images that go.
    images: Vec<PathBuf>,
    /// Images that stay, and why.
    kept: Vec<(PathBuf, String)>,
}

pub(super) fn run(args: &RemoveArgs, context: &Context) -> Result<(), Failure> {
    let name = &args.name;
    if let Some(seen) = guests::look(&context.dirs, name.as_str())? {
        let failed = |text: String| Report::new(ExitCode::Failed, format!("{name} {text}"));
        return Err(match seen.life {
            guests::Life::Gone => failed("has crashed and left things behind".to_owned())
                .hint(format!("`mvm recover {name}` cleans up first")),
            _ => failed(format!("is {}", seen.state_name()))
                .hint(format!("`mvm stop {name}` ends it first")),
        }
        .into());
    }
    let remains = look(args, context)?;
    if remains.files.is_empty() && remains.state.is_none() {
        return Err(guests::find(&context.dirs, name.as_str())
            .err()
            .unwrap_or_else(|| {
                Failure::message(ExitCode::Failed, format!("{name} was just started"))
            }));
    }
    show(&remains);
    if !args.yes && !confirmed(name)? {
        output::note("nothing was deleted");
        return Ok(());
    }
    // It may have been started while the question was open.
    guest::while_stopped(&context.dirs, name, || delete(&remains))?
}

fn look(args: &RemoveArgs, context: &Context) -> Result<Remains, Failure> {
    let mut remains = Remains::default();
    if let Some(path) = machine_file::find(context, &args.name) {
        if args.disks {
            disks(&args.name, context, &mut remains)?;
        }
        remains.files.extend(edit::kept_copy(&path));
        remains.files.push(path);
    } else if args.disks {
        return Err(Report::new(
            ExitCode::Usage,
            format!(
                "{} has no machine file that would name disks of its own",
                args.name
            ),
        )
        .hint("the images of a profile are shared by all of its guests")
        .into());
    }
    let state = context.dirs.guest_state(&args.name);
    remains.state = state.is_dir().then_some(state);
    Ok(remains)
}

/// The images of a guest: those that can go, and those that stay.
fn disks(name: &GuestName, context: &Context, remains: &mut Remains) -> Result<(), Failure> {
    let folders = Settings::load(&context.dirs)?.image_folders(&context.dirs);
    let mut others = Vec::new();
    for machine in profile::machines(&context.dirs)? {
        if machine.name == name.as_str() {
            continue;
        }
        // What a broken file names is unknown: without knowing, nothing is deleted.
        for (_, path) in images_of(&machine.name, context, &folders)? {
            others.push((path, format!("{} uses it", machine.name)));
        }
    }
    others.extend(backing_images(&folders));
    for (kind, path) in images_of(name.as_str(), context, &folders)? {
        let other = others.iter().find(|(other, _)| same(other, &path));
        if let Some((_, why)) = other {
            remains.kept.push((path, why.clone()));
        } else if kind != FileKind::File {
            remains.kept.push((path, "it is not a file".to_owned()));
        } else if !folders.iter().any(|folder| path.starts_with(folder)) {
            remains
                .kept
                .push((path, "it is not in an image folder".to_owned()));
        } else {
            remains.images.push(path);
        }
    }
    Ok(())
}

/// The images that the profile or machine file of that name names, as far as they are there.
fn images_of(
    name: &str,
    context: &Context,
    folders: &[PathBuf],
) -> Result<Vec<(FileKind, PathBuf)>, Failure> {
    let loaded = profile::load(&context.dirs, name, &Choices::default())?;
    let disks = loaded.layer.disk.unwrap_or_default();
    let wanted: Vec<String> = disks
        .into_values()
        .filter_map(|disk| disk.file.and_then(|file| file.path))
        .collect();
    let looked = images::look(wanted.iter().map(String::as_str), folders);
    Ok(looked
        .files
        .into_values()
        .filter_map(|look| match look {
            Look::Found(facts) => Some((facts.kind, facts.path)),
            Look::Missing { .. } | Look::Failed { .. } => None,
        })
        .collect())
}

/// The images that others in the image folders lie over.
fn backing_images(folders: &[PathBuf]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for folder in folders {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            let Some(text) = path.to_str() else { continue };
            let looked = images::look([text], &[]);
            if let Some(Look::Found(facts)) = looked.get(text) {
                if let Some(Content::Qcow2 {
                    backing: Some(backing),
                    ..
                }) = &facts.content
                {
                    found.push((folder.join(backing), format!("{text} lies over it")));
                }
            }
        }
    }
    found
}

fn same(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

fn show(remains: &Remains) {
    output::note("to be deleted:");
    for path in remains.files.iter().chain(&remains.images) {
        output::note(&format!("  {}", path.display()));
    }
    if let Some(path) = &remains.state {
        let asleep = if path.join("asleep.json").exists() {
            ", and what it had open when it hibernated"
        } else {
            ""
        };
        output::note(&format!(
            "  {} with its UEFI variables, the places of its devices and logs{asleep}",
            path.display()
        ));
    }
    for (path, why) in &remains.kept {
        output::note(&format!("kept: {} ({why})", path.display()));
    }
}

/// Asks on a terminal; elsewhere nobody could answer.
fn confirmed(name: &GuestName) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Report::new(
            ExitCode::Usage,
            format!("nobody can be asked whether {name} is to be removed"),
        )
        .hint("`--yes` says that it is")
        .into());
    }
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "remove {name}? [y/N] ").and_then(|()| stderr.flush());
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    Ok(read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Deletes all of it, the machine file last: as long as it is there, the command can be repeated.
fn delete(remains: &Remains) -> Result<(), Failure> {
    let failed = |path: &Path, error: std::io::Error| {
        Failure::message(
            ExitCode::Failed,
            format!("cannot delete {}: {error}", path.display()),
        )
    };
    for path in &remains.images {
        std::fs::remove_file(path).map_err(|error| failed(path, error))?;
    }
    if let Some(path) = &remains.state {
        std::fs::remove_dir_all(path).map_err(|error| failed(path, error))?;
    }
    for path in &remains.files {
        std::fs::remove_file(path).map_err(|error| failed(path, error))?;
    }
    Ok(())
}
