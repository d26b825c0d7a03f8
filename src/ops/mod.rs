//! The only writes to the host. Every change is a [`Step`] that goes through [`Ops::run`].
//!
//! An operation compares before it writes, and looks at the result afterwards.

mod copy;
pub mod dirs;
mod error;
mod fds;
pub mod lock;
pub mod memory;
mod overlay;
pub mod process;
pub mod session;
pub mod socket;
mod tap;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::plan::step::Step;
pub use error::OpsError;
pub use fds::open_source;

/// Who carries out steps: the host, or a fake one in tests.
pub trait Ops {
    /// Carries out one step. The descriptor is the lock or the listening socket that it made.
    ///
    /// # Errors
    /// What stood in the way; the step may then be half done.
    fn run(&self, step: &Step) -> Result<Option<OwnedFd>, OpsError>;

    /// The step with what the host has right now in the place of what it is to be put back to. It is
    /// asked for just before the inverse is written down.
    ///
    /// # Errors
    /// What cannot be looked at.
    fn observe(&self, step: &Step) -> Result<Step, OpsError> {
        Ok(step.clone())
    }
}

/// The host that mvm runs on.
#[derive(Debug, Clone, Default)]
pub struct Host {
    qemu: Option<PathBuf>,
}

impl Host {
    /// The host; `qemu-img` is looked for beside this QEMU first.
    pub fn new(qemu: &Path) -> Self {
        Self {
            qemu: Some(qemu.to_owned()),
        }
    }
}

impl Ops for Host {
    fn run(&self, step: &Step) -> Result<Option<OwnedFd>, OpsError> {
        match step {
            Step::MakeDir { path, mode, keep } => dirs::make(path, *mode, *keep)?,
            Step::Lock { path } => return lock::take(path).map(Some),
            Step::CopyFile { from, to, mode } => copy::copy_if_absent(from, to, *mode)?,
            Step::CreateOverlay {
                path,
                backing,
                backing_format,
            } => overlay::create(self.qemu.as_deref(), path, backing, *backing_format)?,
            Step::CreateTap {
                name,
                bridge,
                address,
                vnet_hdr,
            } => tap::create(name, bridge.as_deref(), address.as_deref(), *vnet_hdr)?,
            Step::Listen { path } => return socket::listen(path).map(Some),
            Step::RemoveFile { path } => dirs::remove_file(path)?,
            Step::RemoveDir { path } => dirs::remove_dir(path)?,
            Step::DeleteTap { name } => tap::delete(name)?,
            // No plan has them yet.
            other => {
                return Err(OpsError::NoEffect {
                    what: format!("{other:?}"),
                });
            }
        }
        Ok(None)
    }
}
