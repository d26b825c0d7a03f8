//! `mvm run`

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use clap::Args;

use super::choices::ChoiceArgs;
use super::output::{self, Format, FormatArg};
use super::prepare::Wanted;
use super::relay::{self, Ends, Left};
use super::under::{self, Told};
use super::{Context, Failure, block_on, console, per_guest, terminal};
use crate::error::{ExitCode, Report};
use crate::guest::{
    self, Ended, GuestState, Options, Presence, Renewal, RunDir, StartError, asleep, conflicts,
    leftovers,
};
use crate::host::Init;
use crate::ids::GuestName;
use crate::plan::{Plan, render};

/// Run a guest in the foreground, with its console
///
/// NAME is a guest (`mvm create`) or a profile (`mvm profile list`). A guest of a bare profile is named
/// after it, a second one `NAME-2` and so on, each with addresses and throw-away disks of its own. Where
/// the guest of that name runs without a supervisor, this becomes its supervisor.
///
/// On a terminal, Ctrl-] leaves the console; the guest goes on, and Ctrl-C then asks it to shut down, as
/// SIGTERM and the end of the terminal do. Elsewhere the console's output goes to standard output and nothing is read.
///
/// Where the profile says so in `[lifecycle]`, the guest is started anew after its end, and the console with it.
///
/// Exit code 0 when the guest was shut down, 1 when QEMU or the guest's kernel crashed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm run demo
  mvm run ubuntu --name try --variant ephemeral
  mvm run linux --kernel ./vmlinuz --initrd ./initrd.img --append 'console=ttyS0'
  mvm run web --dry-run
  mvm run web --dry-run --format json | jq .args")]
pub(super) struct RunArgs {
    /// A guest, a profile, or the path of a file (with a `/` in it)
    #[arg(value_name = "NAME")]
    what: String,
    /// What the guest is called
    #[arg(long, value_name = "NAME")]
    name: Option<GuestName>,
    /// Print what would be done and QEMU's command line, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not attach to the console
    #[arg(long)]
    no_console: bool,
    /// Give up what a guest had open that is hibernated or saved: this one, or one whose disks it wants
    #[arg(long)]
    discard_hibernation: bool,
    /// This is a service of that init system
    #[arg(long, hide = true, value_name = "INIT", value_parser = super::unit::init)]
    unit: Option<Init>,
    #[command(flatten)]
    format: FormatArg,
    #[command(flatten)]
    choices: ChoiceArgs,
}

pub(super) fn run(args: &RunArgs, context: &Context) -> Result<(), Failure> {
    let guests = std::slice::from_ref(&args.what);
    let choices = per_guest::choices(&args.choices, guests)?.remove(0);
    let wanted = Wanted::load(context, &args.what, args.name.as_ref(), &choices)?.with(Options {
        discard_hibernation: args.discard_hibernation,
    });
    if args.dry_run {
        return dry_run(&wanted, args.format, context);
    }
    let (tell, told) = mpsc::channel();
    let attach = Arc::new(AtomicBool::new(!args.no_console));
    let (heed, heeded) = mpsc::channel();
    let unit = args.unit;
    // The init that waits longer from one new start to the next does it, where there is one.
    let by_init = unit == Some(Init::Systemd);
    let ended = supervise(&wanted, context, by_init, |time| {
        let (tell, heed, attach) = (tell.clone(), heed.clone(), Arc::clone(&attach));
        Box::new(move |state: &GuestState| {
            if let Some(init) = unit.filter(|_| time == Time::First) {
                // Nobody waits for it where the guest has ended by then.
                let _ = heed.send(Told::listen());
                under::ready(init);
            }
            if attach.load(Ordering::Relaxed) {
                attach_console(state, tell, attach);
            }
        })
    });
    drop((tell, heed));
    // The console's last words are still on their way. There may have been several, one after another.
    while told.recv_timeout(Duration::from_secs(2)).is_ok() {}
    terminal::restore();
    let done = ended.and_then(|(name, ended)| verdict(&name, &ended));
    let Some(init) = args.unit else { return done };
    // The init's log has the words before a long wait.
    if let Err(failure) = &done {
        failure.render();
    }
    let told = heeded.try_recv().ok().transpose()?;
    under::rest(init, &wanted.name(context)?, told)?;
    done.map_err(|failure| Failure::told(failure.exit_code()))
}

/// Shows the plan; what stands against it now is told beside it.
pub(super) fn dry_run(
    wanted: &Wanted,
    format: FormatArg,
    context: &Context,
) -> Result<(), Failure> {
    let plan = wanted.plan(context, &wanted.name(context)?)?;
    match format.format {
        Format::Table => output::print(&render::text(&plan))?,
        Format::Json => output::print_json(&render::json(&plan))?,
    }
    if let Err(report) = refused_now(wanted, &plan, context) {
        output::note(&format!(
            "note: it would be refused now: {}",
            report.chain.join(": ")
        ));
    }
    Ok(())
}

fn refused_now(wanted: &Wanted, plan: &Plan, context: &Context) -> Result<(), Report> {
    if wanted.options().discard_hibernation {
        return conflicts::check_discarding(&context.dirs, plan)
            .map(drop)
            .map_err(Report::from);
    }
    conflicts::check(&context.dirs, plan)?;
    let run = RunDir::new(&context.dirs, &plan.machine.name);
    if let Some(asleep) = asleep::check(&run, plan)? {
        output::note(&format!("note: {}", asleep.note()));
    }
    Ok(())
}

