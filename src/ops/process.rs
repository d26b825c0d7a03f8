//! Helper programs with a deadline: no shell, no terminal, their complaints kept.

use std::ffi::OsStr;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::BorrowedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};

use super::OpsError;

/// How much of a helper's stderr is kept.
const TAIL: u64 = 2048;

/// Finds a program beside another one, or else in PATH.
pub fn find(program: &str, beside: Option<&Path>) -> Option<PathBuf> {
    let neighbour = beside
        .filter(|path| path.is_absolute())
        .and_then(Path::parent)
        .map(|dir| dir.join(program));
    let path = std::env::var_os("PATH").unwrap_or_default();
    neighbour
        .into_iter()
        .chain(std::env::split_paths(&path).map(|dir| dir.join(program)))
        .find(|file| is_executable(file))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.is_absolute()
        && std::fs::metadata(path)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// A file in memory, for what a child says: there may be no folder for temporary files that can be written.
pub(crate) fn memory_file() -> std::io::Result<std::fs::File> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    Ok(memfd_create(c"mvm", MFdFlags::MFD_CLOEXEC)?.into())
}

/// Runs a helper to its end.
///
/// # Errors
/// It cannot be started, fails, or is not done by the deadline; it is then killed, and left alone
/// when even that does not end it.
pub fn run(program: &Path, args: &[impl AsRef<OsStr>], deadline: Duration) -> Result<(), OpsError> {
    let name = program
        .file_name()
        .unwrap_or(program.as_os_str())
        .to_string_lossy()
        .into_owned();
    let cannot = |what| OpsError::io::<std::io::Error>(what, program);
    let mut said = memory_file().map_err(cannot("keep the messages of"))?;
    let stderr = said.try_clone().map_err(cannot("keep the messages of"))?;
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .map_err(cannot("run"))?;
    let Some(status) = wait(&mut child, deadline).map_err(cannot("wait for"))? else {
        // It may have ended meanwhile; both calls then have nothing to do.
        let _ = child.kill();
        let _ = wait(&mut child, Duration::from_secs(1));
        return Err(OpsError::Slow {
            program: name,
            seconds: deadline.as_secs(),
        });
    };
    if status.success() {
        return Ok(());
    }
    let mut text = Vec::new();
    let length = said.seek(SeekFrom::End(0)).unwrap_or(0);
    let tail = said
        .seek(SeekFrom::Start(length.saturating_sub(TAIL)))
        .and_then(|_| said.read_to_end(&mut text));
    if let Err(error) = tail {
        tracing::debug!(%error, "cannot read what {name} said");
    }
    Err(OpsError::Program {
        program: name,
        how: how(status),
        said: String::from_utf8_lossy(&text).trim().to_owned(),
    })
}

/// An exit status in words.
pub fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => nix::sys::signal::Signal::try_from(signal)
            .map_or_else(|_| format!("signal {signal}"), |known| known.to_string()),
        (None, None) => "no exit status".to_owned(),
    }
}

/// Waits for a child at most that long; `None` when it still runs.
///
/// # Errors
/// The system has no pidfd for it.
pub fn wait(child: &mut Child, deadline: Duration) -> std::io::Result<Option<ExitStatus>> {
    wait_until(child, deadline, None)
}

/// The same, and no longer than until there is something to read from `until`, or its other end is closed.
///
/// # Errors
/// As [`wait`].
pub(crate) fn wait_until(
    child: &mut Child,
    deadline: Duration,
    until: Option<BorrowedFd<'_>>,
) -> std::io::Result<Option<ExitStatus>> {
    let end = Instant::now() + deadline;
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .ok_or(std::io::ErrorKind::InvalidInput)?;
    let fd = pidfd_open(pid, PidfdFlags::empty())?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let timeout = Timespec::try_from(left).ok();
        let child = PollFd::new(&fd, PollFlags::IN);
        let until = until.map(|until| PollFd::from_borrowed_fd(until, PollFlags::IN));
        let mut fds: Vec<PollFd<'_>> = std::iter::once(child).chain(until).collect();
        match poll(&mut fds, timeout.as_ref()) {
            // The child's own end comes first.
            Ok(_) if !fds[0].revents().is_empty() => {}
            Ok(ready) if ready > 0 => return Ok(None),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_helper_ends_well_badly_or_too_late() {
        let sh = find("sh", None).unwrap();
        run(&sh, &["-c", "exit 0"], Duration::from_secs(5)).unwrap();
        let error = run(&sh, &["-c", "echo no >&2; exit 3"], Duration::from_secs(5)).unwrap_err();
        assert_eq!(error.to_string(), "`sh` failed (exit status 3): no");
        let start = Instant::now();
        let error = run(&sh, &["-c", "exec sleep 60"], Duration::from_millis(100)).unwrap_err();
        assert!(matches!(error, OpsError::Slow { .. }), "{error}");
        assert!(start.elapsed() < Duration::from_secs(5));
        assert!(find("no-such-program-here", None).is_none());
    }
}
