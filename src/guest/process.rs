//! A QEMU process: our child or an adopted one. Never a bare process id, which may be another's by now.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use nix::sys::signal::Signal;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exit {
    /// Its exit status; neither is known of a process that was adopted.
    pub status: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        Self {
            status: status.code(),
            signal: status.signal(),
        }
    }
}

/// A QEMU process.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    pidfd: AsyncFd<OwnedFd>,
    child: Option<Child>,
}

#[expect(
    deprecated,
    reason = "its replacement is unsafe for types that may close their descriptor early; OwnedFd does not"
)]
fn open(pid: u32) -> io::Result<AsyncFd<OwnedFd>> {
    let raw = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(io::ErrorKind::InvalidInput)?;
    AsyncFd::new(pidfd_open(raw, PidfdFlags::NONBLOCK)?)
}

impl Process {
    /// Our own child.
    ///
    /// # Errors
    /// The system has no pidfd for it. The child is killed then.
    pub(crate) fn child(mut child: Child) -> io::Result<Self> {
        match open(child.id()) {
            Ok(pidfd) => Ok(Self {
                pid: child.id(),
                pidfd,
                child: Some(child),
            }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// The child of a supervisor that died.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn adopt(pid: u32) -> io::Result<Self> {
        Ok(Self {
            pid,
            pidfd: open(pid)?,
            child: None,
        })
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal; to a process that is gone, to nobody.
    pub(crate) fn signal(&self, signal: Signal) {
        let Some(signal) = rustix::process::Signal::from_named_raw(signal as i32) else {
            return;
        };
        if let Err(error) = pidfd_send_signal(self.pidfd.get_ref(), signal) {
            tracing::debug!(%error, pid = self.pid, "cannot signal");
        }
    }

    /// Waits for the end and reaps a child. It can be dropped and called again.
    pub(crate) async fn ended(&mut self) -> Exit {
        loop {
            if let Some(child) = &mut self.child {
                match child.try_wait() {
                    Ok(Some(status)) => return status.into(),
                    Ok(None) => {}
                    // Somebody else reaped it: how it ended is lost, that it did is not.
                    Err(_) => return Exit::default(),
                }
            }
            match self.pidfd.readable().await {
                Ok(_) if self.child.is_none() => return Exit::default(),
                // The loop reaps it; the guard stays ready, for a pidfd never unreadies.
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot wait by pidfd");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// When a process began, in clock ticks since boot (field 22 of `/proc/PID/stat`).
pub(crate) fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[tokio::test]
    async fn children_are_reaped_and_adopted_ones_seen_to_end() {
        let child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let mut child = Process::child(child).unwrap();
        let mut adopted = Process::adopt(child.pid()).unwrap();
        assert!(start_ticks(child.pid()).unwrap() > 0);
        let early = tokio::time::timeout(Duration::from_millis(50), child.ended()).await;
        assert!(early.is_err());
        child.signal(Signal::SIGKILL);
        let exit = child.ended().await;
        assert_eq!(exit.signal, Some(9));
        assert_eq!(adopted.ended().await, Exit::default());
        child.signal(Signal::SIGKILL);
        assert!(Process::adopt(child.pid()).is_err(), "it was reaped");
    }
}
