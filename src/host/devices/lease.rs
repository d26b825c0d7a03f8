//! Which guest has which device.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A device that a guest has taken: a file of `leases` in the host directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Lease {
    /// The file's name: `pci-0000:01:00.0`, `pci-0000:01:00.0-vf1`, `mdev-UUID`, `usb-1-3.2`.
    pub key: String,
    /// The device as its guest names it.
    pub device: String,
    /// The guest.
    pub guest: String,
    /// Its run-time directory, whose `lock` QEMU holds.
    pub run_dir: PathBuf,
    /// The user whose guest it is.
    pub uid: u32,
    /// The process that took it.
    pub pid: u32,
    /// When, in seconds since 1970.
    pub since: u64,
    /// Whether the guest is there; not in the file.
    pub holder: Holder,
}

/// What is known about the guest that has a lease.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holder {
    /// It runs: the lock is held.
    Alive,
    /// It is gone, and nobody has given the device back yet.
    Gone,
    /// Its lock may not be looked at: it counts as running.
    #[default]
    Unknown,
}
