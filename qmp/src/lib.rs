//! QMP and the QEMU guest agent for tokio.
//!
//! - [`Qmp`] talks to a QEMU monitor. Any call can be dropped or time out at any moment without
//!   harm to the connection, and an event or a value newer than this crate's schema is passed on
//!   as JSON rather than ending the stream.
//! - [`Events`] delivers QEMU's events to any number of subscribers.
//! - [`Agent`] talks to the agent inside a guest, which may be silent, slow or not there at all.
//! - [`Server`] shares one QEMU among any number of clients.
//!
//! Commands are plain names with JSON arguments, or the typed structs of [`qapi`]:
//!
//! ```no_run
//! # async fn example() -> Result<(), mvm_qmp::QmpError> {
//! use std::{path::Path, time::Duration};
//! let (qmp, mut events) = mvm_qmp::Qmp::connect(Path::new("qmp.sock"), Duration::from_secs(5)).await?;
//! let status = qmp.execute(&qapi::qmp::query_status {}).await?;
//! qmp.call("cont", None).await?;
//! while let Some(event) = events.next().await {
//!     eprintln!("{} {}", event.name, event.data);
//! }
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod agent;
mod client;
mod error;
mod events;
mod server;
mod sock;
mod wire;

pub use agent::{Agent, AgentError};
pub use client::{Greeting, Qmp, negotiate_and_leave};
pub use error::QmpError;
pub use events::{EVENTS_LOST, Event, Events, Timestamp};
/// The typed commands and events, re-exported so that users agree on the version.
pub use qapi;
pub use server::{Answer, ClientCommand, Hook, Limits, Refusal, Server, Verdict};
pub use sock::connect;
