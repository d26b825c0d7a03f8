//! The terminal in raw mode, and its way back.

use std::io;
use std::os::fd::AsFd;
use std::sync::Mutex;

use nix::sys::termios::{self, SetArg, Termios};

/// What the terminal was before it became raw, for the guard and for a panic's hook.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Standard input in raw mode until this is dropped.
#[derive(Debug)]
pub(super) struct Raw(());

impl Raw {
    /// Makes the terminal on standard input raw.
    ///
    /// # Errors
    /// Where standard input is not a terminal.
    pub(super) fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = termios::tcgetattr(stdin.as_fd())?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        remember(Some(before));
        termios::tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw)?;
        Ok(Self(()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn remember(before: Option<Termios>) -> Option<Termios> {
    let mut slot = BEFORE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    std::mem::replace(&mut *slot, before)
}

/// Gives the terminal back as it was, where it was made raw.
pub(super) fn restore() {
    if let Some(before) = remember(None) {
        // TCSADRAIN lets the last output out first. A terminal that is gone needs no setting.
        let _ = termios::tcsetattr(io::stdin().as_fd(), SetArg::TCSADRAIN, &before);
    }
}
