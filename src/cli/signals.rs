//! Signals for a command that has something to put right before it ends.

use std::fs;
use std::process;
use std::thread;

use nix::sys::signal::{SigSet, Signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::Failure;
use crate::error::ExitCode;

/// The signals that end a process, except those that are ignored (`nohup`, a job in the background).
const ENDING: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
];
/// Who sends more of them does not want to wait.
const PATIENCE: u32 = 2;

/// Takes them from now on. A thread of its own listens: where this process hangs in a write to somebody who
/// does not read, it still ends.
pub(super) fn listen() -> Result<UnboundedReceiver<Signal>, Failure> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut set = SigSet::empty();
    for signal in ENDING {
        if !ignored(&status, signal) {
            set.add(signal);
        }
    }
    let failed = |what: String| Failure::message(ExitCode::Failed, what);
    set.thread_block()
        .map_err(|error| failed(format!("cannot hold signals: {error}")))?;
    let (sender, receiver) = unbounded_channel();
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let mut seen = 0;
            while let Ok(signal) = set.wait() {
                seen += 1;
                if seen > PATIENCE || sender.send(signal).is_err() {
                    process::exit(128 + signal as i32);
                }
            }
        })
        .map_err(|error| failed(format!("cannot start a thread: {error}")))?;
    Ok(receiver)
}

/// Whether `/proc/self/status` says so.
fn ignored(status: &str, signal: Signal) -> bool {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal as i32 - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_stays_so() {
        let status = "Name:\tx\nSigIgn:\t0000000000001003\n";
        assert!(ignored(status, Signal::SIGHUP) && ignored(status, Signal::SIGINT));
        assert!(!ignored(status, Signal::SIGTERM) && !ignored("", Signal::SIGINT));
    }
}
