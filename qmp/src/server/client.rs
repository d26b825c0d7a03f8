//! One client of the server: its commands in their order, its replies, its share of the events.
//!
//! Nothing here waits. The client's own task (see [`super::serve`]) reads, and writes what could
//! not be written at once; replies and events are written from QEMU's reader task directly.
//!
//! A client has at most one in-band command at QEMU. That keeps its replies in order whatever is
//! answered here instead, lets the clients take turns, and bounds what a client that does not read
//! can pile up: its next command starts only once it has taken most of what it was told before.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::json;
use tokio::sync::Notify;

use super::{
    Shared,
    command::Command,
    fdnames::{self, Kind, Names},
    outbox::Outbox,
    request::{self, Refusal},
};
use crate::{EVENTS_LOST, Timestamp, client::core::Sink, sock::Socket};

/// Commands read ahead of their turn.
const MAX_QUEUE: usize = 128;
/// Out-of-band commands at QEMU.
const MAX_OOB: usize = 8;
/// With more than this to take, a client gets no further replies to ask for.
const MAX_UNREAD: usize = 64 << 10;

/// A command, or the answer to what was none, in the order of arrival.
enum Item {
    Command(Command),
    Answer(Vec<u8>),
}

pub(super) struct State {
    pub(super) negotiated: bool,
    pub(super) oob: bool,
    queue: VecDeque<Item>,
    /// Bytes of the commands in the queue.
    queued: usize,
    /// An in-band command is on its way, at QEMU under this id unless it is 0.
    pub(super) busy: Option<u64>,
    oob_busy: usize,
    outbox: Outbox,
    /// Events that this client missed since it last kept up.
    lost: u64,
    /// The client's task waits for room before it reads on.
    held: bool,
    /// The client will send nothing more.
    no_input: bool,
    /// QEMU is gone: whatever is to be written still is, then it is over.
    ending: bool,
    /// The client is gone.
    pub(super) gone: bool,
    pub(super) names: Names,
}

/// What the client's task has to do.
pub(super) struct Wants {
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) ending: bool,
    pub(super) over: bool,
    pub(super) sent: u64,
}

pub(super) struct Client {
    pub(super) number: u64,
    pub(super) socket: Socket,
    pub(super) changed: Notify,
    state: Mutex<State>,
    pub(super) server: Arc<Shared>,
}

