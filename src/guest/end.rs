//! A guest's end: what is told about it, and everything taken back.

use std::os::fd::OwnedFd;

use super::RunDir;
use super::asleep;
use super::error::StartError;
use super::explain::{self, Evidence};
use super::launch;
use super::restart::{Again, Next};
use super::saved;
use super::state::{self, Condition, Ended, GuestState, Reason};
use super::supervise::Outcome;
use crate::dirs::Dirs;
use crate::ops::{Host, dirs, lock};
use crate::plan::journal::{self, Entry};
use crate::plan::step::Step;

/// What the end needs.
pub(crate) struct End {
    /// What was done, oldest first.
    pub(crate) undo: Vec<Entry>,
    /// The guest's lock; that of an adopted QEMU is free once it is gone.
    pub(crate) lock: Option<OwnedFd>,
    /// Where this QEMU's words begin in its log.
    pub(crate) log_from: u64,
}

fn write_down(run: &RunDir, ended: &Ended) {
    if let Err(error) = state::write(&run.last(), ended) {
        tracing::warn!(%error, path = %run.last().display(), "cannot write down how it ended");
    }
}

/// A life that is over, its devices given back.
pub(crate) struct Gone {
    /// How it ended.
    pub(crate) ended: Ended,
    /// Why QEMU did not start, where it did not.
    pub(crate) why: Option<StartError>,
    /// What was said of the guest last.
    pub(crate) state: GuestState,
    /// The start that follows. The guest's directory is there for it, empty but for the claim.
    pub(crate) again: Option<Again>,
    /// What was said of the end itself.
    message: Option<String>,
}

impl Gone {
    /// A new start came to nothing; `next` follows.
    pub(crate) fn failed_again(&mut self, run: &RunDir, error: StartError, next: Next) {
        let mut said = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            said.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        tracing::warn!("{} could not be started anew: {said}", run.name());
        self.ended.message.clone_from(&self.message);
        self.ended
            .add(&format!("could not be started anew: {said}"));
        if let Next::GivenUp(tries) = next {
            self.ended.add(&given_up(tries));
        }
        write_down(run, &self.ended);
        self.why = Some(error);
        self.again = match next {
            Next::Again(again) => Some(again),
            Next::Over | Next::ByInit | Next::GivenUp(_) => None,
        };
    }

    /// What its user is told.
    ///
    /// # Errors
    /// QEMU did not start, with the cause.
    pub(crate) fn told(self) -> Result<Ended, StartError> {
        match self.why {
            Some(why) => Err(why),
            None => Ok(self.ended),
        }
    }
}

fn given_up(tries: u32) -> String {
    format!("not started anew: {tries} new starts in a row have not helped")
}

impl End {
    /// Takes everything back, writes down how it ended and tells those who wait for it. `next` is what
    /// this supervisor does then.
    pub(crate) async fn of(self, dirs: &Dirs, run: &RunDir, outcome: Outcome, next: Next) -> Gone {
        let held = match self.lock {
            Some(lock) => Some(lock),
            // Nobody else can want it: the supervisor's lock is ours.
            None => lock::take(&run.lock()).ok(),
        };
        let text = launch::tail(&run.qemu_log(), self.log_from);
        let evidence = Evidence {
            said: &text,
            exit: outcome.exit,
            dirs: Some(dirs),
        };
        let why = match outcome.reason {
            Reason::StartFailed | Reason::Crashed => {
                let why = explain::explain(&evidence);
                let why = why.or_from(outcome.trouble.as_deref(), dirs);
                Some(why.of_guest(run.name()))
            }
            _ => None,
        };
        let message = match (&why, outcome.reason) {
            (Some(why), _) => Some(why.to_string()),
            (None, Reason::HookFailed) => outcome.trouble.clone(),
            (None, Reason::HostSignal) => explain::who_signalled(&text),
            (None, Reason::Unknown) => Some("QEMU ended without a word".to_owned()),
            _ => None,
        };
        let mut ended = Ended {
            at: state::now(),
            reason: outcome.reason,
            exit_status: outcome.exit.status,
            signal: outcome.exit.signal,
            message,
            again: false,
        };
        ended.again = next == Next::ByInit;
        if let Next::GivenUp(tries) = next {
            ended.add(&given_up(tries));
        }
        outcome.hotplug.close().await;
        // Before anything of it is anybody else's.
        asleep::mark(run, outcome.reason);
        saved::sweep(run);
        // Devices may have come and gone since the start.
        let undo = journal::read(&run.journal()).unwrap_or_else(|error| {
            tracing::warn!(%error, "taking back what the start did");
            self.undo
        });
        let mut again = match next {
            Next::Again(again) => Some(again),
            Next::Over | Next::ByInit | Next::GivenUp(_) => None,
        };
        let kept =
            |entry: &Entry| matches!(&entry.undo, Step::RemoveDir { path } if path == run.path());
        let undo: Vec<Entry> = match again {
            Some(_) => undo.into_iter().filter(|entry| !kept(entry)).collect(),
            None => undo,
        };
        // Whoever finds no guest any more looks here for how it ended.
        write_down(run, &ended);
        let left = journal::roll_back(&Host::sharing(run.host()), &undo, Some(&run.journal()));
        let mut left: Vec<String> = left.iter().map(journal::in_words).collect();
        if again.is_some() && left.is_empty() {
            let emptied = dirs::empty_dir(run.path());
            left.extend(emptied.err().as_ref().map(journal::in_words));
        }
        if !left.is_empty() {
            // With something of the host's still in its hands, a new start would be wrong.
            if again.take().is_some() {
                ended.add("not started anew");
            }
            ended.add(&format!("not taken back: {}", left.join("; ")));
            write_down(run, &ended);
        }
        drop(held);
        let state = outcome.farewell.state();
        let then = match again {
            Some(_) => Condition::Restarting,
            None => Condition::Stopped,
        };
        outcome.farewell.say(&ended, then).await;
        Gone {
            why: why
                .filter(|_| ended.reason == Reason::StartFailed)
                .map(StartError::Qemu),
            message: ended.message.clone(),
            ended,
            state,
            again,
        }
    }
}
