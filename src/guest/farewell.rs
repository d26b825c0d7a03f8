//! The last word to a guest's clients, once everything is cleaned up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::control::{self, View};
use super::feed::Feed;
use super::notify;
use super::state::{Condition, Ended, GuestState};

/// For clients to take the last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The last word to clients.
pub(crate) struct Farewell {
    pub(super) view: watch::Sender<View>,
    pub(super) feed: Feed,
    pub(super) requests: Arc<Semaphore>,
    pub(super) tasks: JoinSet<()>,
    pub(super) consoles: JoinSet<()>,
}

impl Farewell {
    /// What was said of the guest last.
    pub(super) fn state(&self) -> GuestState {
        self.view.borrow().state.clone()
    }

    /// Tells how it ended and what it is then, and gives those who wait a moment to take it.
    pub(crate) async fn say(mut self, ended: &Ended, then: Condition) {
        if then == Condition::Stopped {
            notify::stopping(ended.reason.as_str());
        }
        self.view.send_modify(|view| {
            view.state.state = then;
            view.state.pid = None;
            view.ended = Some(ended.clone());
        });
        self.feed.ended(ended, then);
        // Whoever does not take it in time has had their chance.
        let _ = timeout(LAST_ANSWERS, self.requests.acquire_many(control::CLIENTS)).await;
        self.requests.close();
        // These end by themselves once QEMU is gone and its last words are delivered.
        let consoles = async { while self.consoles.join_next().await.is_some() {} };
        let _ = timeout(LAST_ANSWERS, consoles).await;
        self.tasks.shutdown().await;
    }
}
