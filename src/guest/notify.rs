//! Word to the service manager, where there is one (`NOTIFY_SOCKET`).

use sd_notify::NotifyState;

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

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot tell the service manager");
    }
}
