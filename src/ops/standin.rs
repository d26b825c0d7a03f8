//! The stand-in kernel of `tests/hosts` in the place of the host's own.

use std::cell::RefCell;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::sysfs::{Place, Writer};
use crate::hosts::Kernel;

/// Names the host of a process that was started as a test of its own.
pub(crate) const VARIABLE: &str = "MVM_TEST_STAND_IN";

thread_local! {
    static ROOT: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// From now on, the host that is below `root` is this thread's host.
pub(crate) fn set(root: Option<&Path>) {
    ROOT.with(|cell| *cell.borrow_mut() = root.map(Path::to_owned));
}

/// The host that stands in for this one.
pub(crate) fn place(host: &Path) -> Option<Place> {
    let root = ROOT.with(|cell| cell.borrow().clone());
    let root = root.or_else(|| std::env::var_os(VARIABLE).map(PathBuf::from))?;
    Some(Place::stand_in(
        &root,
        host,
        Arc::new(StandIn(Kernel::at(&root))),
    ))
}

#[derive(Debug)]
struct StandIn(Kernel);

impl Writer for StandIn {
    fn write(&self, path: &Path, text: &[u8], _: BorrowedFd<'_>, _: Duration) -> io::Result<()> {
        self.0.write(path, text)
    }

    fn read(&self, path: &Path, _: BorrowedFd<'_>, _: Duration) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn netlink(&self, _: &[u8], _: BorrowedFd<'_>, _: Duration) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// The host below `root`, where files of one name do not tell in time what they hold.
pub(crate) fn slow(root: &Path, host: &Path, name: &'static str) -> Place {
    let kernel = StandIn(Kernel::at(root));
    Place::stand_in(root, host, Arc::new(Slow { kernel, name }))
}

#[derive(Debug)]
struct Slow {
    kernel: StandIn,
    name: &'static str,
}

impl Writer for Slow {
    fn write(
        &self,
        path: &Path,
        text: &[u8],
        b: BorrowedFd<'_>,
        limit: Duration,
    ) -> io::Result<()> {
        self.kernel.write(path, text, b, limit)
    }

    fn read(&self, path: &Path, busy: BorrowedFd<'_>, limit: Duration) -> io::Result<Vec<u8>> {
        if path.ends_with(self.name) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.kernel.read(path, busy, limit)
    }

    fn netlink(&self, message: &[u8], b: BorrowedFd<'_>, limit: Duration) -> io::Result<Vec<u8>> {
        self.kernel.netlink(message, b, limit)
    }
}
