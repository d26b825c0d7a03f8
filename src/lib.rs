//! mvm runs QEMU/KVM guests from machine profiles, and gives every host device back.
//!
//! The data flows one way:
//!
//! ```text
//! profile layers, flags ──load, merge──► Profile ─┐
//! /sys, /dev/kvm, QEMU ──read once──► HostFacts ──┴─resolve──► Machine
//! Machine ──build──► Plan { steps, command }            --dry-run prints it and stops
//! Plan ──apply──► Prepared { fds, sockets }             the inverse is on disk before the step
//! Prepared ──launch──► Guest { child, qmp } ──supervise──► Outcome
//! Outcome | failure | crash ──► journal, newest first ──► the host as it was
//! ```

pub mod cli;
pub mod dirs;
pub mod error;
pub mod guest;
pub mod handover;
pub mod hook;
pub mod host;
pub mod ids;
pub mod import;
pub mod machine;
pub mod ops;
pub mod owner;
pub mod plan;
pub mod profile;
pub mod qemu;
pub mod service;
pub mod settings;
pub mod sidecar;
pub mod units;

/// Hosts as trees of files, which `tests/it` uses as well.
#[cfg(test)]
#[path = "../tests/hosts/mod.rs"]
mod hosts;
