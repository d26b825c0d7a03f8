//! What is left when supervisor and QEMU are both gone: taken back, and the truth written down.

use std::fs;

use serde::Deserialize;

use super::RunDir;
use super::adopt;
use super::asleep;
use super::claim::{self, Claim, Claimed};
use super::error::StartError;
use super::leftovers;
use super::lifecycle::shutdown_reason;
use super::saved;
use super::state::{self, Condition, Ended, GuestState, Reason};
use crate::dirs::Dirs;
use crate::ids::GuestName;
use crate::ops::{Host, Ops, lock};
use crate::plan::journal;
use crate::plan::step::Step;

/// What `recover` found, and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovered {
    /// The guest has no run-time directory.
    Nothing,
    /// A supervisor has it: nothing to recover.
    Supervised,
    /// Its QEMU lives and has no supervisor: [`super::adopt`] gives it one.
    Orphan,
    /// Both were dead; everything is taken back.
    CleanedUp {
        /// How the guest ended, if it had been started.
        ended: Option<Ended>,
        /// What of the host's devices was given back, in words.
        devices: Vec<String>,
    },
}

/// Takes back what a dead guest left behind. A QEMU that lives is left alone.
///
/// # Errors
/// Something cannot be taken back; the journal is kept for another try.
pub fn recover(dirs: &Dirs, name: &GuestName) -> Result<Recovered, StartError> {
    let run = RunDir::new(dirs, name);
    if !run.path().exists() {
        return Ok(Recovered::Nothing);
    }
    let before = has_leftovers(&run);
    let devices = leftovers::devices_in_journal(&run);
    match claim::take(&run) {
        Err(StartError::Busy(_)) => Ok(Recovered::Supervised),
        Err(error) => Err(error),
        Ok(Claimed::Orphan(claim)) => {
            if !adopt::end_if_unfinished(&run)? {
                return Ok(Recovered::Orphan);
            }
            take_back(&run)?;
            Ok(cleaned_up(&run, claim, true, devices))
        }
        Ok(Claimed::Free(claim)) => Ok(cleaned_up(&run, claim, before, devices)),
    }
}

fn cleaned_up(run: &RunDir, claim: Claim, was_there: bool, devices: Vec<String>) -> Recovered {
    claim.abandon(run);
    let ended = state::read(&run.last()).ok().flatten();
    Recovered::CleanedUp {
        ended: ended.filter(|_| was_there),
        devices,
    }
}

/// Whether there is anything to take back.
pub(crate) fn has_leftovers(run: &RunDir) -> bool {
    fs::read_dir(run.path()).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.path() != run.supervisor_lock())
    })
}

/// Takes back what is left, under the supervisor's lock, nobody having the guest's.
pub(crate) fn take_back(run: &RunDir) -> Result<(), StartError> {
    let held = lock::take(&run.lock())?;
    let started: Option<GuestState> = state::read(&run.state()).unwrap_or_else(|error| {
        tracing::warn!(%error, "state.json is damaged");
        None
    });
    if let Some(state) = started.filter(|state| state.pid.is_some()) {
        let ended = how_it_ended(run, &state);
        asleep::mark(run, ended.reason);
        saved::sweep(run);
        if let Err(error) = state::write(&run.last(), &ended) {
            tracing::warn!(%error, "cannot write down how it ended");
        }
    }
    let undo = journal::read(&run.journal())?;
    let host = Host::sharing(run.host());
    let mut left = journal::roll_back(&host, &undo, Some(&run.journal()));
    if left.is_empty() {
        // A start that died before its journal began left a directory and nothing else.
        let dir = Step::RemoveDir {
            path: run.path().to_owned(),
        };
        left.extend(host.run(&dir).err());
    }
    drop(held);
    if left.is_empty() {
        return Ok(());
    }
    let what: Vec<String> = left.iter().map(journal::in_words).collect();
    Err(StartError::Leftovers {
        guest: run.name().to_string(),
        what: what.join("; "),
    })
}

/// One line of the event log.
#[derive(Deserialize)]
struct Line {
    event: String,
    #[serde(default)]
    data: serde_json::Value,
    timestamp: Option<Stamp>,
}

#[derive(Deserialize)]
struct Stamp {
    seconds: i64,
}

fn how_it_ended(run: &RunDir, state: &GuestState) -> Ended {
    let log = fs::read(run.events_log()).unwrap_or_default();
    let seen = from_events(&log).map(|ended| match ended.reason {
        Reason::GuestShutdown if state.hibernating => Ended {
            reason: Reason::HibernationRequested,
            ..ended
        },
        _ => ended,
    });
    // Its state was complete: what became of QEMU then is of no matter.
    let saved = state.state != Condition::Starting && asleep::is_saved(run);
    let seen = seen.filter(|_| !saved);
    seen.unwrap_or_else(|| {
        let (reason, message) = if saved {
            (Reason::Saved, "its supervisor died when it was saved")
        } else if state.state == Condition::Starting {
            let message = "its supervisor died while it was being started";
            (Reason::StartFailed, message)
        } else if boot_time().is_some_and(|boot| state.started < boot) {
            (Reason::Unknown, "the host went down while it ran")
        } else {
            let message = "QEMU and its supervisor were gone; the guest had not shut down";
            (Reason::Unknown, message)
        };
        Ended {
            at: state::now(),
            reason,
            exit_status: None,
            signal: None,
            message: Some(message.to_owned()),
            again: false,
        }
    })
}

/// What QEMU's second monitor recorded last about the guest's end.
fn from_events(log: &[u8]) -> Option<Ended> {
    let mut found: Option<Ended> = None;
    for line in log.split(|byte| *byte == b'\n') {
        let Ok(line) = serde_json::from_slice::<Line>(line) else {
            continue;
        };
        let text = |key: &str| line.data.get(key).and_then(|value| value.as_str());
        let hibernated = found
            .as_ref()
            .is_some_and(|ended| ended.reason == Reason::Hibernated);
        let reason = match line.event.as_str() {
            "SUSPEND_DISK" => Reason::Hibernated,
            // That is how it goes off.
            "SHUTDOWN" if hibernated => continue,
            "SHUTDOWN" => shutdown_reason(text("reason").unwrap_or_default()),
            "WATCHDOG" if text("action") == Some("poweroff") => Reason::Watchdog,
            "GUEST_PANICKED" => Reason::GuestPanic,
            _ => continue,
        };
        let at = line
            .timestamp
            .and_then(|stamp| u64::try_from(stamp.seconds).ok())
            .unwrap_or_else(state::now);
        found = Some(Ended {
            at,
            reason,
            exit_status: None,
            signal: None,
            message: Some("seen in QEMU's own event log, its supervisor having died".to_owned()),
            again: false,
        });
    }
    found
}

/// When the host was started, in seconds since 1970.
fn boot_time() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_event_log_tells_the_truth() {
        let log = concat!(
            "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n",
            "{\"return\": {}}\r\n",
            "{\"timestamp\": {\"seconds\": 7, \"microseconds\": 1}, \"event\": \"RESUME\"}\r\n",
            "{\"timestamp\": {\"seconds\": 9, \"microseconds\": 1}, \"event\": \"SHUTDOWN\", ",
            "\"data\": {\"guest\": true, \"reason\": \"guest-shutdown\"}}\r\n",
            "{\"timestamp\": {\"sec",
        );
        let ended = from_events(log.as_bytes()).unwrap();
        assert_eq!((ended.at, ended.reason), (9, Reason::GuestShutdown));
        assert_eq!(from_events(&log.as_bytes()[..100]), None);
        assert!(boot_time().unwrap() > 1_500_000_000);
    }
}
