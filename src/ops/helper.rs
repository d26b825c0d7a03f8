//! One access to a file of sysfs in a process that can be left behind.
//!
//! A write to `unbind` or `reset` of a device whose driver hangs never returns, and a process in it
//! cannot be killed. So it is not ours: a forked child does it, and is abandoned at the deadline. It
//! holds one descriptor, a lock by which everybody sees that it is still at it.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What the child does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Access<'a> {
    /// One `write` of all of it.
    Write(&'a [u8]),
    /// One `read`, of at most a page.
    Read,
    /// One message to the kernel's routing netlink, and the first datagram of its answer. The path is
    /// not looked at.
    Netlink(&'a [u8]),
}

impl Access<'_> {
    /// The most that comes back, in bytes.
    const fn room(self) -> usize {
        match self {
            Self::Write(_) => 0,
            Self::Read => 4096,
            Self::Netlink(_) => 256 << 10,
        }
    }
}

/// What the child prepared before it was made: nothing is allocated after the fork.
struct Task<'a> {
    path: CString,
    access: Access<'a>,
    busy: RawFd,
    pipe: RawFd,
    /// Four bytes for the error number, then the answer.
    answer: Vec<u8>,
}

/// Does it in a child that keeps `busy` open as long as it lives.
///
/// # Errors
/// What the kernel said; [`io::ErrorKind::TimedOut`] when the child was left behind.
pub(crate) fn run(
    path: &Path,
    access: Access<'_>,
    busy: BorrowedFd<'_>,
    limit: Duration,
) -> io::Result<Vec<u8>> {
    let end = Instant::now() + limit;
    let (said, pipe) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let mut task = Task {
        path: CString::new(path.as_os_str().as_bytes())?,
        access,
        busy: busy.as_raw_fd(),
        pipe: pipe.as_raw_fd(),
        answer: vec![0; 4 + access.room()],
    };
    // SAFETY: the child calls nothing but system calls on memory that was made before (`child`), and
    // ends without returning.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => return Err(io::Error::last_os_error()),
        0 => child(&mut task),
        _ => drop(pipe),
    }
    let Some(text) = read_to_end(said, end)? else {
        // In the kernel for good, perhaps: nobody waits for it. It is reaped when we end.
        return Err(io::ErrorKind::TimedOut.into());
    };
    // It has closed the pipe, so it is at its end.
    // SAFETY: it waits for a child of ours that nobody else waits for, and takes no status.
    while unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) } == -1
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
    let Some((errno, data)) = text.split_first_chunk::<4>() else {
        return Err(io::Error::other("the helper process was killed"));
    };
    match i32::from_ne_bytes(*errno) {
        0 => Ok(data.to_vec()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// All that comes; `None` when the time is up.
fn read_to_end(pipe: OwnedFd, end: Instant) -> io::Result<Option<Vec<u8>>> {
    let mut pipe = File::from(pipe);
    let mut text = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        // Rounded up: a poll of 0 ms would spin through the last one.
        let left =
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(
            std::os::fd::AsFd::as_fd(&pipe),
            PollFlags::POLLIN,
        )];
        match poll(&mut fds, left) {
            Ok(0) if Instant::now() >= end => return Ok(None),
            Ok(0) | Err(nix::Error::EINTR) => {}
            Ok(_) => match pipe.read(&mut buffer)? {
                0 => return Ok(Some(text)),
                n => text.extend_from_slice(&buffer[..n]),
            },
            Err(error) => return Err(error.into()),
        }
    }
}

