//! A guest's life as a pure state machine: the supervisor carries inputs in and actions out.
//!
//! What the guest does (`Run`) and how its end is going (`Ending`) are two machines side by side:
//!
//! ```text
//!  Run                    STOP / RESUME
//!  Starting ──Ready──► Running ◄────────► Paused
//!                         ▲ │
//!                  WAKEUP │ │ SUSPEND
//!                         │ ▼
//!                      Suspended                 SUSPEND_DISK leads to Leaving
//!
//!  Ending                                            SHUTDOWN seen
//!  No ──Stop, signal──► Asked ──────────────────────────────► Leaving
//!   │ ◄──deadline────────┘ │ deadline with force, Kill,         │ lingers, deadline with
//!   │  without force       │ second signal                      │ force, Kill
//!   │                      ▼                                    ▼
//!   └──────Kill───────► Quitting ───────2 s, no end───────► Killing
//!
//!  any ──QEMU is reaped──► Over
//! ```
//!
//! Where QEMU stays after the guest's shutdown (`lifecycle.on-poweroff = "preserve"`), `Run` has one more state:
//!
//! ```text
//!  Running ──SHUTDOWN by the guest──► Halted ──RESET──► Paused
//! ```
//!
//! and every other SHUTDOWN is followed by our own `quit`.
//!
//! While the end is `Asked`, the request is repeated every ten seconds: a guest that was still booting
//! has lost the first one. Every state but `No` and `Over` has a timer, so that none lasts for ever.

mod words;

use std::time::Duration;

use super::process::Exit;
use super::state::{Condition, Reason};
pub(crate) use words::{Action, Input, News, Timer};

/// Between two requests to shut down.
const NUDGE: Duration = Duration::from_secs(10);
/// For QEMU to end after it was told to quit.
const QUIT: Duration = Duration::from_secs(2);
/// For the kernel to end QEMU.
const KILL: Duration = Duration::from_secs(5);
/// For QEMU to flush its disks after the guest has shut down.
const LINGER: Duration = Duration::from_secs(60);

/// What the guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    Starting,
    Running,
    Paused,
    Suspended,
    /// It has shut down, and QEMU is kept.
    Halted,
}

/// Whether its end is one that a user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    No,
    /// A stop, a kill, a signal.
    Now,
    /// A stop that ran out of time: the guest may still heed it.
    Late,
}

/// How its end is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    Asked,
    Leaving,
    Quitting,
    Killing,
    Over,
}

/// Why it ended, as far as it was seen before QEMU was gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cause {
    shutdown: Option<Reason>,
    hibernated: bool,
    saved: bool,
    killed: bool,
    /// By a hook that failed, and by nobody else.
    hook: bool,
    panicked: bool,
    watchdog: bool,
}

/// A guest's life so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    run: Run,
    ending: Ending,
    agent: bool,
    force: bool,
    /// Whether a signal has asked for this end: only the second one is impatient, not the first one
    /// that comes while a user's stop or the guest's own shutdown is going on.
    signalled: bool,
    /// How often it woke from its sleep since its last reset.
    wakeups: u32,
    /// Whether it was asked to hibernate.
    hibernating: bool,
    /// Whether it is paused in place of a sleep.
    held: bool,
    /// What it did when it was held to be saved.
    saving: Option<Condition>,
    /// Whether its clock is to be set once its agent answers: it was hibernated when it was started.
    clock_is_old: bool,
    wish: Wish,
    /// QEMU stays when the guest shuts down: its end is ours.
    keeps: bool,
    cause: Cause,
}

/// What a new supervisor must know of the time before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Before {
    /// How often the guest woke from its sleep since its last reset.
    pub(crate) wakeups: u32,
    /// Whether it was asked to hibernate.
    pub(crate) hibernating: bool,
    /// Whether it is paused in place of a sleep.
    pub(crate) held: bool,
    /// Whether it was hibernated when it was started.
    pub(crate) resumes: bool,
    /// Whether its QEMU is kept when it shuts down.
    pub(crate) keeps: bool,
}

impl Default for Life {
    fn default() -> Self {
        Self {
            run: Run::Starting,
            ending: Ending::No,
            agent: false,
            force: false,
            signalled: false,
            wakeups: 0,
            hibernating: false,
            held: false,
            saving: None,
            clock_is_old: false,
            wish: Wish::No,
            keeps: false,
            cause: Cause {
                shutdown: None,
                hibernated: false,
                saved: false,
                killed: false,
                hook: false,
                panicked: false,
                watchdog: false,
            },
        }
    }
}

impl Life {
    /// A life of which something is known already.
    pub(crate) fn after(before: Before) -> Self {
        Self {
            wakeups: before.wakeups,
            hibernating: before.hibernating,
            held: before.held,
            clock_is_old: before.resumes,
            keeps: before.keeps,
            ..Self::default()
        }
    }

