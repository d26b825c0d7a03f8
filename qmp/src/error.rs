//! What can go wrong on a QMP connection.

use std::{io, path::PathBuf, time::Duration};

use serde_json::Value;

/// A failed connection or call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QmpError {
    /// The other side closed the connection: QEMU has ended, or is about to.
    #[error("QEMU closed the QMP connection")]
    Closed,
    /// No reply by the deadline. The connection is unharmed: a late reply is dropped.
    #[error("no reply to `{command}` within {after:?}")]
    Timeout {
        /// The command.
        command: String,
        /// The deadline it missed.
        after: Duration,
    },
    /// QEMU refused the command or failed at it.
    #[error("`{command}` failed: {desc}")]
    Command {
        /// The command.
        command: String,
        /// QEMU's error class, `GenericError` for most.
        class: String,
        /// QEMU's own words.
        desc: String,
    },
    /// The reply or the event is not what the Rust type expects: QEMU is older or newer than the schema.
    #[error("`{command}` has a value that its type does not know")]
    Decode {
        /// The command or event.
        command: String,
        /// What QEMU said.
        raw: Box<Value>,
        /// Where the type and the value differ.
        source: serde_json::Error,
    },
    /// The arguments cannot be written as JSON.
    #[error("the arguments of `{command}` cannot be written as JSON")]
    Encode {
        /// The command.
        command: String,
        /// Why.
        source: serde_json::Error,
    },
    /// An out-of-band call on a connection where QEMU did not offer that.
    #[error("`{command}` cannot go out of band: this QEMU monitor does not offer it")]
    NoOutOfBand {
        /// The command.
        command: String,
    },
    /// The socket could not be connected.
    #[error("cannot connect to {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing was said within the deadline. A QEMU monitor serves one client at a time.
    #[error("no QMP greeting within {after:?}: QEMU is busy, or its monitor already has a client")]
    NoGreeting {
        /// The deadline.
        after: Duration,
    },
    /// The other side is not a QMP server.
    #[error("not a QMP server: it began with {got:?}")]
    NotQmp {
        /// The beginning of what it said.
        got: String,
    },
    /// Reading from or writing to the socket failed.
    #[error("the QMP socket failed")]
    Io(#[from] io::Error),
}

impl QmpError {
    /// Whether the connection is gone, so that no later call can work either.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed | Self::Io(_))
    }

    /// QEMU's error class, when QEMU itself refused the command.
    #[must_use]
    pub fn class(&self) -> Option<&str> {
        match self {
            Self::Command { class, .. } => Some(class),
            _ => None,
        }
    }
}
