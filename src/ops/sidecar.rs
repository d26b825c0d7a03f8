//! Programs that serve a guest beside its QEMU: started, found, ended.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use command_fds::FdMapping;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{OpsError, lock, process, session, socket};
use crate::sidecar::{READY, SOCKET, Sidecar};

/// For a program to say that it is ready.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// For a program to end after SIGTERM, and again after SIGKILL.
const END_WITHIN: Duration = Duration::from_secs(5);
/// For the kernel to let a child be reaped whose descriptors are closed.
const REAP_WITHIN: Duration = Duration::from_secs(1);
/// How much of what it said is told.
const TAIL: u64 = 2048;
/// A log that has grown beyond this is put aside.
const LOG_LIMIT: u64 = 1 << 20;
/// The numbers of the descriptors that it gets: of the socket, of the lock, of the word that it is ready.
const FDS: [i32; 3] = [10, 11, 12];

/// Starts it, and waits until it says that it is ready where it does so.
///
/// # Errors
/// It cannot be started, or ends, or is not ready by the deadline; it is ended then.
pub(crate) fn start(sidecar: &Sidecar) -> Result<(), OpsError> {
    // One that a start has left which died half-way: the guest's lock, taken before, is ours.
    end(&sidecar.lock, &sidecar.socket)?;
    let cannot = |what| OpsError::io::<io::Error>(what, &sidecar.program);
    let held = lock::take(&sidecar.lock)?;
    let listener = socket::listen(&sidecar.socket)?;
    wait_on(&listener).map_err(OpsError::io("set up", &sidecar.socket))?;
    let word = Word::new(&sidecar.lock)?;
    let mut log = open_log(&sidecar.log)?;
    let numbers = |arg: &String| {
        arg.replace(SOCKET, &FDS[0].to_string())
            .replace(READY, &FDS[2].to_string())
    };
    let args: Vec<String> = sidecar.args.iter().map(numbers).collect();
    let line = shlex::try_join(args.iter().map(String::as_str)).unwrap_or_default();
    writeln!(log, "mvm: {} {line}", sidecar.program.display())
        .map_err(OpsError::io("write", &sidecar.log))?;
    let from = log.metadata().map_or(0, |meta| meta.len());
    let also = log.try_clone().map_err(cannot("keep the words of"))?;

    let mut note = File::from(held.try_clone().map_err(cannot("lock"))?);
    let mut command = Command::new(&sidecar.program);
    command
        .args(&args)
        .current_dir(&sidecar.dir)
        // They are the supervisor's.
        .env_remove("NOTIFY_SOCKET")
        .env_remove("LISTEN_FDS")
        .stdin(Stdio::null())
        .stdout(also)
        .stderr(log);
    session::inherit_nothing(&mut command);
    let mut mapped = vec![(listener, FDS[0]), (held, FDS[1])];
    let says = sidecar.args.iter().any(|arg| arg.contains(READY));
    if says {
        let tell = word.file.try_clone().map_err(cannot("hear from"))?;
        mapped.push((tell.into(), FDS[2]));
    }
    let mapped = mapped.into_iter().map(|(parent_fd, child_fd)| FdMapping {
        parent_fd,
        child_fd,
    });
    let reserved = session::give(&mut command, mapped.collect()).map_err(cannot("run"))?;
    session::detach(&mut command);
    if let Some(user) = &sidecar.user {
        session::become_user(&mut command, user.uid, user.gid, &user.groups);
    }
    let mut child = command.spawn().map_err(cannot("run"))?;
    // With it go our copies of what it inherits: once it is gone, nobody listens and nobody has the lock.
    drop((command, reserved));
    // Its own process id, in the place of ours.
    let noted = note
        .set_len(0)
        .and_then(|()| note.rewind())
        .and_then(|()| writeln!(note, "{}", child.id()));
    drop(note);
    let begun = noted.map_err(OpsError::io("write", &sidecar.lock));
    let begun = begun.and_then(|()| match says {
        true => until_ready(sidecar, &mut child, &word, from),
        false => Ok(()),
    });
    if begun.is_err() {
        // It may have ended meanwhile; both calls then have nothing to do.
        let _ = child.kill();
        let _ = process::wait(&mut child, END_WITHIN);
    }
    begun
}

/// The file to which a program writes that it is ready. Not a pipe, and not one in memory alone: swtpm wants one
/// that has a name.
struct Word {
    file: File,
    path: PathBuf,
}

impl Word {
    fn new(lock: &Path) -> Result<Self, OpsError> {
        let path = lock.with_extension("ready");
        super::dirs::remove_file(&path)?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(OpsError::io("make", &path))?;
        Ok(Self { file, path })
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        // The program may have removed it; with the directory it goes in any case.
        let _ = fs::remove_file(&self.path);
    }
}