impl Client {
    pub(super) fn new(number: u64, socket: Socket, server: Arc<Shared>) -> Self {
        let state = State {
            negotiated: false,
            oob: false,
            queue: VecDeque::new(),
            queued: 0,
            busy: None,
            oob_busy: 0,
            outbox: Outbox::default(),
            lost: 0,
            held: false,
            no_input: false,
            ending: false,
            gone: false,
            names: Names::new(number),
        };
        Self {
            number,
            socket,
            changed: Notify::new(),
            state: Mutex::new(state),
            server,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wants(&self) -> Wants {
        let mut state = self.lock();
        state.held = state.queue.len() >= MAX_QUEUE
            || state.queued > self.server.limits.request
            || state.oob_busy >= MAX_OOB
            || state.outbox.bytes() > MAX_UNREAD;
        let write = state.outbox.bytes() > 0;
        let idle = state.queue.is_empty() && state.busy.is_none() && state.oob_busy == 0;
        Wants {
            read: !state.no_input && !state.ending && !state.held,
            write,
            ending: state.ending,
            over: state.gone || (!write && (state.ending || (state.no_input && idle))),
            sent: state.outbox.sent(),
        }
    }

    /// Writes to the client, or keeps it for later.
    fn tell(&self, state: &mut State, line: &[u8]) {
        if state.gone {
            return;
        }
        let waiting = state.outbox.bytes() > 0;
        let written = state.outbox.push(&self.socket, line);
        self.check(state, written);
        if !waiting && state.outbox.bytes() > 0 {
            self.changed.notify_one();
        }
    }

    fn check(&self, state: &mut State, written: io::Result<()>) {
        if let Err(e) = written {
            tracing::debug!(client = self.number, "cannot write to a QMP client: {e}");
            self.drop_out(state);
        }
    }

    fn drop_out(&self, state: &mut State) {
        state.gone = true;
        state.outbox.clear();
        state.queue.clear();
        self.changed.notify_one();
    }

    pub(super) fn greet(&self) {
        let mut line = self.server.handle.greeting.line.clone();
        line.push_str("\r\n");
        self.tell(&mut self.lock(), line.as_bytes());
    }

    /// The socket can take more.
    pub(super) fn flush(self: &Arc<Self>) {
        let mut state = self.lock();
        let written = state.outbox.flush(&self.socket);
        self.check(&mut state, written);
        if state.outbox.bytes() == 0 && state.lost > 0 {
            let count = std::mem::take(&mut state.lost);
            let Timestamp {
                seconds,
                microseconds,
            } = Timestamp::now();
            let event = json!({
                "timestamp": { "seconds": seconds, "microseconds": microseconds },
                "event": EVENTS_LOST,
                "data": { "count": count },
            });
            self.tell(&mut state, format!("{event}\r\n").as_bytes());
        }
        drop(state);
        self.advance();
    }

    /// An event, with its line's end.
    pub(super) fn event(&self, line: &[u8]) {
        let mut state = self.lock();
        if !state.negotiated || state.gone {
            return;
        }
        if state.lost > 0 || state.outbox.bytes() + line.len() > self.server.limits.unread_events {
            state.lost += 1;
        } else {
            self.tell(&mut state, line);
        }
    }

    /// QEMU has gone.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.ending = true;
        state.queue.clear();
        self.changed.notify_one();
    }

    /// The client has said all it will.
    pub(super) fn end_of_input(&self) {
        self.lock().no_input = true;
    }

    /// Something that is no message.
    pub(super) fn junk(self: &Arc<Self>) {
        let refusal = Refusal::generic("JSON parse error, expecting a QMP request");
        self.enqueue(Item::Answer(request::reply("error", &refusal.json(), None)));
    }

    /// A message. `fd` gives the descriptor that came with it, if the command takes one.
    pub(super) fn message(self: &Arc<Self>, text: &[u8], fd: impl FnOnce() -> Option<OwnedFd>) {
        let (id, call) = request::parse(text);
        let call = match call {
            Ok(call) if call.oob && !self.lock().oob => Err(Refusal::generic(
                "QMP input member 'exec-oob' is unexpected",
            )),
            call => call,
        };
        match call {
            Ok(call) => {
                let takes_fd = matches!(fdnames::kind(&call.name), Kind::Get | Kind::Add);
                let fds = if takes_fd {
                    fd().into_iter().collect()
                } else {
                    Vec::new()
                };
                let command = Command { call, id, fds };
                if command.call.oob {
                    self.lock().oob_busy += 1;
                    self.run(command);
                } else {
                    self.enqueue(Item::Command(command));
                }
            }
            Err(refusal) => {
                let line = request::reply("error", &refusal.json(), id.as_deref());
                self.enqueue(Item::Answer(line));
            }
        }
    }

    fn enqueue(self: &Arc<Self>, item: Item) {
        let mut state = self.lock();
        state.queued += item.bytes();
        state.queue.push_back(item);
        drop(state);
        self.advance();
    }

    /// Starts the next in-band command, if its turn has come.
    pub(super) fn advance(self: &Arc<Self>) {
        loop {
            let mut state = self.lock();
            if state.busy.is_some() || state.gone || state.outbox.bytes() > MAX_UNREAD {
                return;
            }
            let item = state.queue.pop_front();
            if state.held || (state.no_input && item.is_none()) {
                self.changed.notify_one();
            }
            let Some(item) = item else { return };
            state.queued -= item.bytes();
            match item {
                Item::Answer(line) => self.tell(&mut state, &line),
                Item::Command(command) => {
                    state.busy = Some(0);
                    drop(state);
                    self.run(command);
                }
            }
        }
    }

    pub(super) fn finish(&self, oob: bool, line: &[u8], then: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        if oob {
            state.oob_busy -= 1;
            if state.held || state.no_input {
                self.changed.notify_one();
            }
        } else {
            state.busy = None;
        }
        then(&mut state);
        self.tell(&mut state, line);
    }

    /// Gives up for good: nothing is written any more, what waits for QEMU never gets there, and
    /// QEMU closes the descriptors that this client left with it.
    pub(super) fn hang_up(&self) {
        let mut state = self.lock();
        self.drop_out(&mut state);
        let busy = state.busy.take();
        drop(state);
        if let Some(id) = busy {
            self.server.handle.core.withdraw(id);
        }
        self.close_names();
    }

    pub(super) fn close_names(&self) {
        let left: Vec<String> = self.lock().names.left().collect();
        for name in left {
            let arguments = json!({ "fdname": name }).to_string();
            let core = &self.server.handle.core;
            core.submit(
                "closefd",
                Some(&arguments),
                false,
                Vec::new(),
                Sink::Abandoned,
            );
        }
    }
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Command(command) => command.call.arguments.as_deref().map_or(0, str::len),
            Self::Answer(line) => line.len(),
        }
    }
}
