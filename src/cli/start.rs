//! `mvm start`

use std::ffi::OsString;

use clap::Args;
use serde_json::{Value, json};

use super::again::{self, Way};
use super::choices::{self, ChoiceArgs};
use super::output::{self, Format, FormatArg};
use super::prepare::Wanted;
use super::run::{self, OnReady, Time};
use super::{Context, Failure, background, by_unit, per_guest};
use crate::error::ExitCode;
use crate::guest::{GuestState, Options, RunDir};
use crate::ids::GuestName;
use crate::plan::render;
use crate::profile::{self, Choices};
use crate::units::Span;

/// Start guests in the background
///
/// As `mvm run`, with a supervisor in the background; returns when QEMU runs, or says why it does not.
/// The names of the guests are printed. Several are started one after another; `--gpu`, `--pci` and the other flags
/// that are about one guest then take `GUEST=VALUE`. A guest that has a unit (`mvm unit`) is started by the init system.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  mvm start web
  mvm start ubuntu --name try --variant ephemeral
  mvm start --all
  mvm start ubuntu windows11 --gpu ubuntu=vf --gpu windows11=vf:auto --usb windows11=keyboard
  mvm start web --restart
  name=$(mvm start ubuntu) && mvm wait $name --for agent")]
pub(super) struct StartArgs {
    /// Guests, profiles, or paths of files (with a `/` in them)
    #[arg(value_name = "NAME", required_unless_present = "all")]
    what: Vec<String>,
    /// Every guest that has a machine file and does not run
    #[arg(long, conflicts_with = "what")]
    all: bool,
    /// What the guest is called
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    name: Option<GuestName>,
    /// Print what would be done and QEMU's command line, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Stop a guest that runs, and start it anew. Without it one that has a machine file is left alone
    #[arg(long)]
    restart: bool,
    /// Start it without the init system where it has a unit
    #[arg(long)]
    no_unit: bool,
    /// How long it may take until QEMU runs
    #[arg(long, default_value = "60s", value_name = "SPAN")]
    timeout: Span,
    /// Give up what a guest had open that is hibernated or saved: this one, or one whose disks it wants
    #[arg(long)]
    discard_hibernation: bool,
    #[command(flatten)]
    format: FormatArg,
    #[command(flatten)]
    choices: ChoiceArgs,
    /// This is the supervisor itself
    #[arg(long, hide = true)]
    supervisor: bool,
    /// It is one of several: what is said names it
    #[arg(long, hide = true)]
    one_of_several: bool,
}

pub(super) fn run(args: &StartArgs, context: &Context) -> Result<(), Failure> {
    if args.name.is_some() && args.what.len() > 1 {
        return Err(Failure::message(
            ExitCode::Usage,
            "one name cannot be that of several guests",
        ));
    }
    if args.supervisor {
        let done = supervise(args, context);
        let what = args.what.first().filter(|_| args.one_of_several);
        return match what {
            Some(what) => done.map_err(|failure| failure.of_guest(what)),
            None => done,
        };
    }
    let names = if args.all {
        stopped(context)?
    } else {
        args.what.clone()
    };
    let called = match &args.name {
        Some(name) => vec![name.to_string()],
        None => names.clone(),
    };
    let choices = per_guest::choices(&args.choices, &called)?;
    let mut started = Vec::new();
    let mut failures = Vec::new();
    for (what, choices) in names.iter().zip(&choices) {
        let one = if args.dry_run {
            show(args, what, choices, context)
        } else {
            again::make_way(what, args.name.as_ref(), args.restart, choices, context).and_then(
                |way| {
                    if way == Way::Free {
                        started.push(start(args, what, choices, context)?);
                    }
                    Ok(())
                },
            )
        };
        failures.extend(one.err().map(|failure| match names.len() {
            1 => failure,
            _ => failure.of_guest(what),
        }));
    }
    if !args.dry_run {
        match args.format.format {
            Format::Json => output::print_json(&started)?,
            Format::Table => {
                for state in &started {
                    let name = state["name"].as_str().unwrap_or_default();
                    output::print(&format!("{name}\n"))?;
                }
            }
        }
    }
    Failure::collect(failures)
}

