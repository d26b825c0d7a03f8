//! Programs of the user's at points of a guest's life.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags};

use super::{OpsError, process, session};
use crate::hook::Hook;
use crate::profile::schema::HookWhen;

/// For the processes of a hook that took too long to be gone.
const KILLED: Duration = Duration::from_secs(2);
/// A log that has grown beyond this is put aside.
const LOG_LIMIT: u64 = 1 << 20;
/// How much of what it said is told.
const TAIL: u64 = 1024;

/// Runs it, unless it was begun before in this life of the guest: whatever crashes, it is not run twice. It is ended
/// once there is something to read from `until`, or its other end is closed.
///
/// # Errors
/// It cannot be run, fails, takes too long, or is ended. It is noted as run all the same.
pub fn run(hook: &Hook, until: Option<BorrowedFd<'_>>) -> Result<(), OpsError> {
    let mark = hook.mark();
    let marked = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&mark);
    match marked {
        Ok(file) => file.sync_all().map_err(OpsError::io("write", &mark))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(OpsError::io("make", &mark)(error)),
    }
    let Some((program, args)) = hook.command.split_first() else {
        return Ok(());
    };
    let path = Path::new(program);
    let cannot = |what| OpsError::io::<io::Error>(what, path);
    let mut log = open_log(hook)?;
    let line = shlex::try_join(hook.command.iter().map(String::as_str)).unwrap_or_default();
    writeln!(log, "mvm: {} ({}): {line}", hook.name, hook.when)
        .map_err(OpsError::io("write", &hook.log))?;
    let from = log.metadata().map_or(0, |meta| meta.len());
    let also = log.try_clone().map_err(cannot("keep the words of"))?;
    let mut command = Command::new(program);
    command
        .args(args)
        .envs(hook.env.iter().map(|(name, value)| (name, value)))
        .env_remove("NOTIFY_SOCKET")
        .env_remove("LISTEN_FDS")
        .stdin(Stdio::null())
        .stdout(also)
        .stderr(log);
    session::inherit_nothing(&mut command);
    // A group of its own, of which nothing is left when it takes too long.
    session::detach(&mut command);
    // As of programs usually, and not for their user alone as what a guest's processes make.
    session::umask(&mut command, 0o022);
    let mut child = command.spawn().map_err(cannot("run"))?;
    let limit = Duration::from_millis(hook.timeout_ms);
    let status = process::wait_until(&mut child, limit, until).map_err(cannot("wait for"))?;
    let Some(status) = status else {
        let group = i32::try_from(child.id()).unwrap_or(i32::MAX);
        // It may have ended meanwhile.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        let _ = process::wait(&mut child, KILLED);
        if until.is_some_and(has_come) {
            return Err(OpsError::BrokenOff(program.clone()));
        }
        return Err(OpsError::Slow {
            program: program.clone(),
            seconds: limit.as_secs(),
        });
    };
    if status.success() {
        return Ok(());
    }
    Err(OpsError::Program {
        program: program.clone(),
        how: process::how(status),
        said: said(hook, from),
    })
}

/// The same where nothing can be done any more about its failure, or nothing is to be done: it is told.
///
/// # Errors
/// As [`run`], of one that is required.
pub(crate) fn run_or_tell(hook: &Hook) -> Result<(), OpsError> {
    // What runs at the end is what cleans up: it has its time whatever comes.
    let stop = if hook.when == HookWhen::PreStart.as_str() {
        Some(Stop::begin().map_err(OpsError::io("wait for", Path::new(&hook.name)))?)
    } else {
        None
    };
    match run(hook, stop.as_ref().map(|stop| stop.told.as_fd())) {
        Err(error) if !hook.required && !matches!(error, OpsError::BrokenOff(_)) => {
            let hook = &hook.name;
            tracing::warn!("the hook `{hook}` failed: {error}");
            Ok(())
        }
        done => done,
    }
}

