//! Processes that outlive mvm: a session of their own, and nothing of their caller's held open.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use command_fds::{CommandFdExt, FdMapping};

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

/// Which modes files that the program makes do not get.
pub fn umask(command: &mut Command, mask: u32) {
    // SAFETY: the closure runs between fork and exec and makes one system call, which cannot fail.
    unsafe {
        command.pre_exec(move || {
            nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask));
            Ok(())
        });
    }
}

/// Lets the program inherit no descriptor but its standard ones, and those that are mapped to it after
/// this call: a lock that the shell holds which called mvm must not live as long as a guest.
pub fn inherit_nothing(command: &mut Command) {
    /// `linux/close_range.h`
    const CLOSE_RANGE_CLOEXEC: nix::libc::c_uint = 1 << 2;
    // SAFETY: the closure runs between fork and exec and makes one system call with plain numbers,
    // which closes nothing by itself: it marks descriptors of this process as not to be inherited.
    unsafe {
        command.pre_exec(|| {
            // Linux before 5.11 has no such call or flag; things are then as they were.
            nix::libc::syscall(
                nix::libc::SYS_close_range,
                3 as nix::libc::c_uint,
                nix::libc::c_uint::MAX,
                CLOSE_RANGE_CLOEXEC,
            );
            Ok(())
        });
    }
}

/// Descriptors that keep numbers from being used by others, until the program has been started.
#[must_use]
pub struct Reserved(#[expect(dead_code, reason = "held open")] Vec<OwnedFd>);

/// Lets the program inherit these under their numbers. What is returned must live until it is started: the pipe by
/// which a failed `exec` is told to this process would otherwise get one of the numbers, and be replaced. The
/// program would be missing and nobody told.
///
/// # Errors
/// There are no descriptors left, or two have one number.
pub fn give(command: &mut Command, mapped: Vec<FdMapping>) -> io::Result<Reserved> {
    let mut reserved = Vec::new();
    if let Some(last) = mapped.iter().map(|one| one.child_fd).max() {
        loop {
            let fd = OwnedFd::from(File::open("/dev/null")?);
            let done = fd.as_raw_fd() > last;
            reserved.push(fd);
            if done {
                break;
            }
        }
    }
    command.fd_mappings(mapped).map_err(io::Error::other)?;
    Ok(Reserved(reserved))
}

/// Lets the program run as another user, with the rights that it has then and no more: no program that it
/// runs can have others (`PR_SET_NO_NEW_PRIVS`). Limits that are this process's go with it.
pub fn become_user(command: &mut Command, uid: u32, gid: u32, groups: &[u32]) {
    use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    // SAFETY: the closure runs between fork and exec, in the only thread that there is then. It makes four
    // system calls with numbers and a slice that was made before the fork, and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            setgroups(&groups)?;
            setresgid(gid, gid, gid)?;
            setresuid(uid, uid, uid)?;
            nix::sys::prctl::set_no_new_privs()?;
            Ok(())
        });
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    #[test]
    fn a_program_that_is_missing_is_told_whatever_numbers_are_free() {
        // One of these leaves the numbers 10 and 11 for the pipe.
        let mut held = Vec::new();
        for _ in 0..16 {
            let mut command = Command::new("/no/such/program");
            let mapped = (10..13).map(|child_fd| FdMapping {
                parent_fd: tempfile::tempfile().unwrap().into(),
                child_fd,
            });
            let reserved = give(&mut command, mapped.collect()).unwrap();
            let error = command.spawn().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            drop((command, reserved));
            held.push(tempfile::tempfile().unwrap());
        }
    }

    #[test]
    fn what_a_caller_holds_is_not_inherited() {
        let file = tempfile::tempfile().unwrap();
        // As a shell's `exec 9>file` makes it.
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let inherits = |alone: bool| {
            let mut command = Command::new("test");
            command.args(["-e", &format!("/proc/self/fd/{}", file.as_raw_fd())]);
            if alone {
                inherit_nothing(&mut command);
            }
            command.status().unwrap().success()
        };
        assert!(inherits(false));
        assert!(!inherits(true));
    }
}
