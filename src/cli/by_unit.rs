//! Starting a guest by the unit that the init system has of it.

use std::ffi::OsString;
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::guests::{self, Life, Seen};
use super::{Context, Failure, output, unit};
use crate::error::{ExitCode, Report};
use crate::guest::{Condition, Presence, RunDir, look, state};
use crate::host::Init;
use crate::ids::GuestName;
use crate::service::{Around, rest};

/// How often a guest that is being started is looked at.
const EVERY: Duration = Duration::from_millis(50);
/// For what watches folders of services to see a new one.
const SEEN: Duration = Duration::from_secs(8);
/// For the word that takes a start back.
const CANCEL: Duration = Duration::from_secs(10);

/// A guest's unit, and the words that start it.
#[derive(Debug)]
pub(super) struct Unit {
    name: GuestName,
    around: Around,
    words: Vec<String>,
}

/// The unit that is installed for what is to be started; none where the guest runs already, which the start itself
/// tells better.
pub(super) fn find(
    what: &str,
    name: Option<&GuestName>,
    context: &Context,
) -> Result<Option<Unit>, Failure> {
    // A path names a file that no unit knows; another name is another guest.
    let Ok(own) = GuestName::from_str(what) else {
        return Ok(None);
    };
    if name.is_some_and(|name| *name != own) {
        return Ok(None);
    }
    if matches!(look(&context.dirs, &own)?, Presence::Supervised(_)) {
        return Ok(None);
    }
    of(&own, context)
}

/// The unit that is installed for a guest.
pub(super) fn of(own: &GuestName, context: &Context) -> Result<Option<Unit>, Failure> {
    let Some(around) = unit::installed(context, own)? else {
        return Ok(None);
    };
    let Some(words) = rest::start(&around, own) else {
        output::note(&format!(
            "note: {} has no words to start one service: mvm starts {own} itself",
            around.init
        ));
        return Ok(None);
    };
    Ok(Some(Unit {
        name: own.clone(),
        around,
        words,
    }))
}

/// What is laid over the profile on the command line is in no unit.
pub(super) fn refuse(unit: &Unit, choices: &[OsString]) -> Result<(), Failure> {
    let Some(first) = choices.first() else {
        return Ok(());
    };
    let name = &unit.name;
    let text = format!(
        "{name} is started by its unit of {}, which cannot carry `{}`",
        unit.around.init,
        first.to_string_lossy()
    );
    Err(Report::new(ExitCode::Usage, text)
        .hint(format!(
            "`mvm edit {name}` says it for every start; `--no-unit` starts it without {}",
            unit.around.init
        ))
        .into())
}

/// Starts it, and waits until it runs.
pub(super) fn start(unit: &Unit, context: &Context, within: Duration) -> Result<Value, Failure> {
    let begin = Instant::now();
    let since = state::now();
    output::note(&format!("note: by its unit: `{}`", unit.words.join(" ")));
    let called = loop {
        let called = unit::call(&unit.words, within.saturating_sub(begin.elapsed()));
        let young = begin.elapsed() < SEEN.min(within);
        match called {
            // What has just been installed is not seen yet.
            Err(_) if young && matches!(unit.around.init, Init::Runit | Init::S6) => {
                std::thread::sleep(EVERY * 4);
            }
            called => break called,
        }
    };
    if let Err(failure) = called {
        return Err(give_up(unit, failure, begin.elapsed() >= within));
    }
    loop {
        let seen = guests::look(&context.dirs, unit.name.as_str())?;
        if let Some(told) = seen.as_ref().and_then(told) {
            return Ok(told);
        }
        // One that does not even run has said why.
        if seen.is_none() {
            if let Some(failure) = ended(unit, context, since) {
                return Err(failure);
            }
        }
        if begin.elapsed() >= within {
            let text = format!("{} did not run within {} s", unit.name, within.as_secs());
            let failure = Report::new(ExitCode::Failed, text).hint("`--timeout` gives it longer");
            return Err(give_up(unit, failure.into(), true));
        }
        std::thread::sleep(EVERY);
    }
}

/// What is told of a guest that runs.
fn told(seen: &Seen) -> Option<Value> {
    let state = seen
        .state
        .as_ref()
        .filter(|_| seen.life == Life::Supervised)?;
    (state.state != Condition::Starting).then(|| {
        json!({
            "name": state.name,
            "state": state.state,
            "pid": state.pid,
            "profile": state.profile,
            "since": state.since,
        })
    })
}

/// The end of a guest that ended since then.
fn ended(unit: &Unit, context: &Context, since: u64) -> Option<Failure> {
    let run = RunDir::new(&context.dirs, &unit.name);
    let ended: Option<state::Ended> = state::read(&run.last()).ok().flatten();
    let ended = ended.filter(|ended| ended.at >= since)?;
    let mut text = format!("{} has ended: {}", unit.name, ended.reason.as_str());
    if let Some(message) = &ended.message {
        text = format!("{text}: {message}");
    }
    Some(hints(unit, Report::new(ExitCode::Failed, text)).into())
}

/// A start that failed; where its time is over the init is told to leave it.
fn give_up(unit: &Unit, failure: Failure, late: bool) -> Failure {
    if late {
        let cancel = rest::cancel(&unit.around, &unit.name).unwrap_or_default();
        if let Err(failure) = unit::call(&cancel, CANCEL) {
            failure.render();
        }
    }
    let mut reports = failure.reports().iter().cloned();
    match reports.next() {
        Some(first) => hints(unit, first).into(),
        None => failure,
    }
}

fn hints(unit: &Unit, report: Report) -> Report {
    let name = &unit.name;
    match (unit.around.init, &unit.around.user) {
        (Init::Systemd, None) => {
            report.hint(format!("`journalctl -u mvm@{name}` shows what was said"))
        }
        (Init::Systemd, Some(_)) => report.hint(format!(
            "`journalctl --user -u mvm@{name}` shows what was said"
        )),
        _ => report.hint(format!("`mvm run {name}` shows here what goes wrong")),
    }
}
