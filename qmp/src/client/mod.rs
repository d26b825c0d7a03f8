//! The QMP client.

pub(crate) mod core;
mod greet;

use std::{os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use tokio::{net::UnixStream, sync::oneshot, task::AbortHandle, time::Instant};

use self::core::{Core, Reply, Sink};
pub use self::greet::{Greeting, negotiate_and_leave};
use crate::{
    QmpError,
    events::Events,
    sock::Socket,
    wire::{self, ErrorBody, Lines},
};

/// What keeps a connection open: its tasks end with the last of these.
pub(crate) struct Handle {
    pub(crate) core: Arc<Core>,
    pub(crate) greeting: Greeting,
    tasks: [AbortHandle; 2],
}

impl Drop for Handle {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A handle on a QMP connection. Clones are cheap and share the connection, which ends with the
/// last `Qmp` or [`Events`] that uses it.
#[derive(Clone)]
pub struct Qmp {
    pub(crate) handle: Arc<Handle>,
    deadline: Duration,
}

impl Qmp {
    /// Connects to QEMU's monitor and negotiates, with out-of-band commands where QEMU offers them.
    ///
    /// The path may be longer than a socket address holds. `deadline` limits all of this together,
    /// and is then the limit of each later call, which [`Qmp::with_deadline`] and
    /// [`Qmp::call_within`] change.
    ///
    /// # Errors
    /// [`QmpError::Connect`], [`QmpError::NoGreeting`], [`QmpError::NotQmp`], or what the
    /// negotiation says.
    pub async fn connect(path: &Path, deadline: Duration) -> Result<(Self, Events), QmpError> {
        let start = Instant::now();
        let stream = greet::connect(path, deadline).await?;
        let left = deadline.saturating_sub(start.elapsed());
        let (qmp, events) = Self::from_stream(stream, left).await?;
        Ok((qmp.with_deadline(deadline), events))
    }

    /// The same on a socket that is connected already.
    ///
    /// # Errors
    /// As [`Qmp::connect`].
    pub async fn from_stream(
        stream: UnixStream,
        deadline: Duration,
    ) -> Result<(Self, Events), QmpError> {
        let start = Instant::now();
        let mut lines = Lines::default();
        let greeting = greet::greet(&stream, &mut lines, deadline).await?;
        let left = deadline.saturating_sub(start.elapsed());
        greet::negotiate(&stream, &mut lines, greeting.has_oob(), left).await?;
        let socket = Arc::new(Socket::new(stream)?);
        let core = Arc::new(Core::new(Arc::clone(&socket)));
        let queue = core.subscribe();
        let tasks = [
            tokio::spawn(read_all(Arc::clone(&core), socket, lines)).abort_handle(),
            tokio::spawn(Arc::clone(&core).write_unsent()).abort_handle(),
        ];
        let handle = Arc::new(Handle {
            core,
            greeting,
            tasks,
        });
        let events = Events::new(queue, Arc::clone(&handle));
        let qmp = Self { handle, deadline };
        Ok((qmp, events))
    }

    /// The same connection with another limit for each call.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// What QEMU said first.
    #[must_use]
    pub fn greeting(&self) -> &Greeting {
        &self.handle.greeting
    }

    /// Calls a command by name.
    ///
    /// The future can be dropped at any time: a command that was not sent yet never is, the reply
    /// to one that was is dropped when it comes.
    ///
    /// # Errors
    /// [`QmpError::Command`] when QEMU refuses, [`QmpError::Timeout`] at this handle's deadline,
    /// [`QmpError::Closed`] when QEMU goes away.
    pub async fn call(&self, name: &str, arguments: Option<Value>) -> Result<Value, QmpError> {
        self.call_within(name, arguments, self.deadline).await
    }

    /// [`Qmp::call`] with a deadline of its own, which counts the time spent waiting for QEMU to
    /// finish earlier commands too.
    ///
    /// # Errors
    /// As [`Qmp::call`].
    pub async fn call_within(
        &self,
        name: &str,
        arguments: Option<Value>,
        deadline: Duration,
    ) -> Result<Value, QmpError> {
        let reply = self
            .submit(name, arguments.as_ref(), false, Vec::new(), deadline)
            .await?;
        decode(name, &reply)
    }

    /// Calls a command before those that QEMU is still busy with. Few commands allow it: `yank`,
    /// `migrate-pause`, `migrate-recover`, and queries about them.
    ///
    /// # Errors
    /// As [`Qmp::call`], and [`QmpError::NoOutOfBand`] where this monitor cannot.
    pub async fn call_oob(&self, name: &str, arguments: Option<Value>) -> Result<Value, QmpError> {
        if !self.handle.greeting.has_oob() {
            return Err(QmpError::NoOutOfBand {
                command: name.to_owned(),
            });
        }
        let reply = self
            .submit(name, arguments.as_ref(), true, Vec::new(), self.deadline)
            .await?;
        decode(name, &reply)
    }

    /// Calls a command that takes file descriptors: `getfd`, `add-fd`. QEMU gets duplicates, so
    /// ours are closed once they are sent. Such commands go to QEMU one at a time.
    ///
    /// # Errors
    /// As [`Qmp::call`].
    pub async fn call_with_fds(
        &self,
        name: &str,
        arguments: Option<Value>,
        fds: Vec<OwnedFd>,
    ) -> Result<Value, QmpError> {
        let reply = self
            .submit(name, arguments.as_ref(), false, fds, self.deadline)
            .await?;
        decode(name, &reply)
    }

    /// Calls a typed command, for instance `qmp.execute(&qapi::qmp::query_status {})`.
    ///
    /// # Errors
    /// As [`Qmp::call`], and [`QmpError::Decode`] with the raw reply where it does not fit the type.
    pub async fn execute<C: qapi::Command>(&self, command: &C) -> Result<C::Ok, QmpError> {
        let arguments = serde_json::to_value(command).map_err(|source| QmpError::Encode {
            command: C::NAME.to_owned(),
            source,
        })?;
        let reply = self
            .submit(C::NAME, Some(&arguments), false, Vec::new(), self.deadline)
            .await?;
        decode(C::NAME, &reply)
    }

    /// The events from now on. Each subscriber gets all of them.
    #[must_use]
    pub fn subscribe(&self) -> Events {
        Events::new(self.handle.core.subscribe(), Arc::clone(&self.handle))
    }

    /// Returns when the connection has ended: QEMU is gone.
    pub async fn closed(&self) {
        // The sender lives as long as `self`, so this cannot fail.
        let _ = self.handle.core.closed().wait_for(|closed| *closed).await;
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        *self.handle.core.closed().borrow()
    }

    /// Lines so far that were not QMP and were passed over.
    #[must_use]
    pub fn junk_lines(&self) -> u64 {
        self.handle.core.junk_lines()
    }

    async fn submit(
        &self,
        name: &str,
        arguments: Option<&Value>,
        oob: bool,
        fds: Vec<OwnedFd>,
        deadline: Duration,
    ) -> Result<Box<RawValue>, QmpError> {
        let (sender, receiver) = oneshot::channel();
        let arguments = arguments.map(Value::to_string);
        let core = &self.handle.core;
        let id = core.submit(name, arguments.as_deref(), oob, fds, Sink::Call(sender));
        let mut call = Call {
            core,
            id,
            receiver,
            answered: false,
        };
        match tokio::time::timeout(deadline, call.reply()).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(body))) => Err(command_error(name, body)),
            Ok(Err(_)) => Err(QmpError::Closed),
            Err(_) => Err(QmpError::Timeout {
                command: name.to_owned(),
                after: deadline,
            }),
        }
    }
}