fn has_come(until: BorrowedFd<'_>) -> bool {
    let now = rustix::event::Timespec::default();
    let mut fds = [PollFd::from_borrowed_fd(until, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Tells of the signals that end mvm while its only thread waits. They stay pending, and have their effect when
/// this ends.
struct Stop {
    before: SigSet,
    told: SignalFd,
}

impl Stop {
    fn begin() -> nix::Result<Self> {
        let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
        let before = SigSet::thread_get_mask()?;
        let told = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        signals.thread_block()?;
        Ok(Self { before, told })
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        // It was this thread's mask before.
        let _ = self.before.thread_set_mask();
    }
}

fn open_log(hook: &Hook) -> Result<File, OpsError> {
    let log = &hook.log;
    if fs::metadata(log).is_ok_and(|meta| meta.len() > LOG_LIMIT) {
        fs::rename(log, log.with_extension("log.1")).map_err(OpsError::io("put aside", log))?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(log)
        .map_err(OpsError::io("open", log))
}

fn said(hook: &Hook, from: u64) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(&hook.log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(TAIL))))?;
        let mut text = Vec::new();
        file.take(TAIL).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).trim().replace('\n', "; "))
    };
    read().unwrap_or_default()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Instant;

    use super::*;

    fn hook(dir: &Path, name: &str, script: &str) -> Hook {
        Hook {
            name: name.to_owned(),
            when: "pre-start".to_owned(),
            command: ["sh", "-c", script, "sh", "a b"]
                .map(str::to_owned)
                .to_vec(),
            timeout_ms: 10_000,
            required: true,
            env: vec![("MVM_GUEST".to_owned(), "g".to_owned())],
            run_dir: dir.to_owned(),
            log: dir.join("hooks.log"),
        }
    }

    #[test]
    fn it_runs_once_whatever_comes_of_it() {
        let top = tempfile::tempdir().unwrap();
        let out = top.path().join("out");
        let script = format!(
            "echo \"$MVM_GUEST $1\" >>{}; echo no good >&2; exit 4",
            out.display()
        );
        let one = hook(top.path(), "x", &script);
        let error = run(&one, None).unwrap_err().to_string();
        assert_eq!(error, "`sh` failed (exit status 4): no good");
        run(&one, None).unwrap();
        assert_eq!(fs::read_to_string(&out).unwrap(), "g a b\n");
        assert!(one.mark().exists());
        let mut told = hook(top.path(), "y", "exit 1");
        told.required = false;
        run_or_tell(&told).unwrap();
    }

    #[test]
    fn one_that_takes_too_long_is_ended_with_its_children() {
        let top = tempfile::tempdir().unwrap();
        let pid = top.path().join("pid");
        let mut one = hook(
            top.path(),
            "x",
            &format!("sleep 1000 & echo $! >{}; wait", pid.display()),
        );
        one.timeout_ms = 500;
        let error = run(&one, None).unwrap_err();
        assert!(matches!(error, OpsError::Slow { .. }), "{error}");
        let pid = fs::read_to_string(&pid).unwrap();
        let is_gone = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            stat.map_or(true, |stat| stat.contains(") Z ") || stat.contains(") X "))
        };
        // It has its SIGKILL, and takes it when it is scheduled.
        let end = Instant::now() + Duration::from_secs(10);
        while !is_gone() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(is_gone(), "{pid}");
    }

    #[test]
    fn one_that_waits_is_ended_when_mvm_is_told_to_end() {
        let top = tempfile::tempdir().unwrap();
        let mut one = hook(top.path(), "x", "sleep 1000");
        one.required = false;
        // The signal itself would end this test.
        let stop = Stop::begin().unwrap();
        nix::sys::signal::raise(Signal::SIGTERM).unwrap();
        let error = run_or_tell(&one).unwrap_err();
        assert!(matches!(error, OpsError::BrokenOff(_)), "{error}");
        assert!(stop.told.read_signal().unwrap().is_some(), "it is pending");
        drop(stop);

        // One that runs beside the guest.
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let one = hook(top.path(), "y", "sleep 1000");
        drop(theirs);
        let error = run(&one, Some(ours.as_fd())).unwrap_err();
        assert!(matches!(error, OpsError::BrokenOff(_)), "{error}");
    }

    #[test]
    fn it_has_nothing_of_the_supervisors_ways() {
        let top = tempfile::tempdir().unwrap();
        let out = top.path().join("out");
        let script = format!(
            "umask >{0}; grep SigBlk /proc/self/status >>{0}",
            out.display()
        );
        run_or_tell(&hook(top.path(), "x", &script)).unwrap();
        let text = fs::read_to_string(&out).unwrap();
        assert_eq!(text, "0022\nSigBlk:\t0000000000000000\n");
    }
}
