//! The state of one connection: who waits for which reply, and what may be sent now.
//!
//! Nothing here waits. A request is written at once where the socket takes it; what it does not
//! take, the writer task writes later. A caller that goes away can therefore never leave half a
//! line behind. The same state serves our own calls and those of the [server](crate::Server)'s
//! clients, because QEMU's limits count them together.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::value::RawValue;
use tokio::sync::{Notify, oneshot, watch};

use crate::{
    events::Subscribers,
    sock::Socket,
    wire::{self, ErrorBody, Message, Outcome},
};

/// QEMU reads a monitor up to 8 in-band commands ahead and then no further, not even an
/// out-of-band command. One less than that keeps the way free.
const MAX_AT_QEMU: usize = 7;

/// What a call of our own gets.
pub(crate) type Reply = Result<Box<RawValue>, ErrorBody>;
/// Takes a reply while it is still in the read buffer; `None` at the end of the connection.
pub(crate) type Relay = Box<dyn FnOnce(Option<Outcome<'_>>) + Send>;
/// Takes each event's line; `None` at the end of the connection.
pub(crate) type Tap = Arc<dyn Fn(Option<&[u8]>) + Send + Sync>;

/// Where a reply goes.
pub(crate) enum Sink {
    Call(oneshot::Sender<Reply>),
    Relay(Relay),
    /// Nobody waits any more.
    Abandoned,
}

impl Sink {
    fn complete(self, outcome: Option<Outcome<'_>>) {
        match (self, outcome) {
            (Self::Relay(relay), outcome) => relay(outcome),
            (Self::Call(caller), Some(outcome)) => {
                // The caller may have gone since.
                let _ = caller.send(match outcome {
                    Outcome::Return(value) => Ok(value.to_owned()),
                    Outcome::Error(body) => Err(wire::error_body(body)),
                });
            }
            // Dropping the sender tells the caller.
            (Self::Call(_), None) | (Self::Abandoned, _) => {}
        }
    }
}

/// A command on its way.
pub(crate) struct Request {
    id: u64,
    /// As [`wire::open_request`] made it.
    line: Vec<u8>,
    fds: Vec<OwnedFd>,
    oob: bool,
    sink: Sink,
}

/// A command that QEMU has, or will have once the socket takes it.
struct Sent {
    id: u64,
    in_band: bool,
    /// It was sent without its id.
    nameless: bool,
    with_fds: bool,
    sink: Sink,
}

/// Bytes that the socket has not taken yet.
struct Unsent {
    bytes: Vec<u8>,
    done: usize,
    fds: Vec<OwnedFd>,
}

#[derive(Default)]
struct State {
    last_id: u64,
    sent: Vec<Sent>,
    in_band: usize,
    fds_out: bool,
    waiting: VecDeque<Request>,
    unsent: VecDeque<Unsent>,
    subscribers: Subscribers,
    taps: Arc<Vec<Tap>>,
    junk: u64,
    closed: bool,
}

impl State {
    /// Which of the sent commands this is the reply to.
    fn answered(&self, message: &Message<'_>) -> Option<usize> {
        if let Some(id) = message.id.filter(|id| id.get() != "null") {
            let id = id.get().parse::<u64>().ok()?;
            return self
                .sent
                .iter()
                .position(|sent| sent.id == id && !sent.nameless);
        }
        let nameless = self.sent.iter().position(|sent| sent.nameless);
        if nameless.is_some() {
            return nameless;
        }
        // What QEMU's JSON parser refuses and ours lets pass (two members of one name, code points
        // that are no characters) is answered without an id, but in its turn: the turn of the
        // oldest in-band command.
        message.error?;
        let in_band = self
            .sent
            .iter()
            .enumerate()
            .filter(|(_, sent)| sent.in_band);
        in_band.min_by_key(|(_, sent)| sent.id).map(|(at, _)| at)
    }
}

pub(crate) struct Core {
    socket: Arc<Socket>,
    state: Mutex<State>,
    has_unsent: Notify,
    closed: watch::Sender<bool>,
}

impl Core {
    pub(crate) fn new(socket: Arc<Socket>) -> Self {
        Self {
            socket,
            state: Mutex::default(),
            has_unsent: Notify::new(),
            closed: watch::Sender::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a command, now or when QEMU has room for it, and returns its id.
    pub(crate) fn submit(
        &self,
        name: &str,
        arguments: Option<&str>,
        oob: bool,
        fds: Vec<OwnedFd>,
        sink: Sink,
    ) -> u64 {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            sink.complete(None);
            return 0;
        }
        state.last_id += 1;
        let id = state.last_id;
        let request = Request {
            id,
            line: wire::open_request(name, arguments, oob),
            fds,
            oob,
            sink,
        };
        if oob {
            self.send(&mut state, request);
        } else {
            state.waiting.push_back(request);
            self.send_waiting(&mut state);
        }
        id
    }

    /// Sends what QEMU has room for.
    fn send_waiting(&self, state: &mut State) {
        while state.in_band < MAX_AT_QEMU {
            // A second batch of descriptors would replace the first before its command runs.
            let held = |request: &Request| state.fds_out && !request.fds.is_empty();
            if state.waiting.front().is_none_or(held) {
                return;
            }
            if let Some(request) = state.waiting.pop_front() {
                self.send(state, request);
            }
        }
    }

    fn send(&self, state: &mut State, request: Request) {
        let Request {
            id,
            line,
            fds,
            oob,
            sink,
        } = request;
        let with_fds = !fds.is_empty();
        // QEMU reads a monitor byte by byte, at some microseconds each: an id nobody needs is
        // left out. Replies to in-band commands come in order, so while one command goes
        // without, it can only be the first.
        let nameless = !oob && state.in_band == 0;
        let bytes = wire::close_request(line, (!nameless).then_some(id));
        state.sent.push(Sent {
            id,
            in_band: !oob,
            nameless,
            with_fds,
            sink,
        });
        state.in_band += usize::from(!oob);
        state.fds_out |= with_fds;
        state.unsent.push_back(Unsent {
            bytes,
            done: 0,
            fds,
        });
        if state.unsent.len() > 1 || !self.flush(state) {
            self.has_unsent.notify_one();
        }
    }

    /// Writes what the socket takes; whether that was all.
    fn flush(&self, state: &mut State) -> bool {
        while let Some(next) = state.unsent.front_mut() {
            match self.socket.try_send(&next.bytes[next.done..], &next.fds) {
                Ok(n) => {
                    next.fds.clear();
                    next.done += n;
                    if next.done == next.bytes.len() {
                        state.unsent.pop_front();
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // The reader sees the end too, after the replies that QEMU still sent.
                Err(e) => {
                    tracing::debug!("cannot write to QEMU: {e}");
                    state.unsent.clear();
                }
            }
        }
        true
    }

    /// The writer task: writes what could not be written at once.
    pub(crate) async fn write_unsent(self: Arc<Self>) {
        loop {
            self.has_unsent.notified().await;
            while !self.flush(&mut self.lock()) {
                self.socket.writable().await;
            }
        }
    }

    /// The caller of this command has gone. Its reply is dropped when it comes; if it was not sent, it never is.
    pub(crate) fn abandon(&self, id: u64) {
        if !self.withdraw(id) {
            let mut state = self.lock();
            if let Some(sent) = state.sent.iter_mut().find(|sent| sent.id == id) {
                sent.sink = Sink::Abandoned;
            }
        }
    }

    /// Takes a command back if it was not sent yet; whether that was so.
    pub(crate) fn withdraw(&self, id: u64) -> bool {
        let mut state = self.lock();
        let at = state.waiting.iter().position(|request| request.id == id);
        at.and_then(|at| state.waiting.remove(at)).is_some()
    }

    /// One line from QEMU.
    pub(crate) fn receive(&self, line: &[u8]) {
        let Ok(message) = serde_json::from_slice::<Message<'_>>(line) else {
            return self.junk(line);
        };
        if let Some(name) = &message.event {
            let mut state = self.lock();
            state.subscribers.deliver(name, &message);
            let taps = Arc::clone(&state.taps);
            drop(state);
            for tap in taps.iter() {
                tap(Some(line));
            }
            return;
        }
        let outcome = match (message.ret, message.error) {
            (Some(value), None) => Outcome::Return(value),
            (None, Some(body)) => Outcome::Error(body),
            _ => return self.junk(line),
        };
        let mut state = self.lock();
        let Some(at) = state.answered(&message) else {
            drop(state);
            return self.junk(line);
        };
        let sent = state.sent.swap_remove(at);
        state.in_band -= usize::from(sent.in_band);
        state.fds_out &= !sent.with_fds;
        self.send_waiting(&mut state);
        drop(state);
        sent.sink.complete(Some(outcome));
    }

    /// Something that is no QMP message: counted, told, and passed over.
    pub(crate) fn junk(&self, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        let mut state = self.lock();
        state.junk += 1;
        let count = state.junk;
        drop(state);
        // A peer that talks nothing but junk must not fill the log as well.
        if count.is_power_of_two() {
            tracing::warn!(
                count,
                "QEMU said something that is not QMP: {:?}",
                wire::excerpt(line)
            );
        }
    }

    /// The end of the connection: everyone who waits is told.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.subscribers.end();
        let sent = std::mem::take(&mut state.sent);
        let waiting = std::mem::take(&mut state.waiting);
        state.unsent.clear();
        let taps = std::mem::take(&mut state.taps);
        drop(state);
        for sink in sent
            .into_iter()
            .map(|sent| sent.sink)
            .chain(waiting.into_iter().map(|r| r.sink))
        {
            sink.complete(None);
        }
        for tap in taps.iter() {
            tap(None);
        }
        self.closed.send_replace(true);
    }

    pub(crate) fn closed(&self) -> watch::Receiver<bool> {
        self.closed.subscribe()
    }

    pub(crate) fn subscribe(&self) -> Arc<crate::events::Queue> {
        self.lock().subscribers.add()
    }

    /// From now on, this is told every event and the end; at once, if that has been.
    pub(crate) fn tap(&self, tap: Tap) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            tap(None);
        } else {
            Arc::make_mut(&mut state.taps).push(tap);
        }
    }

    pub(crate) fn junk_lines(&self) -> u64 {
        self.lock().junk
    }
}
