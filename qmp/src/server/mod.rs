//! A QMP server: any number of clients on one QEMU.

mod client;
mod command;
mod fdnames;
mod framer;
mod hook;
mod outbox;
mod request;
mod serve;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{UnixListener, UnixStream},
    task::JoinSet,
};

use self::client::Client;
pub use self::{
    hook::{Answer, ClientCommand, Hook, Verdict},
    request::Refusal,
};
use crate::{Qmp, client::Handle, sock::Socket};

/// What clients may use up.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Clients at once; more are hung up on.
    pub clients: usize,
    /// Bytes of one request, and of the requests that wait for their turn. A client that goes
    /// beyond the former is hung up on, at the latter it is not read any further. More than 2 MiB
    /// count as 2 MiB: QEMU cuts a message off after two million tokens.
    pub request: usize,
    /// Bytes that a client has not read yet, beyond which it gets no more events until it has read
    /// them all. What it missed is then told as one event named [`crate::EVENTS_LOST`].
    pub unread_events: usize,
    /// A client that reads nothing for as long as this, while there is something to read, is hung
    /// up on.
    pub stalled: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 100,
            request: 1 << 20,
            unread_events: 64 << 10,
            stalled: Duration::from_secs(300),
        }
    }
}

/// Shares one QEMU among any number of clients, each of which sees ordinary QMP.
///
/// - A client gets QEMU's greeting and must negotiate. It may enable `oob` where QEMU offers it.
/// - Ids are echoed to the letter and need not differ from other clients'. In-band replies come in
///   the order of the commands; the clients take turns.
/// - Out-of-band commands overtake all others: at most seven in-band ones are at QEMU at a time,
///   because it reads no further after eight.
/// - Every negotiated client gets all events.
/// - `getfd` and `add-fd` take the descriptor that came with them; names given by `getfd` are each
///   client's own and end with its connection, other than at QEMU itself.
/// - A client that does not read holds up nobody: its own next command waits, events beyond
///   [`Limits::unread_events`] are dropped for it and counted, and after [`Limits::stalled`] it is
///   hung up on.
/// - Commands that would have QEMU run a program (`exec:` in migration) are refused.
/// - A client that ends its side of the connection still gets the replies it asked for.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    handle: Arc<Handle>,
    limits: Limits,
    hook: Box<dyn Hook>,
    clients: Mutex<Vec<Weak<Client>>>,
    last_number: AtomicU64,
}

impl Shared {
    fn clients(&self) -> MutexGuard<'_, Vec<Weak<Client>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An event, or the end of QEMU.
    fn told(&self, line: Option<&[u8]>) {
        let clients = self.clients();
        match line {
            Some(line) => {
                let line = [line, b"\r\n"].concat();
                clients
                    .iter()
                    .filter_map(Weak::upgrade)
                    .for_each(|client| client.event(&line));
            }
            None => clients
                .iter()
                .filter_map(Weak::upgrade)
                .for_each(|client| client.end()),
        }
    }
}

impl Server {
    /// A server on this connection, which the embedding program goes on using as before.
    #[must_use]
    pub fn new(qmp: &Qmp) -> Self {
        Self::with(qmp, Limits::default(), hook::Forward)
    }

    /// The same with other limits and with a say in the clients' commands.
    #[must_use]
    pub fn with(qmp: &Qmp, mut limits: Limits, hook: impl Hook) -> Self {
        limits.request = limits.request.min(2 << 20);
        let shared = Arc::new(Shared {
            handle: Arc::clone(&qmp.handle),
            limits,
            hook: Box::new(hook),
            clients: Mutex::default(),
            last_number: AtomicU64::new(0),
        });
        let weak = Arc::downgrade(&shared);
        qmp.handle.core.tap(Arc::new(move |line| {
            if let Some(shared) = weak.upgrade() {
                shared.told(line);
            }
        }));
        Self { shared }
    }

    /// Serves whoever connects. Returns when QEMU has gone and the clients have been told.
    ///
    /// Dropping the future hangs up on all of them. The listener's file is its maker's to remove.
    pub async fn serve(&self, listener: UnixListener) {
        let mut tasks = JoinSet::new();
        let mut closed = self.shared.handle.core.closed();
        let mut gone = std::pin::pin!(async move {
            let _ = closed.wait_for(|closed| *closed).await;
        });
        loop {
            tokio::select! {
                () = &mut gone => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) if tasks.len() < self.shared.limits.clients => {
                        let server = self.clone();
                        tasks.spawn(async move { server.serve_one(stream).await });
                    }
                    Ok(_) => tracing::warn!(clients = tasks.len(), "too many QMP clients: hung up on one"),
                    // Out of descriptors, most likely: others may give some back.
                    Err(e) => {
                        tracing::warn!("cannot accept a QMP client: {e}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = tasks.join_next() => {}
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Serves one client that is connected already, up to its end.
    pub async fn serve_one(&self, stream: UnixStream) {
        let number = self.shared.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        let socket = match Socket::new(stream) {
            Ok(socket) => socket,
            Err(e) => return tracing::warn!("cannot serve a QMP client: {e}"),
        };
        let client = Arc::new(Client::new(number, socket, Arc::clone(&self.shared)));
        self.shared.clients().push(Arc::downgrade(&client));
        let _served = Served {
            shared: &self.shared,
            client: &client,
        };
        if *self.shared.handle.core.closed().borrow() {
            client.end();
        }
        serve::serve(&client, &self.shared.limits).await;
    }

    /// How many clients are connected.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.shared.clients().len()
    }
}

/// Takes the client off the list, however its task ends.
struct Served<'a> {
    shared: &'a Shared,
    client: &'a Arc<Client>,
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        let gone = Arc::downgrade(self.client);
        self.shared.clients().retain(|client| !client.ptr_eq(&gone));
        self.client.hang_up();
    }
}