/// What is told when the guest runs.
pub(super) type OnReady = Box<dyn FnOnce(&GuestState) + Send>;

/// How often a start is prepared anew because another guest took a device of its choice.
const RACES: usize = 8;

/// Which of a guest's lives under one supervisor it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Time {
    First,
    Again,
}

/// Starts the guest and supervises it to its end, and anew where its profile says so.
pub(super) fn supervise(
    wanted: &Wanted,
    context: &Context,
    by_init: bool,
    on_ready: impl Fn(Time) -> OnReady,
) -> Result<(GuestName, Ended), Failure> {
    let mut races = 0;
    let mut told = BTreeSet::new();
    for _ in 0..100 {
        let name = wanted.name(context)?;
        if wanted.takes_devices() {
            leftovers::take_back_before_plan(&context.dirs);
        }
        let plan = wanted.plan(context, &name)?;
        if let Presence::Unsupervised(_) = guest::look(&context.dirs, &name)? {
            output::note(&format!(
                "note: {name} runs already, without a supervisor: it gets one and goes on as it was started"
            ));
        } else {
            // Another try has the same ones to say.
            for note in plan
                .machine
                .notes
                .iter()
                .filter(|note| told.insert((*note).clone()))
            {
                output::note(&format!("note: {note}"));
            }
            if !wanted.options().discard_hibernation {
                let asleep = asleep::check(&RunDir::new(&context.dirs, &name), &plan);
                if let Some(asleep) = asleep.map_err(StartError::from)? {
                    output::note(&format!("note: {}", asleep.note()));
                }
            }
        }
        // The host may have changed, and with it what is `auto`: as for any start, it is looked at anew.
        let mut renew = |_: &Plan| -> Result<(Plan, OnReady), Report> {
            if wanted.takes_devices() {
                leftovers::take_back_before_plan(&context.dirs);
            }
            let plan = wanted.plan(context, &name).map_err(Failure::first)?;
            Ok((plan, on_ready(Time::Again)))
        };
        let renewal = if by_init {
            Renewal::Init
        } else {
            Renewal::Here(&mut renew)
        };
        let first = on_ready(Time::First);
        match guest::run(&context.dirs, plan, wanted.options(), first, renewal) {
            Ok(ended) => return Ok((name, ended)),
            // Another start of the same profile was faster: the next name is free.
            Err(StartError::Busy(_)) if wanted.has_other_names() => {}
            // What was asked for as `auto` is another device when it is looked for again.
            Err(error) if error.is_lost_race() && races < RACES => races += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::message(
        ExitCode::Failed,
        "other starts of the same profile were always faster",
    ))
}

/// The guest's end as a result.
pub(super) fn verdict(name: &GuestName, ended: &Ended) -> Result<(), Failure> {
    tracing::info!("{name} has ended: {}", ended.reason.as_str());
    if ended.again {
        return Err(Report::new(
            ExitCode::Again,
            format!(
                "{name} has ended: {}; the init system is to start it anew",
                ended.reason.as_str()
            ),
        )
        .into());
    }
    if !ended.reason.is_failure() {
        output::progress(&format!("{name} has ended: {}", ended.reason.as_str()));
        return Ok(());
    }
    let mut message = format!("{name} has ended: {}", ended.reason.as_str());
    if let Some(signal) = ended.signal {
        message.push_str(&format!(", by signal {signal}"));
    } else if let Some(status) = ended.exit_status.filter(|status| *status != 0) {
        message.push_str(&format!(", QEMU's exit status {status}"));
    }
    if let Some(text) = &ended.message {
        message.push_str(": ");
        message.push_str(text);
    }
    Err(Report::new(ExitCode::Failed, message)
        .hint(format!("`mvm log {name} --qemu` shows what QEMU said"))
        .into())
}

/// Connects the guest's main console with this process, on a thread of its own: whoever stops reading
/// must not stop the supervisor.
fn attach_console(state: &GuestState, tell: mpsc::Sender<()>, attach: Arc<AtomicBool>) {
    let Some(path) = state.sockets.get("console-main").cloned() else {
        output::progress("the guest has no console `main`; Ctrl-C asks it to shut down");
        return;
    };
    let name = state.name.clone();
    // A guest may say nothing for a while; the way out is told before.
    if relay::interactive() {
        output::note(&format!("connected to {name}; Ctrl-] leaves"));
    }
    let carry = move || {
        let ends = Ends {
            output_only: !relay::interactive(),
            ..Ends::default()
        };
        let left = block_on(async { console::open_at(&path).await.map_err(broken) })
            .and_then(|stream| relay::relay(stream, &ends).map_err(broken));
        match left {
            Ok(Left::Key) => {
                attach.store(false, Ordering::Relaxed);
                output::note(&format!(
                    "\nleft the console of {name}; `mvm console {name}` comes back, Ctrl-C asks the guest to shut down"
                ));
            }
            Ok(_) => {}
            Err(failure) => failure.render(),
        }
        // Nobody waits any more where the guest's end took long.
        let _ = tell.send(());
    };
    let spawned = std::thread::Builder::new()
        .name("console".to_owned())
        .spawn(carry);
    if let Err(error) = spawned {
        output::note(&format!("cannot attach to the console: {error}"));
    }
}

fn broken(error: std::io::Error) -> Failure {
    Failure::message(ExitCode::Failed, format!("the console broke: {error}"))
}
