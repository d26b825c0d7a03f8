//! Processes that outlive mvm: a session of their own.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Lets the program run in its own session, so that no terminal's signals reach it.
pub fn detach(command: &mut Command) {
    // SAFETY: the closure runs between fork and exec and calls nothing but `setsid`, which is
    // async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            // It fails only where the process leads a group already, and a child just forked does not.
            nix::unistd::setsid()?;
            Ok(())
        });
    }
}
