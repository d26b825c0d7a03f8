//! `mvm man`

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Failure, definition, output};
use crate::error::{ExitCode, Report, did_you_mean};

/// Print the manual page, or write all pages into a folder
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm man | man -l -
  mvm man run | man -l -
  mvm man --dir ~/.local/share/man/man1")]
pub(super) struct ManArgs {
    /// The command whose page is printed, as in `run` or `disk create`; mvm's own by default
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    command: Vec<String>,
    /// Write `mvm.1` and a page for each command there
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &ManArgs) -> Result<(), Failure> {
    // `mvm-help` would be a page about pages.
    let mut root = without_help(definition());
    root.build();
    if let Some(dir) = &args.dir {
        return write_all(&root, "mvm", dir);
    }
    let mut name = "mvm".to_owned();
    let mut command = &root;
    for word in &args.command {
        command = command.find_subcommand(word).ok_or_else(|| {
            let known = command.get_subcommands().map(clap::Command::get_name);
            let spoken = name.replace('-', " ");
            let report = Report::new(
                ExitCode::Usage,
                format!("`{spoken}` has no command `{word}`"),
            );
            match did_you_mean(word, known) {
                Some(near) => report.hint(format!("did you mean `{near}`?")),
                None => report.hint(format!("`{spoken} --help` lists them")),
            }
        })?;
        name = format!("{name}-{word}");
    }
    output::stream(&page(command, &name))?;
    Ok(())
}

fn page(command: &clap::Command, name: &str) -> Vec<u8> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone())
        .title(name)
        .render(&mut page)
        .expect("writing to memory cannot fail");
    // The generator knows no section of examples, and would fill their lines.
    let text = String::from_utf8(page).expect("a page is text");
    match text.split_once("\n.SH EXTRA\nExamples:\n") {
        Some((before, after)) => {
            let (examples, rest) = after.split_once("\n.SH ").unwrap_or((after, "VERSION"));
            format!("{before}\n.SH EXAMPLES\n.nf\n{examples}\n.fi\n.SH {rest}")
        }
        None => text,
    }
    .into_bytes()
}

fn without_help(command: clap::Command) -> clap::Command {
    let names: Vec<String> = command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned())
        .collect();
    let command = command.disable_help_subcommand(!names.is_empty());
    names.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, without_help)
    })
}

fn write_all(command: &clap::Command, name: &str, dir: &Path) -> Result<(), Failure> {
    let failed = |path: &Path, error: std::io::Error| {
        Failure::message(
            ExitCode::Failed,
            format!("cannot write {}: {error}", path.display()),
        )
    };
    fs::create_dir_all(dir).map_err(|error| failed(dir, error))?;
    let path = dir.join(format!("{name}.1"));
    fs::write(&path, page(command, name)).map_err(|error| failed(&path, error))?;
    for sub in command.get_subcommands() {
        if sub.is_hide_set() || sub.get_name() == "help" {
            continue;
        }
        write_all(sub, &format!("{name}-{}", sub.get_name()), dir)?;
    }
    Ok(())
}
