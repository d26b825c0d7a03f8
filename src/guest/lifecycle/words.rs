//! What goes into a guest's life and what comes out of it.

use std::time::Duration;

use super::super::process::Exit;
use super::super::state::{Condition, Reason};

/// What happens to a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// QEMU answers QMP and the guest was let go.
    Ready,
    /// QEMU says so.
    Qemu(News),
    /// The guest agent answers, or does no more.
    Agent(bool),
    /// The agent was asked to shut the guest down and could not.
    AgentFailed,
    /// The guest was asked to hibernate, or is no more expected to.
    Hibernate(bool),
    /// It was paused in place of a sleep.
    Held,
    /// It is held to be saved, after it did that; or is no more.
    Saving(Option<Condition>),
    /// It is saved, and its mark says so: QEMU is needed no more.
    Saved,
    /// A user wants the guest to shut down.
    Stop {
        /// How long it may take.
        timeout: Duration,
        /// Whether it is ended then.
        force: bool,
    },
    /// A user wants it gone.
    Kill,
    /// A program of the user's that must not fail has failed.
    HookFailed(String),
    /// SIGTERM or SIGINT came to the supervisor.
    Signal {
        /// The profile's time for a graceful stop.
        timeout: Duration,
    },
    /// A timer ran out.
    Timer(Timer),
    /// QEMU closed its monitor.
    MonitorClosed,
    /// QEMU does not answer, or refuses to let the guest go.
    ConnectFailed,
    /// QEMU is gone.
    Exited(Exit),
}

/// QEMU's events that change something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// `STOP`.
    Stopped,
    /// `RESUME`.
    Resumed,
    /// `SUSPEND`.
    Suspended,
    /// `SUSPEND_DISK`: it has written its memory to its disk, and goes off.
    Hibernated,
    /// `WAKEUP`.
    WokeUp,
    /// `SHUTDOWN` with its reason, such as `guest-shutdown`.
    Shutdown(String),
    /// `RESET`.
    Reset,
    /// `GUEST_PANICKED`.
    Panicked,
    /// `WATCHDOG` with an action that ends QEMU.
    WatchdogPoweroff,
}

/// The timers. Arming one that runs sets it anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Ask the guest again.
    Nudge,
    /// The guest had its time to shut down.
    Deadline,
    /// QEMU had its time to quit.
    Quit,
    /// The kernel had its time to end QEMU.
    Kill,
    /// QEMU had its time after the guest's end.
    Linger,
}

/// What the supervisor must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// The guest is ready: tell whoever waits for it.
    TellReady,
    /// The state has changed: write it down and tell.
    Publish,
    /// Ask the guest to shut down.
    Ask {
        /// Continue it first: a paused guest cannot.
        resume: bool,
        /// Through the agent, else by the power button.
        agent: bool,
    },
    /// Wake the guest from its sleep.
    Wake,
    /// It was away: its clock is to be set.
    SetClock,
    /// It goes on from where it hibernated, or was started anew: the mark of its hibernation is old.
    ForgetHibernation,
    /// Tell QEMU to quit.
    Quit,
    /// SIGKILL.
    Kill,
    /// Start a timer.
    Arm(Timer, Duration),
    /// The guest did not shut down in time and is left running.
    StopFailed,
    /// SIGKILL did not end QEMU.
    Stuck,
    /// QEMU is gone: clean up.
    Finish(Reason),
}
