//! The client of the agent that runs inside a guest.

mod channel;
mod error;

use std::{path::Path, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::{
    net::UnixStream,
    sync::Mutex,
    time::{Instant, timeout_at},
};

use self::channel::Channel;
pub use self::error::AgentError;
use crate::{sock, wire};

/// A handle on the channel to a guest's agent. Clones are cheap; calls queue up, since the agent
/// takes one command at a time.
///
/// The other end is the guest, which may be silent, slow, answer late, or say anything at all.
/// Every call therefore has a deadline, and after one that failed the next finds its place in the
/// stream again. Dropping a call's future is as good as a timeout.
#[derive(Clone)]
pub struct Agent {
    channel: Arc<Mutex<Channel>>,
}

impl Agent {
    /// How long [`Agent::fire`] listens for a refusal.
    pub const REFUSAL: Duration = Duration::from_secs(1);

    /// Talks over a connected socket: the other side of QEMU's character device behind the
    /// virtio-serial port `org.qemu.guest_agent.0`. Nothing is sent yet.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self {
            channel: Arc::new(Mutex::new(Channel::new(stream))),
        }
    }

    /// Connects to the channel's socket, whose path may be of any length.
    ///
    /// # Errors
    /// [`AgentError::Connect`]. That it works says nothing about an agent: see [`Agent::ping`].
    pub async fn connect(path: &Path, deadline: Duration) -> Result<Self, AgentError> {
        match tokio::time::timeout(deadline, sock::connect(path)).await {
            Ok(stream) => stream.map(Self::new),
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        }
        .map_err(|source| AgentError::Connect {
            path: path.to_owned(),
            source,
        })
    }

    /// Whether an agent answers.
    ///
    /// # Errors
    /// [`AgentError::Silent`] at the deadline.
    pub async fn ping(&self, deadline: Duration) -> Result<(), AgentError> {
        let ping = async { self.channel.lock().await.sync().await };
        match tokio::time::timeout(deadline, ping).await {
            Ok(done) => done,
            Err(_) => Err(AgentError::Silent { after: deadline }),
        }
    }

    /// Calls a command that answers.
    ///
    /// `deadline` covers everything: earlier calls, getting in step, and the command.
    ///
    /// # Errors
    /// [`AgentError::Silent`] where no agent answers at all, [`AgentError::Timeout`] where this
    /// command does not, [`AgentError::Command`] where it fails.
    pub async fn call(
        &self,
        name: &str,
        arguments: Option<Value>,
        deadline: Duration,
    ) -> Result<Value, AgentError> {
        self.run(name, arguments, deadline, |text| serde_json::from_str(text))
            .await
    }

    /// Calls a typed command, for instance `&qapi::qga::guest_get_osinfo {}`.
    ///
    /// # Errors
    /// As [`Agent::call`], and [`AgentError::Decode`] with the raw reply where it does not fit the type.
    pub async fn execute<C: qapi::Command>(
        &self,
        command: &C,
        deadline: Duration,
    ) -> Result<C::Ok, AgentError> {
        let decode = |raw: Value, source| AgentError::Decode {
            command: C::NAME.to_owned(),
            raw: Box::new(raw),
            source,
        };
        let arguments = serde_json::to_value(command).map_err(|e| decode(Value::Null, e))?;
        self.run(C::NAME, Some(arguments), deadline, |text| {
            serde_json::from_str(text)
        })
        .await
    }

    async fn run<T>(
        &self,
        name: &str,
        arguments: Option<Value>,
        deadline: Duration,
        decode: impl Fn(&str) -> serde_json::Result<T>,
    ) -> Result<T, AgentError> {
        let end = Instant::now() + deadline;
        let in_step = async {
            let mut channel = self.channel.lock().await;
            channel.get_in_step().await.map(|()| channel)
        };
        let mut channel = timeout_at(end, in_step)
            .await
            .unwrap_or(Err(AgentError::Silent { after: deadline }))?;
        let answer = async {
            channel.send(name, arguments.as_ref()).await?;
            channel.answer(name).await
        };
        let timeout = || AgentError::Timeout {
            command: name.to_owned(),
            after: deadline,
        };
        let reply = timeout_at(end, answer)
            .await
            .unwrap_or_else(|_| Err(timeout()))?;
        decode(reply.get()).map_err(|source| AgentError::Decode {
            command: name.to_owned(),
            raw: Box::new(wire::value(&reply)),
            source,
        })
    }

    /// Sends a command that answers only when it fails: `guest-shutdown`, `guest-suspend-disk`,
    /// `guest-suspend-ram`, `guest-suspend-hybrid`.
    ///
    /// Returns once the agent has had it for [`Agent::REFUSAL`] without a word against it. Whether
    /// the guest really does it is for QEMU's events to tell.
    ///
    /// # Errors
    /// [`AgentError::Silent`] where no agent answers by the deadline, [`AgentError::Command`] where
    /// it refuses.
    pub async fn fire(
        &self,
        name: &str,
        arguments: Option<Value>,
        deadline: Duration,
    ) -> Result<(), AgentError> {
        self.fire_and_listen(name, arguments, deadline, Self::REFUSAL)
            .await
    }

    /// As [`Agent::fire`], with a time of the caller's to listen for a refusal: a guest may find only
    /// after a while that it cannot hibernate. Nobody else can ask the agent meanwhile; whoever sees
    /// the success elsewhere drops the future.
    ///
    /// # Errors
    /// As [`Agent::fire`].
    pub async fn fire_and_listen(
        &self,
        name: &str,
        arguments: Option<Value>,
        deadline: Duration,
        refusal: Duration,
    ) -> Result<(), AgentError> {
        let sent = async {
            let mut channel = self.channel.lock().await;
            // Always: silence is also what a missing agent answers.
            channel.sync().await?;
            channel
                .send(name, arguments.as_ref())
                .await
                .map(|()| channel)
        };
        let sent = tokio::time::timeout(deadline, sent).await;
        let mut channel = sent.unwrap_or(Err(AgentError::Silent { after: deadline }))?;
        match tokio::time::timeout(refusal, channel.answer(name)).await {
            Ok(Err(e @ AgentError::Command { .. })) => Err(e),
            // An answer after all, an end, or the silence of success.
            _ => Ok(()),
        }
    }
}
