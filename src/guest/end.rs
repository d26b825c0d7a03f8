//! A guest's end: what is told about it, and everything taken back.

use std::os::fd::OwnedFd;

use super::RunDir;
use super::asleep;
use super::error::StartError;
use super::explain::{self, Evidence};
use super::launch;
use super::state::{self, Ended, Reason};
use super::supervise::Outcome;
use crate::dirs::Dirs;
use crate::ops::{Host, lock};
use crate::plan::journal::{self, Entry};

/// What the end needs.
pub(crate) struct End {
    /// What was done, oldest first.
    pub(crate) undo: Vec<Entry>,
    /// The guest's lock; that of an adopted QEMU is free once it is gone.
    pub(crate) lock: Option<OwnedFd>,
    /// Where this QEMU's words begin in its log.
    pub(crate) log_from: u64,
}

impl End {
    /// Takes everything back, writes down how it ended and tells those who wait for it.
    ///
    /// # Errors
    /// QEMU did not start, with the cause.
    pub(crate) async fn of(
        self,
        dirs: &Dirs,
        run: &RunDir,
        outcome: Outcome,
    ) -> Result<Ended, StartError> {
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
        };
        outcome.hotplug.close().await;
        // Before anything of it is anybody else's.
        asleep::mark(run, outcome.reason);
        // Devices may have come and gone since the start.
        let undo = journal::read(&run.journal()).unwrap_or_else(|error| {
            tracing::warn!(%error, "taking back what the start did");
            self.undo
        });
        let left = journal::roll_back(&Host::sharing(run.host()), &undo, Some(&run.journal()));
        if !left.is_empty() {
            let left: Vec<String> = left.iter().map(journal::in_words).collect();
            let text = format!("not taken back: {}", left.join("; "));
            ended.message = Some(match ended.message {
                Some(message) => format!("{message}; {text}"),
                None => text,
            });
        }
        if let Err(error) = state::write(&run.last(), &ended) {
            tracing::warn!(%error, path = %run.last().display(), "cannot write down how it ended");
        }
        drop(held);
        outcome.farewell.say(&ended).await;
        match why {
            Some(why) if ended.reason == Reason::StartFailed => Err(StartError::Qemu(why)),
            _ => Ok(ended),
        }
    }
}
