//! QEMU's events, as JSON that any subscriber may type on demand.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use crate::{QmpError, client::Handle, wire::Message};

/// The name of the event that stands for those a slow subscriber missed. Its data is `{"count": N}`.
pub const EVENTS_LOST: &str = "MVM_EVENTS_LOST";

/// Events kept for a subscriber that does not take them.
const BACKLOG: usize = 256;

/// When QEMU sent an event, in the host's wall-clock time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Timestamp {
    /// Seconds since 1970, -1 where QEMU could not tell.
    pub seconds: i64,
    /// Microseconds of that second, -1 where QEMU could not tell.
    pub microseconds: i64,
}

impl Timestamp {
    const UNKNOWN: Self = Self {
        seconds: -1,
        microseconds: -1,
    };

    pub(crate) fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            seconds: i64::try_from(since.as_secs()).unwrap_or(-1),
            microseconds: i64::from(since.subsec_micros()),
        }
    }

    /// The same as a [`SystemTime`], where QEMU could tell.
    #[must_use]
    pub fn time(&self) -> Option<SystemTime> {
        let seconds = u64::try_from(self.seconds).ok()?;
        let micros = u64::try_from(self.microseconds).ok()?;
        Some(UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros))
    }
}

/// One event, known to this crate's schema or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its name, such as `SHUTDOWN`.
    pub name: String,
    /// Its data, an empty object where QEMU sent none.
    pub data: Value,
    /// When QEMU sent it.
    pub timestamp: Timestamp,
}

impl Event {
    pub(crate) fn from_message(name: &str, message: &Message<'_>) -> Self {
        Self {
            name: name.to_owned(),
            data: message
                .data
                .and_then(|raw| serde_json::from_str(raw.get()).ok())
                .unwrap_or_else(|| Value::Object(Map::new())),
            timestamp: message
                .timestamp
                .and_then(|raw| serde_json::from_str(raw.get()).ok())
                .unwrap_or(Timestamp::UNKNOWN),
        }
    }

    fn lost(count: u64) -> Self {
        Self {
            name: EVENTS_LOST.to_owned(),
            data: json!({ "count": count }),
            timestamp: Timestamp::now(),
        }
    }

    /// Whether it is this typed event.
    #[must_use]
    pub fn is<E: qapi::Event>(&self) -> bool {
        self.name == E::NAME
    }

    /// Its data as a typed event, for instance `event.parse::<qapi::qmp::SHUTDOWN>()`.
    ///
    /// # Errors
    /// [`QmpError::Decode`] where the name is another, or QEMU's data has a value that the type lacks.
    pub fn parse<E: qapi::Event>(&self) -> Result<E, QmpError> {
        let typed = if self.is::<E>() {
            E::deserialize(&self.data)
        } else {
            Err(serde::de::Error::custom(format_args!(
                "expected the event {}",
                E::NAME
            )))
        };
        typed.map_err(|source| QmpError::Decode {
            command: self.name.clone(),
            raw: Box::new(self.data.clone()),
            source,
        })
    }
}

/// What one subscriber has not taken yet.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<QueueState>,
    filled: Notify,
}

#[derive(Default)]
struct QueueState {
    events: VecDeque<Event>,
    lost: u64,
    ended: bool,
}

impl Queue {
    fn push(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.events.len() == BACKLOG {
            state.events.pop_front();
            state.lost += 1;
        }
        state.events.push_back(event);
        drop(state);
        self.filled.notify_one();
    }

    fn end(&self) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ended = true;
        self.filled.notify_one();
    }

    /// `Some(None)` is the end.
    fn pop(&self) -> Option<Option<Event>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.lost > 0 {
            return Some(Some(Event::lost(std::mem::take(&mut state.lost))));
        }
        match state.events.pop_front() {
            Some(event) => Some(Some(event)),
            None if state.ended => Some(None),
            None => None,
        }
    }
}

/// Everyone who takes events.
#[derive(Default)]
pub(crate) struct Subscribers {
    queues: Vec<Weak<Queue>>,
    ended: bool,
}

impl Subscribers {
    pub(crate) fn add(&mut self) -> Arc<Queue> {
        let queue = Arc::new(Queue::default());
        if self.ended {
            queue.end();
        } else {
            self.queues.push(Arc::downgrade(&queue));
        }
        queue
    }

    pub(crate) fn deliver(&mut self, name: &str, message: &Message<'_>) {
        self.queues.retain(|queue| queue.strong_count() > 0);
        if self.queues.is_empty() {
            return;
        }
        let event = Event::from_message(name, message);
        for queue in self.queues.iter().filter_map(Weak::upgrade) {
            queue.push(event.clone());
        }
    }

    pub(crate) fn end(&mut self) {
        self.ended = true;
        for queue in self.queues.drain(..).filter_map(|queue| queue.upgrade()) {
            queue.end();
        }
    }
}

/// One subscriber's view of QEMU's events. It keeps the connection open, like a [`crate::Qmp`].
///
/// At most 256 events are kept for a subscriber that does not take them; the oldest give way, and
/// an event named [`EVENTS_LOST`] then stands in their place. No subscriber delays another.
pub struct Events {
    queue: Arc<Queue>,
    _connection: Arc<Handle>,
}

impl Events {
    pub(crate) fn new(queue: Arc<Queue>, connection: Arc<Handle>) -> Self {
        Self {
            queue,
            _connection: connection,
        }
    }

    /// The next event; `None` once QEMU has closed the connection. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.queue.pop() {
                return event;
            }
            self.queue.filled.notified().await;
        }
    }

    /// An event that is here already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.queue.pop().flatten()
    }

    /// Skips up to the next event of this name.
    ///
    /// # Errors
    /// [`QmpError::Timeout`] at the deadline, [`QmpError::Closed`] at the end of the connection.
    pub async fn wait_for(&mut self, name: &str, within: Duration) -> Result<Event, QmpError> {
        let search = async {
            while let Some(event) = self.next().await {
                if event.name == name {
                    return Ok(event);
                }
            }
            Err(QmpError::Closed)
        };
        match tokio::time::timeout(within, search).await {
            Ok(found) => found,
            Err(_) => Err(QmpError::Timeout {
                command: name.to_owned(),
                after: within,
            }),
        }
    }
}
