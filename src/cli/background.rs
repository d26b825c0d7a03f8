//! A supervisor in the background: this program once more, in a session of its own.
//!
//! Its standard output is a pipe to the command that started it, on which it writes one line when the
//! guest runs; a failure before that appears on the terminal as it is its standard error too, and its
//! exit code is the command's. After that line both go to the guest's `supervisor.log`.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::sync::oneshot;

use super::{Context, Failure, block_on, logging};
use crate::error::{ExitCode, Report};
use crate::ops::session;

/// How long a supervisor that was told to end may take to give the host back.
const GIVE_BACK: Duration = Duration::from_secs(20);

/// Starts `mvm` with those words in the background and waits until its guest runs; gives back what it
/// told about it.
pub(super) fn start<S: AsRef<OsStr>>(
    words: &[S],
    context: &Context,
    within: Duration,
) -> Result<Value, Failure> {
    let cannot = |error: io::Error| {
        Failure::message(
            ExitCode::Failed,
            format!("cannot start a supervisor: {error}"),
        )
    };
    let mut command = Command::new("/proc/self/exe");
    // The name that `ps` shows.
    command
        .arg0("mvm")
        .args(std::iter::repeat_n("-v", usize::from(context.verbose)))
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    session::inherit_nothing(&mut command);
    session::detach(&mut command);
    let mut child = command.spawn().map_err(cannot)?;
    let stdout = child.stdout.take().expect("it was piped");
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        // After the deadline nobody listens.
        let _ = tell.send(read.map(|_| line));
    });
    let waited = block_on(async {
        Ok(tokio::select! {
            line = told => Waited::Line(line.unwrap_or_else(|_| Ok(String::new()))),
            () = tokio::time::sleep(within) => Waited::TooLate,
            _ = tokio::signal::ctrl_c() => Waited::Interrupted,
        })
    })?;
    let line = match waited {
        Waited::Line(line) => line.map_err(cannot)?,
        Waited::TooLate => {
            end(&mut child);
            return Err(Report::new(
                ExitCode::Failed,
                format!("the guest did not run within {} s", within.as_secs()),
            )
            .hint("`--timeout` gives it longer; `mvm list` shows whether it is still being started")
            .into());
        }
        Waited::Interrupted => {
            end(&mut child);
            return Err(Failure::message(ExitCode::Failed, "interrupted"));
        }
    };
    if line.is_empty() {
        return Err(failed(&mut child));
    }
    serde_json::from_str(&line)
        .map_err(|error| cannot(io::Error::new(io::ErrorKind::InvalidData, error)))
}

/// How the waiting for a supervisor came to its end.
enum Waited {
    /// It said that the guest runs, or ended without a word.
    Line(io::Result<String>),
    TooLate,
    Interrupted,
}

/// The supervisor ended without a word on the pipe: what it had to say is on the terminal.
fn failed(child: &mut Child) -> Failure {
    match child.wait().ok().and_then(|status| status.code()) {
        Some(code) if code != 0 => Failure::told(ExitCode::from_number(code)),
        _ => Failure::message(
            ExitCode::Failed,
            "the supervisor ended before the guest ran",
        ),
    }
}

/// Tells the supervisor to end, and waits until it has given the host back.
fn end(child: &mut Child) {
    if let Ok(id) = i32::try_from(child.id()) {
        // The whole group, which it leads: a program that it asks something ends with it. It is our
        // child and not waited for yet, so the id is still its own.
        let _ = killpg(Pid::from_raw(id), Signal::SIGTERM);
    }
    let start = Instant::now();
    while start.elapsed() < GIVE_BACK && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// In the supervisor: tells the waiting command that the guest runs, and lets go of its terminal.
pub(super) fn ready(state: &Value, log: &Path) -> io::Result<()> {
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(log)?;
    let mut line = state.to_string();
    line.push('\n');
    {
        let mut stdout = io::stdout().lock();
        // The command may have been interrupted; the guest runs all the same.
        let _ = stdout
            .write_all(line.as_bytes())
            .and_then(|()| stdout.flush());
    }
    nix::unistd::dup2_stdout(&log)?;
    nix::unistd::dup2_stderr(&log)?;
    logging::to_log();
    // A folder that a process stands in cannot be unmounted.
    std::env::set_current_dir("/")
}
