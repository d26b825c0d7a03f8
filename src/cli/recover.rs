//! `mvm recover`

use std::ffi::OsString;

use clap::Args;
use serde::Serialize;

use super::output::{self, Format, FormatArg, Table};
use super::run::Time;
use super::{Context, Failure, background, guests, run, start};
use crate::error::{ExitCode, Report};
use crate::guest::{self, Ended, Recovered, Renewal, leftovers};
use crate::ids::GuestName;
use crate::plan::Plan;
use crate::units::Span;

/// Put right what a supervisor that died left behind
///
/// A guest whose QEMU still runs gets a new supervisor and goes on. Where QEMU is gone too, the host is
/// given back what the guest had, and how the guest ended is told as far as it is known.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm recover
  mvm recover web
  mvm recover --no-adopt")]
pub(super) struct RecoverArgs {
    /// The guests; all by default
    #[arg(value_name = "NAME")]
    names: Vec<GuestName>,
    /// Only clean up: a QEMU that runs without supervisor is left as it is
    #[arg(long)]
    no_adopt: bool,
    /// How long a running QEMU may take to answer
    #[arg(long, default_value = "30s", value_name = "SPAN")]
    timeout: Span,
    #[command(flatten)]
    format: FormatArg,
    /// This is the new supervisor itself
    #[arg(long, hide = true)]
    supervisor: bool,
}

/// What became of a guest; a contract with scripts.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    /// `adopted`, `left` (runs without supervisor, by `--no-adopt`), `cleaned-up`, `running` (nothing to
    /// do), `absent`, or `given-back` (devices of a guest whose directory is gone).
    outcome: &'static str,
    /// How it ended, where it is gone.
    ended: Option<Ended>,
    /// What of the host's devices was given back.
    devices: Vec<String>,
}

pub(super) fn run(args: &RecoverArgs, context: &Context) -> Result<(), Failure> {
    if args.supervisor {
        return adopt(args, context);
    }
    let names: Vec<String> = if args.names.is_empty() {
        let all = guests::all(&context.dirs)?.into_iter();
        all.map(|seen| seen.name.to_string()).collect()
    } else {
        args.names.iter().map(ToString::to_string).collect()
    };
    let mut rows = Vec::new();
    let mut failures = Vec::new();
    for name in names {
        match recover(args, &name, context) {
            Ok(row) => rows.push(row),
            Err(failure) => failures.push(failure),
        }
    }
    if args.names.is_empty() {
        lost(context, &mut rows, &mut failures)?;
    }
    match args.format.format {
        Format::Json => output::print_json(&rows)?,
        Format::Table if rows.is_empty() && failures.is_empty() => {
            output::note("nothing is left behind");
        }
        Format::Table => table(&rows)?,
    }
    Failure::collect(failures)
}

fn recover(args: &RecoverArgs, name: &str, context: &Context) -> Result<Row, Failure> {
    let found = guest::recover(&context.dirs, &name.parse()?)?;
    if found != Recovered::Orphan || args.no_adopt {
        return Ok(row(name, found));
    }
    let words: [OsString; 4] = [
        "recover".into(),
        "--supervisor".into(),
        "--".into(),
        name.into(),
    ];
    match background::start(&words, context, args.timeout.duration()) {
        Ok(_) => Ok(Row {
            outcome: "adopted",
            ..row(name, found)
        }),
        // A guest may switch itself off just then.
        Err(failure) => match guest::recover(&context.dirs, &name.parse()?)? {
            Recovered::Orphan | Recovered::Supervised => Err(failure),
            ended => Ok(row(name, ended)),
        },
    }
}

fn row(name: &str, found: Recovered) -> Row {
    let (outcome, ended, devices) = match found {
        Recovered::Nothing => ("absent", None, Vec::new()),
        Recovered::Supervised => ("running", None, Vec::new()),
        Recovered::Orphan => ("left", None, Vec::new()),
        Recovered::CleanedUp { ended, devices } => ("cleaned-up", ended, devices),
    };
    Row {
        name: name.to_owned(),
        outcome,
        ended,
        devices,
    }
}

/// Devices of guests whose directories are gone.
fn lost(
    context: &Context,
    rows: &mut Vec<Row>,
    failures: &mut Vec<Failure>,
) -> Result<(), Failure> {
    for leftover in leftovers::take_back_lost(&context.dirs)? {
        if !leftover.left.is_empty() {
            let text = format!(
                "{} of guest `{}` cannot be given back: {}",
                leftover.what,
                leftover.guest,
                leftover.left.join("; ")
            );
            failures.push(Report::new(ExitCode::Failed, text).into());
        }
        rows.push(Row {
            name: leftover.guest,
            outcome: "given-back",
            ended: None,
            devices: leftover.done,
        });
    }
    Ok(())
}

/// The new supervisor's own life, to the guest's end.
fn adopt(args: &RecoverArgs, context: &Context) -> Result<(), Failure> {
    let name = args
        .names
        .first()
        .ok_or_else(|| Report::new(ExitCode::Usage, "a supervisor is that of one guest"))?;
    // What its first supervisor was asked is not known here: a new start is as the first one was.
    let mut renew = |plan: &Plan| Ok((plan.clone(), start::on_ready(context, Time::Again)));
    let ended = guest::adopt(
        &context.dirs,
        name,
        start::on_ready(context, Time::First),
        Renewal::Here(&mut renew),
    )?;
    run::verdict(name, &ended)
}

fn table(rows: &[Row]) -> Result<(), Failure> {
    let mut table = Table::new(&["NAME", "OUTCOME", "ENDED"]);
    for row in rows {
        let ended = row.ended.as_ref().map(|ended| match &ended.message {
            Some(message) => format!("{}: {message}", ended.reason.as_str()),
            None => ended.reason.as_str().to_owned(),
        });
        table.row([
            row.name.clone(),
            row.outcome.to_owned(),
            ended.unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    table.print()?;
    for row in rows {
        for done in &row.devices {
            output::progress(&format!("{}: {done}", row.name));
        }
    }
    Ok(())
}
