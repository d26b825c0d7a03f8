//! The whole crate against a real QEMU, and against a scripted peer for what QEMU will not do.
#![expect(clippy::unwrap_used, reason = "tests")]

mod agent;
mod client;
mod harm;
mod peer;
mod qemu;
mod raw;
mod scripted;
mod server;
mod shared;
