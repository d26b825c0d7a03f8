//! Starting a guest anew after its end: when, how often, and what there is meanwhile.
//!
//! ```text
//!                  ┌────────────────── 1 s, 2 s, 4 s … 60 s ─────────────────┐
//!                  ▼                                                         │
//! claim ──► one life: steps, QEMU, supervision, everything taken back ──► the end ──► over, if it is not
//!                                                                              one that is followed by
//!                                                                              a start, or the row is full
//! ```
//!
//! All of it happens under one claim: nobody else can start the guest in between, and everybody can see that it
//! is about to be started anew. Everything but the directory with that claim is given back first, by the
//! journal, and taken again by the ordinary way of a start.

mod rest;

use std::time::Duration;

use super::start::OnReady;
use super::state::Reason;
use crate::error::{ExitCode, Report};
use crate::machine::Lifecycle;
use crate::plan::Plan;
use crate::profile::schema::{OnCrash, OnPoweroff, OnReboot};
pub(crate) use rest::{Rested, rest};

/// Between the first end of a row and the new start; each further one waits twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(60);
/// A guest that ran this long was well: its next end begins a new row.
const GOOD_RUN: Duration = Duration::from_secs(5 * 60);

/// Who starts a guest anew.
pub enum Renewal<'a> {
    /// This supervisor. Called with the plan of the life before, it gives the next one's, and whom to tell of it.
    Here(&'a mut Renew<'a>),
    /// The init system that started this supervisor: it ends, and [`super::Ended::again`] says what for.
    Init,
}

/// The plan of the life before to the one of the next, and whom to tell when that runs.
pub type Renew<'a> = dyn FnMut(&Plan) -> Result<(Plan, OnReady), Report> + 'a;

impl Renewal<'_> {
    /// What of that is this supervisor's.
    pub(crate) fn next(&self, next: Next) -> Next {
        match (self, next) {
            (Self::Init, Next::Again(_) | Next::GivenUp(_)) => Next::ByInit,
            (_, next) => next,
        }
    }

    /// The next life's plan.
    pub(crate) fn plan(&mut self, before: &Plan) -> Result<(Plan, OnReady), Report> {
        match self {
            Self::Here(renew) => renew(before),
            Self::Init => Err(Report::new(
                ExitCode::Failed,
                "it is started by the init system",
            )),
        }
    }
}

/// How a life went, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Past {
    /// How it ended.
    pub(crate) reason: Reason,
    /// Whether a user wanted that end, or a signal told of one.
    pub(crate) wished: bool,
    /// How long it was, from its first step.
    pub(crate) ran: Duration,
}

/// A new start that is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Again {
    /// When.
    pub(crate) after: Duration,
    /// Which one of its row it is, from 1.
    pub(crate) number: u32,
    /// How many there are in a row.
    pub(crate) limit: u32,
}

/// What follows an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing.
    Over,
    /// A new start.
    Again(Again),
    /// A new start, which is not ours to make.
    ByInit,
    /// Nothing any more: there were so many new starts in a row.
    GivenUp(u32),
}

/// New starts in a row.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Row {
    made: u32,
}

impl Row {
    /// What follows a life that has ended.
    pub(crate) fn after(&mut self, lifecycle: &Lifecycle, past: Past) -> Next {
        if past.ran >= GOOD_RUN {
            self.made = 0;
        }
        // The first start is the user's, who is told why it failed.
        let tried = past.reason == Reason::StartFailed && self.made > 0;
        if past.wished || !(tried || restarts(lifecycle, past.reason)) {
            return Next::Over;
        }
        self.next(lifecycle)
    }

    /// What follows a new start that did not come as far as a QEMU.
    pub(crate) fn after_failure(&mut self, lifecycle: &Lifecycle) -> Next {
        self.next(lifecycle)
    }

