//! Programs of the user's at points of a guest's life.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::{OpsError, process, session};
use crate::hook::Hook;

/// For the processes of a hook that took too long to be gone.
const KILLED: Duration = Duration::from_secs(2);
/// A log that has grown beyond this is put aside.
const LOG_LIMIT: u64 = 1 << 20;
/// How much of what it said is told.
const TAIL: u64 = 1024;

/// Runs it, unless it was begun before in this life of the guest: whatever crashes, it is not run twice.
///
/// # Errors
/// It cannot be run, fails, or takes too long. It is noted as run all the same.
pub fn run(hook: &Hook) -> Result<(), OpsError> {
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
    let path = std::path::Path::new(program);
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
    let mut child = command.spawn().map_err(cannot("run"))?;
    let limit = Duration::from_millis(hook.timeout_ms);
    let Some(status) = process::wait(&mut child, limit).map_err(cannot("wait for"))? else {
        let group = i32::try_from(child.id()).unwrap_or(i32::MAX);
        // It may have ended meanwhile.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        let _ = process::wait(&mut child, KILLED);
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
    match run(hook) {
        Err(error) if !hook.required => {
            let hook = &hook.name;
            tracing::warn!("the hook `{hook}` failed: {error}");
            Ok(())
        }
        done => done,
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
    use super::*;

    fn hook(dir: &std::path::Path, name: &str, script: &str) -> Hook {
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
        let error = run(&one).unwrap_err().to_string();
        assert_eq!(error, "`sh` failed (exit status 4): no good");
        run(&one).unwrap();
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
        let error = run(&one).unwrap_err();
        assert!(matches!(error, OpsError::Slow { .. }), "{error}");
        let pid = fs::read_to_string(&pid).unwrap();
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        let gone = stat.map_or(true, |stat| stat.contains(") Z ") || stat.contains(") X "));
        assert!(gone, "{pid}");
    }
}