/// A caller that waits; dropping it gives the command up.
struct Call<'a> {
    core: &'a Core,
    id: u64,
    receiver: oneshot::Receiver<Reply>,
    answered: bool,
}

impl Call<'_> {
    async fn reply(&mut self) -> Result<Reply, oneshot::error::RecvError> {
        let reply = (&mut self.receiver).await;
        self.answered = true;
        reply
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.core.abandon(self.id);
        }
    }
}

fn command_error(command: &str, body: ErrorBody) -> QmpError {
    QmpError::Command {
        command: command.to_owned(),
        class: body.class,
        desc: body.desc,
    }
}

fn decode<T: for<'de> Deserialize<'de>>(command: &str, reply: &RawValue) -> Result<T, QmpError> {
    serde_json::from_str(reply.get()).map_err(|source| QmpError::Decode {
        command: command.to_owned(),
        raw: Box::new(wire::value(reply)),
        source,
    })
}

/// The reader task: everything QEMU says, until it says no more.
async fn read_all(core: Arc<Core>, socket: Arc<Socket>, mut lines: Lines) {
    loop {
        while let Some(line) = lines.next_line() {
            match line {
                Ok(line) => core.receive(line),
                Err(length) => core.junk(format!("a line of more than {length} bytes").as_bytes()),
            }
        }
        match socket.append(lines.space()).await {
            Ok(0) => break,
            Ok(_) => {}
            // What QEMU's end looks like when it had not read everything.
            Err(e) => {
                tracing::debug!("the QMP connection ended: {e}");
                break;
            }
        }
    }
    if !lines.partial().is_empty() {
        core.junk(lines.partial());
    }
    core.close();
}
