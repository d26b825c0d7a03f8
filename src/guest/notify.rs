//! Word to the service manager, where there is one (`NOTIFY_SOCKET`).

use std::future::pending;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Instant, sleep_until};

/// What the manager grants while the host gets its devices back: the loop that pings has ended then, and what is
/// done has deadlines of its own.
const GIVING_BACK: Duration = Duration::from_secs(600);

/// The guest is ready.
pub(crate) fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// What the guest does.
pub(crate) fn status(status: &str) {
    send(&[NotifyState::Status(status)]);
}

/// The supervisor is about to end.
pub(crate) fn stopping(status: &str) {
    send(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// The ping of the manager's watchdog, which comes from the supervisor's loop and from nowhere else: who is stuck
/// is ended, and its successor adopts the guest.
pub(crate) struct Pulse {
    /// Its limit, and when the next ping is due.
    running: Option<(Duration, Instant)>,
}

impl Pulse {
    /// Begins, where the manager wants it.
    pub(crate) fn begin() -> Self {
        let limit = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
        if let Some(limit) = limit {
            // A life before may have left another.
            send(&[watchdog_limit(limit)]);
        }
        Self {
            running: limit.map(|limit| (limit, Instant::now())),
        }
    }

    /// Waits until a ping is due; for ever where none is wanted.
    pub(crate) async fn due(&self) {
        match self.running {
            Some((_, at)) => sleep_until(at).await,
            None => pending().await,
        }
    }

    /// Pings.
    pub(crate) fn beat(&mut self) {
        if let Some((limit, at)) = &mut self.running {
            send(&[NotifyState::Watchdog]);
            // Two may be lost.
            *at = Instant::now() + *limit / 3;
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        if self.running.is_some() {
            send(&[watchdog_limit(GIVING_BACK), NotifyState::Watchdog]);
        }
    }
}

fn watchdog_limit(limit: Duration) -> NotifyState<'static> {
    NotifyState::WatchdogUsec(u32::try_from(limit.as_micros()).unwrap_or(u32::MAX))
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot tell the service manager");
    }
}