/// Lets calls on the socket wait, as programs expect of one that they inherit.
fn wait_on(socket: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
    fcntl(socket, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(())
}

fn open_log(log: &Path) -> Result<File, OpsError> {
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

/// Waits for the first byte of its word.
fn until_ready(
    sidecar: &Sidecar,
    child: &mut Child,
    word: &Word,
    from: u64,
) -> Result<(), OpsError> {
    let cannot = |what| OpsError::io::<io::Error>(what, &sidecar.program);
    let end = Instant::now() + READY_WITHIN;
    loop {
        let status = child.try_wait().map_err(cannot("wait for"))?;
        let said_so = word.file.metadata().map_err(cannot("hear from"))?.len() > 0;
        match status {
            Some(status) => {
                return Err(OpsError::Program {
                    program: sidecar.program_name(),
                    how: process::how(status),
                    said: said(&sidecar.log, from),
                });
            }
            None if said_so => return Ok(()),
            None if Instant::now() >= end => {
                return Err(OpsError::NotReady {
                    program: sidecar.program_name(),
                    seconds: READY_WITHIN.as_secs(),
                    log: sidecar.log.clone(),
                });
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// The end of what it wrote since, on one line.
fn said(log: &Path, from: u64) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(TAIL))))?;
        let mut text = Vec::new();
        file.take(TAIL).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}

/// The last line that a program has written to its log.
pub fn last_words(log: &Path) -> Option<String> {
    let said = said(log, 0);
    let last = said.rsplit("; ").next()?;
    (!last.is_empty() && !last.starts_with("mvm: ")).then(|| last.to_owned())
}

/// The processes that hold the lock, as far as this user may look: the one that is noted in it, or else whoever has
/// inherited it. What their descriptors lead to is read and not looked at: a file on a server that is gone would
/// not answer.
pub fn processes(lock: &Path) -> Vec<u32> {
    let Ok(at) = fs::canonicalize(lock) else {
        return Vec::new();
    };
    let link = |pid: u32, name: &str| fs::read_link(format!("/proc/{pid}/{name}")).ok();
    let ours = link(std::process::id(), "exe");
    // Another mvm may just be asking who has it.
    let is_mvm = |pid: u32| {
        ours.is_some() && link(pid, "exe").as_deref().map(replaced) == ours.as_deref().map(replaced)
    };
    let has = |pid: u32| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        let mut fds = fds.flatten();
        !is_mvm(pid) && fds.any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == at))
    };
    if let Some(noted) = lock::holder(lock).filter(|pid| has(*pid)) {
        return vec![noted];
    }
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    all.filter(|pid| has(*pid)).collect()
}

/// The program's path, though an upgrade may have put another in its place.
fn replaced(exe: &Path) -> &[u8] {
    let exe = exe.as_os_str().as_bytes();
    exe.strip_suffix(b" (deleted)").unwrap_or(exe)
}

/// Ends it, and removes what it was reached by. One that has ended already is fine.
///
/// # Errors
/// It does not end.
pub(crate) fn end(lock: &Path, socket: &Path) -> Result<(), OpsError> {
    let noted = lock::holder(lock);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        if !lock::is_held(lock)? {
            break;
        }
        let end = Instant::now() + END_WITHIN;
        let mut told = BTreeSet::new();
        let mut pause = Duration::from_millis(2);
        while lock::is_held(lock)? && Instant::now() < end {
            // The program first; what it leaves behind follows.
            for pid in processes(lock) {
                if told.insert(pid) {
                    // It may just have ended by itself.
                    let _ = kill(pid_of(pid), signal);
                }
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
    if lock::is_held(lock)? {
        return Err(OpsError::Stays {
            lock: lock.to_owned(),
            pids: processes(lock),
        });
    }
    // A child of ours is to be waited for.
    let end = Instant::now() + REAP_WITHIN;
    while noted.is_some_and(|pid| reap(pid) == Reaped::NotYet) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    super::dirs::remove_file(socket)?;
    super::dirs::remove_file(lock)
}

/// What came of reaping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaped {
    /// It runs.
    NotYet,
    /// It has ended like that.
    Ended(ExitStatus),
    /// It is no child of ours, or was reaped before.
    NotOurs,
}

/// Reaps a sidecar that was started by this very process, if it has ended.
pub fn reap(pid: u32) -> Reaped {
    use std::os::unix::process::ExitStatusExt;
    match waitpid(pid_of(pid), Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(_, code)) => Reaped::Ended(ExitStatus::from_raw(code << 8)),
        Ok(WaitStatus::Signaled(_, signal, _)) => {
            Reaped::Ended(ExitStatus::from_raw(signal as i32))
        }
        Ok(_) => Reaped::NotYet,
        Err(_) => Reaped::NotOurs,
    }
}

fn pid_of(pid: u32) -> Pid {
    // The kernel's are far below.
    Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX))
}