/// The child's life: only calls that are allowed between fork and exec.
fn child(task: &mut Task<'_>) -> ! {
    let (errno, answer) = task.answer.split_at_mut(4);
    // SAFETY: plain system calls with numbers, a C string and buffers that were made before the fork and
    // live as long as the process. Every descriptor of the parent's but two is closed: neither locks
    // nor a terminal nor anybody's pipe may live as long as a device hangs.
    unsafe {
        libc::setsid();
        close_all_but(task.busy, task.pipe);
        let (to, length) = (answer.as_mut_ptr().cast(), answer.len());
        let done = match task.access {
            Access::Write(text) => match open(&task.path, libc::O_WRONLY) {
                -1 => -1,
                fd => libc::write(fd, text.as_ptr().cast(), text.len()).min(0),
            },
            Access::Read => match open(&task.path, libc::O_RDONLY) {
                -1 => -1,
                fd => libc::read(fd, to, length),
            },
            Access::Netlink(message) => {
                let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
                match libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) {
                    -1 => -1,
                    fd => match libc::send(fd, message.as_ptr().cast(), message.len(), 0) {
                        -1 => -1,
                        _ => libc::recv(fd, to, length, 0),
                    },
                }
            }
        };
        if done < 0 {
            errno.copy_from_slice(&(*libc::__errno_location()).to_ne_bytes());
        }
        let mut left = &task.answer[..4 + done.max(0).unsigned_abs()];
        while !left.is_empty() {
            match libc::write(task.pipe, left.as_ptr().cast(), left.len()) {
                n if n > 0 => left = &left[n.unsigned_abs()..],
                _ => break,
            }
        }
        libc::_exit(0)
    }
}

/// # Safety
/// As for any `open`: none but that the path is a C string, which its type says.
unsafe fn open(path: &CString, flags: libc::c_int) -> RawFd {
    // SAFETY: the path is a C string.
    unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC | libc::O_NOCTTY) }
}

/// # Safety
/// It must be called in a child that uses no descriptor but these two afterwards.
unsafe fn close_all_but(a: RawFd, b: RawFd) {
    let (low, high) = (a.min(b), a.max(b));
    for (from, to) in [(0, low - 1), (low + 1, high - 1), (high + 1, RawFd::MAX)] {
        if from > to {
            continue;
        }
        // SAFETY: plain numbers; nothing uses these descriptors any more.
        let closed = unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
        if closed == -1 {
            // Linux before 5.9.
            for fd in from..=to.min(4096) {
                // SAFETY: as above.
                unsafe { libc::close(fd) };
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn busy() -> File {
        tempfile::tempfile().unwrap()
    }

    #[test]
    fn it_reads_writes_and_tells_what_the_kernel_said() {
        let top = tempfile::tempdir().unwrap();
        let file = top.path().join("f");
        let busy = busy();
        let limit = Duration::from_secs(10);
        let go = |path: &Path, access| run(path, access, busy.as_fd(), limit);
        let missing = go(&file, Access::Write(b"x")).unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
        std::fs::write(&file, "").unwrap();
        assert_eq!(go(&file, Access::Write(b"some\n")).unwrap(), b"");
        assert_eq!(go(&file, Access::Read).unwrap(), b"some\n");
        let full = go(Path::new("/dev/full"), Access::Write(b"x")).unwrap_err();
        assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
    }

    #[test]
    fn one_that_hangs_is_left_behind_with_its_lock_alone() {
        let top = tempfile::tempdir().unwrap();
        let fifo = top.path().join("fifo");
        // Whoever opens it to write waits for a reader.
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let lock = top.path().join("lock");
        let held = crate::ops::lock::take(&lock).unwrap();
        let other = top.path().join("other");
        let others = crate::ops::lock::take(&other).unwrap();
        let start = Instant::now();
        let late = run(
            &fifo,
            Access::Write(b"x"),
            held.as_fd(),
            Duration::from_millis(50),
        );
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(5));
        drop((held, others));
        assert!(
            crate::ops::lock::is_held(&lock).unwrap(),
            "the child has it"
        );
        assert!(
            !crate::ops::lock::is_held(&other).unwrap(),
            "and nothing else"
        );
        // A reader lets it go on.
        assert_eq!(std::fs::read(&fifo).unwrap(), b"x");
        let end = Instant::now() + Duration::from_secs(10);
        while crate::ops::lock::is_held(&lock).unwrap() {
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
