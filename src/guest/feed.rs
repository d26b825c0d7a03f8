//! What happens to a guest, for whoever wants to follow it (the verb `watch`).
//!
//! One channel for QEMU's events and what they come to, so that each is told in its order. It holds so
//! many; who is slower than that is told how many he has missed, and what the state is by then.

use std::sync::Arc;

use mvm_qmp::Event;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::state::{Condition, Ended, GuestState};

/// What is kept for one who does not take it.
const BACKLOG: usize = 512;

/// The way in.
#[derive(Debug, Clone)]
pub(crate) struct Feed(broadcast::Sender<Arc<Item>>);

/// One thing that happened.
#[derive(Debug)]
pub(crate) struct Item {
    /// As it is told.
    pub(crate) value: Value,
    /// Whether nothing comes after it.
    pub(crate) last: bool,
}

impl Default for Feed {
    fn default() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }
}

impl Feed {
    /// What happens from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<Item>> {
        self.0.subscribe()
    }

    /// The state has changed.
    pub(crate) fn state(&self, state: &GuestState) {
        self.push(of_state(state), false);
    }

    /// QEMU said so.
    pub(crate) fn event(&self, event: &Event) {
        self.push(of_event(event), false);
    }

    /// The guest has ended; `then` is what it is now.
    pub(crate) fn ended(&self, ended: &Ended, then: Condition) {
        let value = json!({ "ended": ended, "state": then });
        self.push(value, true);
    }

    /// Nothing more comes from here.
    pub(crate) fn end(&self) {
        self.push(json!({}), true);
    }

    fn push(&self, value: Value, last: bool) {
        // It fails when nobody listens.
        let _ = self.0.send(Arc::new(Item { value, last }));
    }
}

/// A state as it is told.
pub(crate) fn of_state(state: &GuestState) -> Value {
    json!({ "state": {
        "state": state.state,
        "since": state.since,
        "agent": state.agent,
        "message": state.message,
        "next-start": state.next_start,
    } })
}

fn of_event(event: &Event) -> Value {
    let mut value = json!({ "event": event.name, "data": event.data });
    if let Some(time) = event.timestamp.time() {
        let since = time.duration_since(std::time::UNIX_EPOCH);
        value["time"] = json!(since.unwrap_or_default().as_secs_f64());
    }
    value
}