    fn next(&mut self, lifecycle: &Lifecycle) -> Next {
        let limit = lifecycle.restart_limit;
        if self.made >= limit {
            return Next::GivenUp(self.made);
        }
        let doubled = FIRST.saturating_mul(1 << self.made.min(16));
        self.made += 1;
        Next::Again(Again {
            after: doubled.min(LONGEST),
            number: self.made,
            limit,
        })
    }
}

/// Whether a guest that ended so is started anew. Who told its QEMU to end knows better.
fn restarts(lifecycle: &Lifecycle, reason: Reason) -> bool {
    match reason {
        Reason::GuestShutdown => lifecycle.on_poweroff == OnPoweroff::Restart,
        Reason::GuestReset => lifecycle.on_reboot == OnReboot::Restart,
        Reason::GuestPanic | Reason::Watchdog | Reason::Crashed | Reason::Unknown => {
            lifecycle.on_crash == OnCrash::Restart
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::schema::OnCrash;

    fn always(limit: u32) -> Lifecycle {
        Lifecycle {
            on_poweroff: OnPoweroff::Restart,
            on_reboot: OnReboot::Restart,
            on_crash: OnCrash::Restart,
            restart_limit: limit,
        }
    }

    fn past(reason: Reason, ran: u64) -> Past {
        Past {
            reason,
            wished: false,
            ran: Duration::from_secs(ran),
        }
    }

    fn seconds(next: Next) -> u64 {
        match next {
            Next::Again(again) => again.after.as_secs(),
            Next::Over | Next::ByInit | Next::GivenUp(_) => 0,
        }
    }

    #[test]
    fn each_new_start_of_a_row_waits_longer_and_the_row_has_an_end() {
        let mut row = Row::default();
        let crash = past(Reason::Crashed, 2);
        let waits: Vec<u64> = (0..10)
            .map(|_| seconds(row.after(&always(10), crash)))
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
        assert_eq!(row.after(&always(10), crash), Next::GivenUp(10));
        // A guest that was well for a while has the whole row before it.
        let next = row.after(&always(10), past(Reason::Crashed, 300));
        assert_eq!(
            next,
            Next::Again(Again {
                after: FIRST,
                number: 1,
                limit: 10
            })
        );
    }

    #[test]
    fn only_some_ends_are_followed_by_a_start() {
        let next = |lifecycle: &Lifecycle, reason| {
            seconds(Row::default().after(lifecycle, past(reason, 1)))
        };
        let never = Lifecycle::default();
        let crash = Lifecycle {
            on_crash: OnCrash::Restart,
            ..never
        };
        for (reason, by_crash, by_always) in [
            (Reason::GuestShutdown, 0, 1),
            (Reason::GuestReset, 0, 1),
            (Reason::GuestPanic, 1, 1),
            (Reason::Watchdog, 1, 1),
            (Reason::Crashed, 1, 1),
            (Reason::Unknown, 1, 1),
            (Reason::Killed, 0, 0),
            (Reason::Quit, 0, 0),
            (Reason::HostSignal, 0, 0),
            (Reason::StartFailed, 0, 0),
        ] {
            assert_eq!(next(&never, reason), 0, "{reason:?}");
            assert_eq!(next(&crash, reason), by_crash, "{reason:?}");
            assert_eq!(next(&always(3), reason), by_always, "{reason:?}");
        }
    }

    #[test]
    fn what_a_user_wanted_stays() {
        let wanted = Past {
            wished: true,
            ..past(Reason::GuestShutdown, 1)
        };
        assert_eq!(Row::default().after(&always(3), wanted), Next::Over);
    }

    #[test]
    fn a_new_start_that_fails_is_one_of_the_row() {
        let mut row = Row::default();
        assert_eq!(seconds(row.after(&always(3), past(Reason::Crashed, 1))), 1);
        assert_eq!(
            seconds(row.after(&always(3), past(Reason::StartFailed, 1))),
            2
        );
        assert_eq!(seconds(row.after_failure(&always(3))), 4);
        assert_eq!(row.after_failure(&always(3)), Next::GivenUp(3));
    }
}