fn options(args: &StartArgs) -> Options {
    Options {
        discard_hibernation: args.discard_hibernation,
    }
}

/// The guests with a machine file that do not run.
fn stopped(context: &Context) -> Result<Vec<String>, Failure> {
    let running = super::guests::running(&context.dirs)?;
    let machines = profile::machines(&context.dirs)?;
    if machines.is_empty() {
        output::note(
            "note: no guest has a machine file: `mvm create ubuntu --profile ubuntu` makes one of a profile",
        );
    }
    let machines = machines.into_iter();
    let names = machines.map(|machine| machine.name);
    Ok(names
        .filter(|name| !running.iter().any(|seen| seen.name.as_str() == name))
        .collect())
}

fn show(args: &StartArgs, what: &str, choices: &Choices, context: &Context) -> Result<(), Failure> {
    let wanted = Wanted::load(context, what, args.name.as_ref(), choices)?.with(options(args));
    run::dry_run(&wanted, args.format, context)
}

/// Starts one guest under a supervisor of its own: this command line with `--supervisor`.
fn start(
    args: &StartArgs,
    what: &str,
    choices: &Choices,
    context: &Context,
) -> Result<Value, Failure> {
    let mut laid_over = choices::words(choices);
    if args.discard_hibernation {
        laid_over.push("--discard-hibernation".into());
    }
    if !args.no_unit {
        if let Some(unit) = by_unit::find(what, args.name.as_ref(), context)? {
            by_unit::refuse(&unit, &laid_over)?;
            return by_unit::start(&unit, context, args.timeout.duration());
        }
    }
    let mut words: Vec<OsString> = vec!["start".into(), "--supervisor".into()];
    words.extend(laid_over);
    if let Some(name) = &args.name {
        words.extend(["--name".into(), name.as_str().into()]);
    }
    if args.all || args.what.len() > 1 {
        words.push("--one-of-several".into());
    }
    words.extend(["--".into(), what.into()]);
    background::start(&words, context, args.timeout.duration())
}

/// Starts one guest as its machine file says, by the init system where it has a unit.
pub(super) fn plainly(name: &str, context: &Context, timeout: Span) -> Result<Value, Failure> {
    if let Some(unit) = by_unit::find(name, None, context)? {
        return by_unit::start(&unit, context, timeout.duration());
    }
    let words: [OsString; 4] = [
        "start".into(),
        "--supervisor".into(),
        "--".into(),
        name.into(),
    ];
    background::start(&words, context, timeout.duration())
}

/// The supervisor's own life, to the guest's end.
fn supervise(args: &StartArgs, context: &Context) -> Result<(), Failure> {
    let what = args.what.first().map(String::as_str).unwrap_or_default();
    // What it is told is for this guest alone.
    let choices = args.choices.choices()?;
    let wanted = Wanted::load(context, what, args.name.as_ref(), &choices)?.with(options(args));
    let (name, ended) = run::supervise(&wanted, context, false, |time| on_ready(context, time))?;
    run::verdict(&name, &ended)
}

/// Tells the waiting command about the guest; in later lives nobody waits.
pub(super) fn on_ready(context: &Context, time: Time) -> OnReady {
    if time == Time::Again {
        return Box::new(runs);
    }
    let dirs = context.dirs.clone();
    Box::new(move |state: &GuestState| {
        let run = RunDir::new(&dirs, &state.name);
        let told = json!({
            "name": state.name,
            "state": state.state,
            "pid": state.pid,
            "profile": state.profile,
            "since": state.since,
        });
        if let Err(error) = background::ready(&told, &run.supervisor_log()) {
            tracing::warn!("the supervisor keeps the terminal: {error}");
        }
        runs(state);
    })
}

fn runs(state: &GuestState) {
    let pid = state.pid.unwrap_or_default();
    tracing::info!(
        "{} runs: QEMU is process {pid}, on {}",
        state.name,
        render::accel(state.accel)
    );
}