/// A connection to it, for QEMU.
pub(crate) fn connect(path: &Path) -> Result<OwnedFd, OpsError> {
    // By the directory's descriptor, as the path may be longer than an address.
    let dir = path.parent().unwrap_or(Path::new("/"));
    let dir = File::open(dir).map_err(OpsError::io("open", dir))?;
    let name = path.file_name().unwrap_or_default();
    let short = Path::new("/proc/self/fd")
        .join(dir.as_raw_fd().to_string())
        .join(name);
    UnixStream::connect(short)
        .map(Into::into)
        .map_err(OpsError::io("connect to", path))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::io::BufRead;

    /// A shell with that script: `$1` is the socket's descriptor, `$2` the one for its word.
    fn sidecar(dir: &Path, script: &str, says: bool) -> Sidecar {
        let ready = if says { READY } else { "" };
        let words = ["-c", script, "sh", SOCKET, ready];
        Sidecar {
            name: "x".to_owned(),
            loss: "nothing is lost".to_owned(),
            program: process::find("sh", None).unwrap(),
            dir: dir.to_owned(),
            args: words.map(str::to_owned).to_vec(),
            shown: Vec::new(),
            socket: Sidecar::socket_in(dir, "x"),
            lock: Sidecar::lock_in(dir, "x"),
            log: dir.join("x.log"),
            user: None,
        }
    }

    #[test]
    fn one_is_started_found_and_ended_whatever_it_does_with_signals() {
        let top = tempfile::tempdir().unwrap();
        for script in [
            "echo ready >/proc/self/fd/$2; exec sleep 1000",
            // A child holds on after the program itself has gone.
            "trap '' TERM; sleep 1000 & echo ready >/proc/self/fd/$2; wait; sleep 1000",
        ] {
            let one = sidecar(top.path(), script, true);
            start(&one).unwrap();
            let found = processes(&one.lock);
            assert_eq!(Some(found[0]), lock::holder(&one.lock), "{script}");
            assert!(!one.lock.with_extension("ready").exists());
            assert!(socket::is_listening(&one.socket));
            assert!(connect(&one.socket).is_ok());
            // Again: the one before goes.
            start(&one).unwrap();
            assert!(!processes(&one.lock).contains(&found[0]));
            let pid = processes(&one.lock)[0];
            end(&one.lock, &one.socket).unwrap();
            assert_eq!(reap(pid), Reaped::NotOurs, "it was reaped");
            assert!(!one.socket.exists() && !one.lock.exists());
            end(&one.lock, &one.socket).unwrap();
        }
    }

    #[test]
    fn whoever_looks_at_the_lock_is_no_holder() {
        let top = tempfile::tempdir().unwrap();
        let one = sidecar(top.path(), "exec sleep 1000", false);
        start(&one).unwrap();
        // As a second mvm has it open: this very program.
        let _open = File::open(&one.lock).unwrap();
        let link = top.path().join("link");
        std::os::unix::fs::symlink(top.path(), &link).unwrap();
        let pid = lock::holder(&one.lock).unwrap();
        assert_eq!(processes(&Sidecar::lock_in(&link, "x")), [pid]);
        // Whatever is noted: what has it is found.
        let us = std::process::id();
        fs::write(&one.lock, format!("{us}\n")).unwrap();
        assert_eq!(processes(&one.lock), [pid]);
        fs::write(&one.lock, format!("{pid}\n")).unwrap();
        end(&one.lock, &one.socket).unwrap();
    }

    #[test]
    fn one_that_ends_before_it_is_ready_says_why() {
        let top = tempfile::tempdir().unwrap();
        let one = sidecar(top.path(), "echo no such thing >&2; exit 3", true);
        let error = start(&one).unwrap_err().to_string();
        assert_eq!(error, "`sh` failed (exit status 3): no such thing");
        assert_eq!(last_words(&one.log).as_deref(), Some("no such thing"));
        assert!(processes(&one.lock).is_empty());
        let mut missing = sidecar(top.path(), "", false);
        missing.program = "/no/such/program".into();
        let error = start(&missing).unwrap_err().to_string();
        assert_eq!(error, "cannot run /no/such/program");
        end(&one.lock, &one.socket).unwrap();
    }

    #[test]
    fn one_that_says_nothing_is_reached_by_its_socket() {
        let top = tempfile::tempdir().unwrap();
        // What it inherits: the socket, its lock, and nothing else of ours.
        let mut one = sidecar(top.path(), "ls -l /proc/self/fd; exec sleep 1000", false);
        one.args.pop();
        start(&one).unwrap();
        let end_of_list = || fs::read_to_string(&one.log).is_ok_and(|text| text.contains("11 -> "));
        let until = Instant::now() + Duration::from_secs(20);
        while !end_of_list() {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(5));
        }
        let log = File::open(&one.log).unwrap();
        let listed = io::BufReader::new(log).lines().map(Result::unwrap);
        let numbers = listed.filter(|line| line.contains("socket:") || line.contains(".lock"));
        assert_eq!(numbers.count(), 2);
        end(&one.lock, &one.socket).unwrap();
    }
}
