//! QEMU's process: its descriptors, its session, its log.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use command_fds::FdMapping;

use super::error::StartError;
use super::process::Process;
use crate::machine::{Machine, RunAs};
use crate::ops::{self, session, threads};
use crate::plan::apply::Prepared;
use crate::qemu::command::{CommandLine, FIRST_FD, FdSource};

/// A log that has grown beyond this is put aside when QEMU starts.
const LOG_LIMIT: u64 = 1 << 20;
/// How much of the log's end is looked at.
const TAIL: u64 = 8 << 10;

/// A QEMU that was started.
#[derive(Debug)]
pub(crate) struct Launched {
    /// The process.
    pub(crate) process: Process,
    /// Where in its log this QEMU begins.
    pub(crate) log_from: u64,
}

/// Starts QEMU: as the user who is to run it, in its own session, with nothing to read, its words in the log, and with no
/// descriptor but those of the command line.
///
/// # Errors
/// A descriptor cannot be opened, or the program cannot be run.
pub(crate) fn spawn(
    command: &CommandLine,
    machine: &Machine,
    prepared: &mut Prepared,
    log: &Path,
) -> Result<Launched, StartError> {
    let argv = command.argv();
    let mut file = open_log(log)?;
    let line = shlex::try_join(argv.iter().map(String::as_str)).unwrap_or_default();
    let head = format!(
        "mvm: {} {} {line}\n",
        super::state::now(),
        command.program.display()
    );
    file.write_all(head.as_bytes())
        .map_err(StartError::io("write", log))?;
    let log_from = file.metadata().map_or(0, |meta| meta.len());
    let stdout = file.try_clone().map_err(StartError::io("write", log))?;

    let mut process = Command::new(&command.program);
    process
        .args(argv)
        .envs(command.env.iter().map(|(name, value)| (name, value)))
        // They are the supervisor's: QEMU must not announce itself as the service.
        .env_remove("NOTIFY_SOCKET")
        .env_remove("LISTEN_FDS")
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(file);
    session::inherit_nothing(&mut process);
    let mapped = mappings(command, prepared)?;
    let reserved = session::give(&mut process, mapped).map_err(StartError::Setup)?;
    session::umask(&mut process, machine.umask());
    session::detach(&mut process);
    if let Some(cpus) = machine.threads.first() {
        threads::start_on(&mut process, cpus);
    }
    if let Some(RunAs {
        uid, gid, groups, ..
    }) = &machine.run_as
    {
        // Last: what is opened and set before is done with our own rights.
        session::become_user(&mut process, *uid, *gid, groups);
    }
    let child = process
        .spawn()
        .map_err(StartError::io("run", &command.program))?;
    // With the command go our copies of QEMU's listening sockets: once QEMU is gone, connections
    // to them end rather than wait.
    drop((process, reserved));
    Ok(Launched {
        process: Process::child(child).map_err(StartError::Setup)?,
        log_from,
    })
}

fn mappings(command: &CommandLine, prepared: &mut Prepared) -> Result<Vec<FdMapping>, StartError> {
    let mut mapped = Vec::with_capacity(command.fds.len());
    for (child_fd, fd) in (FIRST_FD..).zip(&command.fds) {
        let parent_fd: OwnedFd = match &fd.source {
            FdSource::Listen(path) => prepared
                .listeners
                .remove(path)
                .ok_or_else(|| StartError::NoFd(fd.name.clone()))?,
            FdSource::Lock(path) => prepared
                .lock
                .try_clone()
                .map_err(StartError::io("share", path))?,
            source @ (FdSource::Tap(_)
            | FdSource::Device(_)
            | FdSource::Connect(_)
            | FdSource::Secret(_)) => {
                ops::open_source(source)?.ok_or_else(|| StartError::NoFd(fd.name.clone()))?
            }
        };
        mapped.push(FdMapping {
            parent_fd,
            child_fd,
        });
    }
    Ok(mapped)
}

fn open_log(log: &Path) -> Result<File, StartError> {
    if let Some(dir) = log.parent() {
        for dir in dir.parent().into_iter().chain([dir]) {
            ops::dirs::make(dir, 0o700, true)?;
        }
    }
    if fs::metadata(log).is_ok_and(|meta| meta.len() > LOG_LIMIT) {
        let aside = log.with_extension("log.1");
        fs::rename(log, &aside).map_err(StartError::io("put aside", log))?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(log)
        .map_err(StartError::io("open", log))
}

/// The end of what this QEMU wrote.
pub(crate) fn tail(log: &Path, from: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(TAIL))))?;
        let mut text = Vec::new();
        file.take(TAIL).read_to_end(&mut text)?;
        Ok(text)
    };
    read().map_or_else(
        |_| String::new(),
        |text| String::from_utf8_lossy(&text).into_owned(),
    )
}
