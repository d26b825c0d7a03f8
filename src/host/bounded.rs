//! Child processes that are waited for only so long.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::{MemfdFlags, memfd_create};

/// How long a killed child has to be gone. One that hangs in the kernel is left behind.
const KILL_LIMIT: Duration = Duration::from_millis(50);

/// The last part of what a child wrote to stderr, in bytes.
const TAIL: u64 = 2000;

/// What came of a child.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// All of its stdout; `None` where it was still at it when the time was up.
    pub(crate) stdout: Option<Vec<u8>>,
    /// What it had written by then, in that case.
    pub(crate) cut: Vec<u8>,
    /// The end of its stderr.
    pub(crate) stderr: String,
    /// How it ended; `None` where it could not be made to.
    pub(crate) status: Option<ExitStatus>,
}

/// Runs a child to the end of its stdout, or kills it when `limit` is over.
pub(crate) fn run(command: Command, limit: Duration) -> io::Result<Outcome> {
    talk(command, b"", b"", limit)
}

/// Gives a child `input`, and reads its stdout until it ends or its last line holds `end`, which must
/// not be empty if `input` is not; then kills it.
///
/// `input` must fit into a pipe; stdin stays open until the end, because closing it is a signal of its
/// own to some programs.
pub(crate) fn talk(
    mut command: Command,
    input: &[u8],
    end: &[u8],
    limit: Duration,
) -> io::Result<Outcome> {
    assert!(input.len() <= 60_000, "the input must fit into a pipe");
    // In memory: there may be no /tmp to write to, and it is gone with us.
    let stderr = File::from(memfd_create("stderr", MemfdFlags::CLOEXEC)?);
    let stdin = if input.is_empty() {
        Stdio::null()
    } else {
        Stdio::piped()
    };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(stderr.try_clone()?)
        .spawn()?;
    let until = Instant::now() + limit;
    let stdin = child.stdin.take();
    if let Some(mut pipe) = stdin.as_ref() {
        // A child that has gone away already says why on its stderr.
        let _ = pipe.write_all(input);
    }
    let (stdout, cut) = match read_until(&mut child, end, until) {
        Ok(all) => (Some(all), Vec::new()),
        Err(cut) => (None, cut),
    };
    drop(stdin);
    let mut status = None;
    let over = stdout.as_deref().is_some_and(|text| is_over(text, end));
    if stdout.is_some() && !over {
        status = reap(&mut child, until);
    }
    if status.is_none() {
        let _ = child.kill();
        status = reap(&mut child, Instant::now() + KILL_LIMIT);
    }
    Ok(Outcome {
        stdout,
        cut,
        stderr: tail(stderr),
        status,
    })
}

/// Everything that the child prints, or everything up to a line with `end`; what there is so far as an
/// error where it is still at it when the time is up.
fn read_until(child: &mut Child, end: &[u8], until: Instant) -> Result<Vec<u8>, Vec<u8>> {
    let mut text = Vec::new();
    let Some(mut out) = child.stdout.take() else {
        return Err(text);
    };
    let mut buffer = vec![0; 65_536];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(out.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) => return Err(text),
            Ok(_) => match out.read(&mut buffer) {
                Ok(0) | Err(_) => return Ok(text),
                Ok(n) => {
                    text.extend_from_slice(&buffer[..n]);
                    if is_over(&text, end) {
                        return Ok(text);
                    }
                }
            },
            Err(Errno::EINTR) => {}
            Err(_) => return Err(text),
        }
    }
}

/// Whether the last line is complete and holds `end`.
fn is_over(text: &[u8], end: &[u8]) -> bool {
    let Some(body) = text.strip_suffix(b"\n").filter(|_| !end.is_empty()) else {
        return false;
    };
    let last = body.rsplit(|b| *b == b'\n').next().unwrap_or_default();
    last.windows(end.len()).any(|w| w == end)
}

/// Waits for the child's end, but not for ever.
fn reap(child: &mut Child, until: Instant) -> Option<ExitStatus> {
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() >= until {
            return None;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn tail(mut file: File) -> String {
    let length = file.metadata().map_or(0, |m| m.len());
    let mut bytes = Vec::new();
    let from = SeekFrom::Start(length.saturating_sub(TAIL));
    if file.seek(from).is_ok() {
        // What could be read is all that is shown.
        let _ = file.take(TAIL).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_child_that_hangs_is_killed() {
        let start = Instant::now();
        let script = shell("echo x; exec sleep 60");
        let said = run(script, Duration::from_millis(50)).unwrap();
        assert!(start.elapsed() < Duration::from_secs(5));
        assert_eq!(said.stdout, None);
        assert!(!said.status.unwrap().success());
    }

    #[test]
    fn input_output_and_the_end_of_stderr() {
        let script = "read a; echo \"got $a\"; i=0; while [ $i -lt 900 ]; do echo line $i >&2; i=$((i+1)); done; exit 3";
        let said = talk(shell(script), b"this\n", b"never", Duration::from_secs(20)).unwrap();
        assert_eq!(said.stdout.unwrap(), b"got this\n");
        assert_eq!(said.status.unwrap().code(), Some(3));
        assert!(said.stderr.ends_with("line 899") && said.stderr.len() <= 2000);
    }

    #[test]
    fn a_child_that_said_its_word_need_not_end() {
        let start = Instant::now();
        let script = shell("read a; echo first; echo \"the $a\"; exec sleep 60");
        let said = talk(script, b"end\n", b"the end", Duration::from_secs(20)).unwrap();
        assert!(start.elapsed() < Duration::from_secs(5));
        assert_eq!(said.stdout.unwrap(), b"first\nthe end\n");
        assert!(!is_over(b"the end", b"the end") && !is_over(b"the end\nx\n", b"the end"));
    }
}
