//! What can go wrong between here and a guest's agent.

use std::{io, path::PathBuf, time::Duration};

use serde_json::Value;

/// A failed agent call. Whatever it is, the next call first brings both sides back in step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// Nobody answers: no agent runs in the guest, it has not started yet, or the guest is paused.
    #[error("no guest agent answered within {after:?}")]
    Silent {
        /// The deadline it missed.
        after: Duration,
    },
    /// The agent is there, but did not finish this command by the deadline.
    #[error("the guest agent did not answer `{command}` within {after:?}")]
    Timeout {
        /// The command.
        command: String,
        /// The deadline it missed.
        after: Duration,
    },
    /// The agent refused the command or failed at it.
    #[error("the guest agent failed at `{command}`: {desc}")]
    Command {
        /// The command.
        command: String,
        /// The agent's error class, `GenericError` for most.
        class: String,
        /// The agent's own words.
        desc: String,
    },
    /// The reply is not what the Rust type expects.
    #[error("the guest agent's reply to `{command}` has a value that its type does not know")]
    Decode {
        /// The command.
        command: String,
        /// What the agent said.
        raw: Box<Value>,
        /// Where the type and the value differ.
        source: serde_json::Error,
    },
    /// The reply has no end in sight.
    #[error("the guest agent's reply to `{command}` is longer than {limit} bytes")]
    TooLong {
        /// The command.
        command: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// QEMU closed the channel.
    #[error("QEMU closed the guest agent's channel")]
    Closed,
    /// The socket could not be connected.
    #[error("cannot connect to {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Reading from or writing to the channel failed.
    #[error("the guest agent's channel failed")]
    Io(#[from] io::Error),
}

impl AgentError {
    /// Whether the channel itself is gone, so that no later call can work either.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed | Self::Io(_))
    }
}
