//! The descriptors that QEMU inherits.

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::{OpsError, sidecar, tap};
use crate::qemu::command::FdSource;

/// Opens a descriptor that no step made: a tap's queue, a device file, a connection to a program
/// beside QEMU. `None` for those that
/// steps make.
///
/// # Errors
/// The device is missing, busy, or not for us.
pub fn open_source(source: &FdSource) -> Result<Option<OwnedFd>, OpsError> {
    match source {
        FdSource::Listen(_) | FdSource::Lock(_) => Ok(None),
        FdSource::Tap(name) => tap::open(name).map(Some),
        FdSource::Device(path) => open_device(path).map(Some),
        FdSource::Connect(path) => sidecar::connect(path).map(Some),
    }
}

fn open_device(path: &Path) -> Result<OwnedFd, OpsError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map(Into::into)
        .map_err(OpsError::io("open", path))
}