    /// What users see.
    pub(crate) fn condition(&self) -> Condition {
        match (self.ending, self.run) {
            (Ending::Over, _) => Condition::Stopped,
            (Ending::No, Run::Starting) => Condition::Starting,
            (Ending::No, Run::Running) => Condition::Running,
            (Ending::No, Run::Paused | Run::Halted) => Condition::Paused,
            (Ending::No, Run::Suspended) => Condition::Suspended,
            _ => Condition::Stopping,
        }
    }

    /// Whether the guest agent answers.
    pub(crate) fn agent(&self) -> bool {
        self.agent
    }

    /// How often it woke from its sleep since its last reset.
    pub(crate) fn wakeups(&self) -> u32 {
        self.wakeups
    }

    /// Whether it was asked to hibernate.
    pub(crate) fn hibernating(&self) -> bool {
        self.hibernating
    }

    /// Whether it is paused in place of a sleep.
    pub(crate) fn held(&self) -> bool {
        self.held && self.condition() == Condition::Paused
    }

    /// What it did when it was held to be saved, while it is.
    pub(crate) fn saving(&self) -> Option<Condition> {
        self.saving
    }

    /// What is to be said beside the condition.
    pub(crate) fn word(&self) -> Option<&'static str> {
        if self.cause.panicked {
            Some("the guest's kernel panicked")
        } else if self.run == Run::Halted {
            Some(
                "the guest has shut down; QEMU is kept, as its profile says in `lifecycle.on-poweroff`",
            )
        } else if self.saving.is_some() {
            Some("it is being saved")
        } else {
            None
        }
    }

    /// Whether a user wanted an end of that kind.
    pub(crate) fn wished(&self, reason: Reason) -> bool {
        match self.wish {
            Wish::No => false,
            Wish::Now => true,
            Wish::Late => reason == Reason::GuestShutdown,
        }
    }

    /// The next state and what is to be done.
    #[must_use]
    pub(crate) fn step(mut self, input: Input) -> (Self, Vec<Action>) {
        let actions = if self.ending == Ending::Over {
            Vec::new()
        } else {
            match input {
                Input::Ready => self.ready(),
                Input::Qemu(news) => self.news(news),
                Input::Agent(answers) => self.agent_is(answers),
                Input::AgentFailed => self.agent_failed(),
                Input::Hibernate(asked) => {
                    self.hibernating = asked;
                    vec![Action::Publish]
                }
                Input::Held => {
                    self.held = true;
                    vec![Action::Publish]
                }
                Input::Saving(before) => {
                    self.saving = before;
                    vec![Action::Publish]
                }
                Input::Saved => self.saved(),
                Input::Stop { timeout, force } => self.stop(timeout, force),
                Input::Kill => {
                    self.wish = Wish::Now;
                    self.quit()
                }
                Input::HookFailed(_) => {
                    self.wish = Wish::Now;
                    self.cause.hook |= matches!(self.ending, Ending::No | Ending::Asked);
                    self.quit()
                }
                Input::Signal { timeout } => match self.ending {
                    Ending::Asked | Ending::Leaving if self.signalled => self.quit(),
                    _ => {
                        self.signalled = true;
                        self.stop(timeout, true)
                    }
                },
                Input::Timer(timer) => self.timer(timer),
                Input::MonitorClosed => self.leave(),
                Input::ConnectFailed => self.give_up(),
                Input::Exited(exit) => self.exited(exit),
            }
        };
        (self, actions)
    }

    fn ready(&mut self) -> Vec<Action> {
        if self.run != Run::Starting {
            return Vec::new();
        }
        self.run = Run::Running;
        vec![
            Action::Publish,
            Action::ForgetHibernation,
            Action::TellReady,
        ]
    }

    fn news(&mut self, news: News) -> Vec<Action> {
        match news {
            // Before `Ready`, QEMU's own stops and resumes are part of the start.
            News::Stopped | News::Resumed | News::WokeUp | News::Suspended
                if self.run == Run::Starting =>
            {
                Vec::new()
            }
            // A sleeping guest is stopped too, and stays asleep.
            News::Stopped if matches!(self.run, Run::Suspended | Run::Halted) => Vec::new(),
            News::Stopped => self.runs(Run::Paused),
            News::Resumed => {
                self.held = false;
                let mut actions = self.runs(Run::Running);
                // Whoever let it go on: what was saved is of the past.
                if std::mem::take(&mut self.cause.saved) {
                    self.cause.killed = true;
                    actions.push(Action::ForgetHibernation);
                }
                actions
            }
            News::Suspended => self.runs(Run::Suspended),
            News::Hibernated => {
                self.cause.hibernated = true;
                self.leave()
            }
            News::WokeUp => {
                self.wakeups += 1;
                let mut actions = self.runs(Run::Running);
                actions.push(Action::SetClock);
                if self.ending == Ending::Asked {
                    actions.push(self.ask());
                }
                actions
            }
            News::Shutdown(reason) => {
                let reason = shutdown_reason(&reason);
                // A QEMU that was kept says another when it is told to quit.
                self.cause.shutdown.get_or_insert(reason);
                if self.keeps {
                    self.kept(reason)
                } else {
                    self.leave()
                }
            }
            // Said at once, where QEMU may hold back for a second that the agent's port is closed.
            News::Reset => self.reset(),
            News::Panicked => {
                self.cause.panicked = true;
                vec![Action::Publish]
            }
            News::WatchdogPoweroff => {
                self.cause.watchdog = true;
                self.leave()
            }
        }
    }

    /// The guest begins anew.
    fn reset(&mut self) -> Vec<Action> {
        self.wakeups = 0;
        self.hibernating = false;
        let mut actions = self.agent_is(false);
        let before = (self.run, self.cause.panicked);
        self.cause.panicked = false;
        if self.run == Run::Halted {
            self.run = Run::Paused;
            self.cause.shutdown = None;
        }
        if self.wish == Wish::Late {
            self.wish = Wish::No;
        }
        if before != (self.run, self.cause.panicked) && actions.is_empty() {
            actions.push(Action::Publish);
        }
        actions
    }

    /// The guest has shut down, or the like, and QEMU is still there.
    fn kept(&mut self, reason: Reason) -> Vec<Action> {
        match (self.ending, reason) {
            // Our own `quit`.
            (Ending::Quitting | Ending::Killing, _) => Vec::new(),
            // These are QEMU's own end, which nothing holds up.
            (_, Reason::Quit | Reason::HostSignal | Reason::Crashed | Reason::Unknown) => {
                self.leave()
            }
            // A guest that is hibernated is not one that has shut down.
            (Ending::No, Reason::GuestShutdown) if !self.hibernating && !self.cause.hibernated => {
                self.runs(Run::Halted)
            }
            (Ending::No | Ending::Asked, _) => self.close(),
            // It goes off by itself elsewhere. Its disks are written in the time that every end has.
            (Ending::Leaving, _) if self.cause.hibernated => vec![Action::Quit],
            _ => Vec::new(),
        }
    }

    /// Ends a QEMU whose guest is no more.
    fn close(&mut self) -> Vec<Action> {
        self.ending = Ending::Quitting;
        vec![
            Action::Quit,
            Action::Arm(Timer::Quit, QUIT),
            Action::Publish,
        ]
    }

    fn agent_is(&mut self, answers: bool) -> Vec<Action> {
        let changed = std::mem::replace(&mut self.agent, answers) != answers;
        let mut actions: Vec<_> = changed.then_some(Action::Publish).into_iter().collect();
        if answers && std::mem::take(&mut self.clock_is_old) {
            actions.push(Action::SetClock);
        }
        actions
    }

    fn runs(&mut self, run: Run) -> Vec<Action> {
        let changed = std::mem::replace(&mut self.run, run) != run;
        changed.then_some(Action::Publish).into_iter().collect()
    }

    fn leave(&mut self) -> Vec<Action> {
        if !matches!(self.ending, Ending::No | Ending::Asked) {
            return Vec::new();
        }
        self.ending = Ending::Leaving;
        vec![Action::Publish, Action::Arm(Timer::Linger, LINGER)]
    }

    fn ask(&self) -> Action {
        match self.run {
            Run::Suspended => Action::Wake,
            run => Action::Ask {
                resume: run == Run::Paused,
                agent: self.agent,
            },
        }
    }

    fn agent_failed(&mut self) -> Vec<Action> {
        if self.ending != Ending::Asked {
            return Vec::new();
        }
        self.agent = false;
        vec![Action::Publish, self.ask()]
    }

    fn stop(&mut self, timeout: Duration, force: bool) -> Vec<Action> {
        self.wish = Wish::Now;
        match self.ending {
            // There is nobody to ask.
            Ending::No if self.run == Run::Halted => self.close(),
            Ending::No if self.run == Run::Paused && self.cause.panicked => self.close(),
            // Nothing of the guest has run yet.
            Ending::No if self.run == Run::Starting => self.quit(),
            Ending::No | Ending::Asked => {
                self.force = force;
                // Whatever it was asked before: what comes now is the end that is asked for.
                self.hibernating = false;
                self.ending = Ending::Asked;
                vec![
                    Action::Publish,
                    self.ask(),
                    Action::Arm(Timer::Nudge, NUDGE),
                    Action::Arm(Timer::Deadline, timeout),
                ]
            }
            Ending::Leaving => {
                self.force = force;
                vec![Action::Arm(Timer::Deadline, timeout)]
            }
            Ending::Quitting | Ending::Killing | Ending::Over => Vec::new(),
        }
    }

    fn quit(&mut self) -> Vec<Action> {
        match self.ending {
            Ending::No | Ending::Asked => {
                self.ending = Ending::Quitting;
                self.cause.killed = true;
                vec![
                    Action::Quit,
                    Action::Arm(Timer::Quit, QUIT),
                    Action::Publish,
                ]
            }
            // QEMU is ending already: it needs no word, only a limit.
            Ending::Leaving => {
                self.ending = Ending::Quitting;
                vec![Action::Arm(Timer::Quit, QUIT)]
            }
            Ending::Quitting | Ending::Killing | Ending::Over => Vec::new(),
        }
    }

    fn saved(&mut self) -> Vec<Action> {
        self.cause.saved = true;
        self.wish = Wish::Now;
        match self.ending {
            Ending::No | Ending::Asked => {
                self.ending = Ending::Quitting;
                vec![
                    Action::Quit,
                    Action::Arm(Timer::Quit, QUIT),
                    Action::Publish,
                ]
            }
            // It ends for another reason already, and is saved all the same.
            _ => Vec::new(),
        }
    }

    /// A start that failed. It may well be that QEMU has ended by itself, which is not seen yet.
    fn give_up(&mut self) -> Vec<Action> {
        if self.ending != Ending::No {
            return Vec::new();
        }
        self.ending = Ending::Quitting;
        vec![Action::Quit, Action::Arm(Timer::Quit, QUIT)]
    }

    fn kill(&mut self) -> Vec<Action> {
        self.ending = Ending::Killing;
        vec![Action::Kill, Action::Arm(Timer::Kill, KILL)]
    }

    fn timer(&mut self, timer: Timer) -> Vec<Action> {
        match (timer, self.ending) {
            (Timer::Nudge, Ending::Asked) => vec![self.ask(), Action::Arm(Timer::Nudge, NUDGE)],
            (Timer::Deadline, Ending::Asked | Ending::Leaving) if self.force => self.quit(),
            (Timer::Deadline, Ending::Asked) => {
                self.ending = Ending::No;
                self.signalled = false;
                self.wish = Wish::Late;
                vec![Action::StopFailed, Action::Publish]
            }
            (Timer::Deadline, Ending::Leaving) => vec![Action::StopFailed],
            (Timer::Quit, Ending::Quitting) | (Timer::Linger, Ending::Leaving) => self.kill(),
            (Timer::Kill, Ending::Killing) => vec![Action::Stuck],
            _ => Vec::new(),
        }
    }

    fn exited(&mut self, exit: Exit) -> Vec<Action> {
        let reason = self.reason(exit);
        self.ending = Ending::Over;
        vec![Action::Finish(reason)]
    }

    fn reason(&self, exit: Exit) -> Reason {
        if self.run == Run::Starting && !self.cause.killed {
            return Reason::StartFailed;
        }
        // It was complete when QEMU said so, whatever became of QEMU then.
        if self.cause.hibernated {
            return Reason::Hibernated;
        }
        if self.cause.saved {
            return Reason::Saved;
        }
        let killed = if self.cause.hook {
            Reason::HookFailed
        } else {
            Reason::Killed
        };
        match self.cause.shutdown {
            // Where the firmware has no hibernation (Arm), it looks like any other shutdown.
            Some(Reason::GuestShutdown) if self.hibernating => Reason::HibernationRequested,
            Some(Reason::Quit | Reason::HostSignal) if self.cause.killed => killed,
            Some(Reason::Quit) if self.cause.panicked => Reason::GuestPanic,
            Some(reason) => reason,
            None if self.cause.watchdog => Reason::Watchdog,
            None if self.cause.killed => killed,
            None if exit.signal.is_some() || exit.status.is_some_and(|code| code != 0) => {
                Reason::Crashed
            }
            None if self.cause.panicked => Reason::GuestPanic,
            None => Reason::Unknown,
        }
    }
}

/// QEMU's word (`ShutdownCause` of its schema) as ours.
pub(crate) fn shutdown_reason(word: &str) -> Reason {
    match word {
        "guest-shutdown" => Reason::GuestShutdown,
        "guest-reset" | "host-qmp-system-reset" => Reason::GuestReset,
        "guest-panic" => Reason::GuestPanic,
        "host-signal" => Reason::HostSignal,
        "host-qmp-quit" | "host-ui" => Reason::Quit,
        "host-error" => Reason::Crashed,
        _ => Reason::Unknown,
    }
}

#[cfg(test)]
mod tests;
