//! `mvm profile check`

use std::collections::BTreeMap;

use clap::Args;

use crate::cli::output::{self, Format, FormatArg};
use crate::cli::{Context, Failure};
use crate::error::{ExitCode, Report};
use crate::profile::{self, Choices, Problem};

/// Check profiles and machine files without starting anything
///
/// Each is checked by itself, with what it extends, and with each of its variants. Exit code 3 where
/// something is wrong. Without names, all of them are checked, the built-in ones too.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm profile check
  mvm profile check web ./mine.toml")]
pub(in crate::cli) struct CheckArgs {
    /// Profiles, machine files, or paths of files (with a `/` in them)
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) fn run(args: &CheckArgs, context: &Context) -> Result<(), Failure> {
    let names = if args.names.is_empty() {
        everything(context)?
    } else {
        args.names.clone()
    };
    let mut found: BTreeMap<&str, Vec<Problem>> = BTreeMap::new();
    let mut failures = Vec::new();
    for name in &names {
        match profile::check(&context.dirs, name) {
            Ok(problems) => {
                // One that does not load is among the problems.
                if let Ok(loaded) = profile::load(&context.dirs, name, &Choices::default()) {
                    for note in profile::notes(&loaded.layer) {
                        output::note(&format!("note: {name}: {note}"));
                    }
                }
                found.insert(name, problems);
            }
            Err(error) => failures.push(Failure::from(error)),
        }
    }
    match args.format.format {
        Format::Json => output::print_json(&found)?,
        Format::Table => {
            for (name, problems) in &found {
                if problems.is_empty() {
                    output::print(&format!("{name}: fine\n"))?;
                }
            }
        }
    }
    failures.extend(found.into_values().flatten().map(|problem| {
        Report {
            chain: vec![problem.message],
            hints: problem.hints,
            code: ExitCode::Profile,
        }
        .into()
    }));
    Failure::collect(failures)
}

fn everything(context: &Context) -> Result<Vec<String>, Failure> {
    let machines = profile::machines(&context.dirs)?;
    let profiles = profile::list(&context.dirs)?;
    let mut names: Vec<String> = machines.into_iter().map(|machine| machine.name).collect();
    names.extend(profiles.into_iter().map(|listed| listed.name));
    names.sort();
    names.dedup();
    Ok(names)
}
