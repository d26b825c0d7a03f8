//! `mvm import`

use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::prepare::Wanted;
use super::{Context, Failure, create, machine_file, output};
use crate::dirs::Dirs;
use crate::error::{ExitCode, Report};
use crate::ids::GuestName;
use crate::import::{Imported, MAX_SIZE, Target, import};
use crate::profile::Choices;

/// Make a machine file of a libvirt domain
///
/// FILE is what `virsh dumpxml --inactive NAME` prints. Everything that mvm has is carried over, and everything
/// else is listed: on standard error, and as comments in the machine file. libvirt is not needed for it, and its
/// domain stays as it is. When the file is written, what a start on this host would be refused for is told.
///
/// A file with devices alone (`<hostdev>` and others) becomes a piece of a profile, for `--device`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  virsh dumpxml --inactive web | mvm import -
  mvm import web.xml --as web2
  mvm import web.xml --dry-run               only show the machine file
  mvm import wifi.xml --output wifi.toml     then: mvm start ubuntu --device wifi.toml")]
pub(super) struct ImportArgs {
    /// The XML of a domain; `-` reads it from standard input
    file: PathBuf,
    /// The guest's name, instead of the domain's
    #[arg(long = "as", value_name = "NAME")]
    name: Option<GuestName>,
    /// Print the machine file on standard output, and write none
    #[arg(long)]
    dry_run: bool,
    /// Write there, and not among the machine files
    #[arg(short, long, value_name = "FILE", conflicts_with = "dry_run")]
    output: Option<PathBuf>,
}

pub(super) fn run(args: &ImportArgs, context: &Context) -> Result<(), Failure> {
    let imported = read(&args.file, args.name.as_ref())?;
    let Some(domain) = &imported.name else {
        return fragment(args, &imported);
    };
    let name = match &args.name {
        Some(name) => name.clone(),
        None => domain.parse::<GuestName>().map_err(|error| {
            Report::from(error).hint("`--as NAME` gives the guest another name than the domain's")
        })?,
    };
    let text = imported.text(&format!(
        "The guest `{name}`, made by `mvm import` of libvirt's domain `{}`.\n\
         It extends no profile: what stands here is all there is.\n\
         \n  mvm edit {name}            change this file, with a check afterwards\n  \
           mvm run {name} --dry-run   what a start would do\n  \
           mvm start {name}",
        output::clean(domain)
    ));
    let place = match (&args.output, args.dry_run) {
        (_, true) => None,
        (Some(path), _) => Some(path.clone()),
        (None, _) => {
            create::refuse_existing(context, &name)?;
            Some(machine_file::path(context, &name))
        }
    };
    tell(&imported);
    match place {
        None => output::print(&text)?,
        Some(path) => {
            create::write(context, &path, &text)?;
            output::note(&format!("made {}", path.display()));
            tell_refusal(context, &path, &name);
        }
    }
    Ok(())
}

/// What stands against a start here, now: the same as `mvm run --dry-run` says. The domain may be of another host.
fn tell_refusal(context: &Context, path: &Path, name: &GuestName) {
    // A text without a slash would be the name of a guest.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let wanted = Wanted::load(
        context,
        &path.to_string_lossy(),
        Some(name),
        &Choices::default(),
    );
    let Err(failure) = wanted.and_then(|wanted| wanted.plan(context, name)) else {
        return;
    };
    for report in failure.reports() {
        let why = report.chain.join(": ");
        output::note(&format!(
            "note: a start on this host would be refused now: {why}"
        ));
    }
}

/// Devices alone.
fn fragment(args: &ImportArgs, imported: &Imported) -> Result<(), Failure> {
    if args.name.is_some() {
        let error = Failure::message(
            ExitCode::Usage,
            format!(
                "{} holds devices and no domain, and `--as` names a guest",
                shown(&args.file)
            ),
        );
        return Err(error);
    }
    let text = imported.text("Devices of libvirt's, made by `mvm import`: for `--device`.");
    match &args.output {
        None if args.dry_run => {
            tell(imported);
            output::print(&text)?;
        }
        None => {
            return Err(Report::new(
                ExitCode::Usage,
                format!(
                    "{} holds devices and no domain: no guest can be made of it",
                    shown(&args.file)
                ),
            )
            .hint("`--output FILE` writes a piece of a profile, for `mvm start NAME --device FILE`")
            .hint("`mvm start NAME --xml FILE` gives the devices to a guest at once")
            .into());
        }
        Some(path) => {
            tell(imported);
            let mut file = std::fs::OpenOptions::new();
            file.write(true).create_new(true);
            file.open(path)
                .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
                .map_err(|error| {
                    Failure::message(
                        ExitCode::Failed,
                        format!("cannot write {}: {error}", path.display()),
                    )
                })?;
            output::note(&format!("made {}", path.display()));
        }
    }
    Ok(())
}

/// What is not carried over.
fn tell(imported: &Imported) {
    if imported.left.is_empty() {
        return;
    }
    output::note("not carried over, with the line of the XML:");
    for told in &imported.left {
        output::note(told.lines("  ").trim_end());
    }
}

/// Reads a file of libvirt's, for the guest of that name or of the domain's.
fn read(path: &Path, name: Option<&GuestName>) -> Result<Imported, Failure> {
    let mut bytes = Vec::new();
    let got = if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(MAX_SIZE + 1)
            .read_to_end(&mut bytes)
    } else {
        open(path).and_then(|file| file.take(MAX_SIZE + 1).read_to_end(&mut bytes))
    };
    got.map_err(|error| {
        Failure::message(
            ExitCode::Failed,
            format!("cannot read {}: {error}", shown(path)),
        )
    })?;
    // Devices of several files can come to one guest.
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let target = Target {
        name: name.cloned(),
        prefix: format!("{stem}-"),
        secrets: Dirs::from_env().config,
    };
    import(&bytes, &target).map_err(|error| {
        let mut report = Report::from(error);
        if let Some(first) = report.chain.first_mut() {
            *first = format!("{}: {first}", shown(path));
        }
        report.into()
    })
}

/// The devices of a file as `--set` takes them, for `--xml`. What is not carried over is told.
pub(super) fn devices(path: &Path) -> Result<Vec<String>, Failure> {
    let imported = read(path, None)?;
    if imported.name.is_some() {
        return Err(Report::new(
            ExitCode::Usage,
            format!("{} is a domain, and `--xml` takes devices", shown(path)),
        )
        .hint("`mvm import FILE` makes a guest of it")
        .into());
    }
    tell(&imported);
    Ok(imported.sets)
}

/// A FIFO would block an ordinary open for ever, and a device has no end.
fn open(path: &Path) -> std::io::Result<std::fs::File> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(std::io::Error::other("it is not a file"))
    }
}

fn shown(path: &Path) -> String {
    if path == Path::new("-") {
        "standard input".to_owned()
    } else {
        output::clean(&path.display().to_string())
    }
}
