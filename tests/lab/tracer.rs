//! Runs a command of mvm and kills it at the Nth system call that changes something. This part runs inside
//! the host.
//!
//! Counted are the calls of all processes that are mvm (the command, the supervisor in the background, those
//! between fork and exec, helpers), in the order they are made; a program that mvm starts, QEMU first of all,
//! is let go at its `execve`. The kill comes when the call is about to be made: the state before it. The state
//! after it is that of the next one.
//!
//! What changes something: making, renaming, removing and cutting files, modes and owners, binding sockets,
//! writing to anything but pipes, event counters and the terminal, ioctls on the tun device, VFIO and sockets,
//! limits, new processes and signals. Not counted, because nothing of it outlives the process or can be seen
//! by another: its memory, its threads and locks, KVM's probe, and `fsync` (it changes what survives a loss of
//! power, not what survives a kill: the state is that of the next counted call).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// Who is killed when the call comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Victim {
    /// The command itself: `mvm run` is the supervisor. Its children go on.
    Main,
    /// The process that makes the call.
    Caller,
    /// Every process of mvm at once.
    All,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Traced {
    /// Every counted call in words, in order, up to the one at which the kill came.
    pub(crate) calls: Vec<String>,
    /// Whether the kill came.
    pub(crate) killed: bool,
    /// The command's exit code, where it ended by itself.
    pub(crate) code: Option<i32>,
    /// Whether it had to be ended because it took too long.
    pub(crate) hung: bool,
}

struct Tracer {
    main: Pid,
    /// Threads and the process that they belong to.
    threads: BTreeMap<Pid, Pid>,
    /// Processes that are mvm.
    counted: BTreeSet<Pid>,
    calls: Vec<String>,
    at: Option<usize>,
    victim: Victim,
    killed: bool,
    only: String,
    /// Whether the last call of any kind was one of those that count.
    just_counted: bool,
}

/// Runs a shell command, whose program must be mvm, and kills at call `at` (from 1). Where `only` is not empty,
/// only the calls count whose words hold it, and the one that follows each of them.
pub(crate) fn run(
    command: &str,
    at: Option<usize>,
    victim: Victim,
    limit: Duration,
    only: &str,
) -> Traced {
    // Stops itself, so that it can be caught before it begins.
    let mut child = Command::new("dash")
        .args(["-c", &format!("kill -STOP $$; exec {command}")])
        .stdin(Stdio::null())
        .spawn()
        .expect("a shell");
    let main = Pid::from_raw(i32::try_from(child.id()).expect("an id"));
    waitpid(main, Some(WaitPidFlag::WUNTRACED)).expect("it stops");
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(main, options).expect("it is our child");
    kill(main, Signal::SIGCONT).expect("it is our child");

    // Who hangs is ended, and then waited for as always.
    let (done, is_done) = channel::<()>();
    let watchdog = std::thread::spawn(move || {
        let hung = is_done.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
        if hung {
            // It may have ended just now.
            let _ = kill(main, Signal::SIGKILL);
        }
        hung
    });
    let mut tracer = Tracer {
        main,
        threads: BTreeMap::from([(main, main)]),
        counted: BTreeSet::new(),
        calls: Vec::new(),
        at,
        victim,
        killed: false,
        only: only.to_owned(),
        just_counted: false,
    };
    let code = tracer.follow();
    drop(done);
    let hung = watchdog.join().expect("no panic there");
    // Reaped already.
    let _ = child.try_wait();
    Traced {
        calls: tracer.calls,
        killed: tracer.killed,
        code,
        hung,
    }
}

impl Tracer {
    /// Until nobody is traced any more.
    fn follow(&mut self) -> Option<i32> {
        let mut code = None;
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Ok(status) => status,
                Err(Errno::EINTR) => continue,
                Err(_) => return code, // no child is left
            };
            match status {
                WaitStatus::Exited(pid, status) => {
                    self.gone(pid);
                    if pid == self.main {
                        code = Some(status);
                    }
                }
                WaitStatus::Signaled(pid, _, _) => self.gone(pid),
                WaitStatus::PtraceSyscall(pid) => self.call(pid),
                WaitStatus::PtraceEvent(pid, _, event) => self.event(pid, event),
                WaitStatus::Stopped(pid, signal) => {
                    self.known(pid);
                    go_on(pid, Some(signal));
                }
                _ => {}
            }
            if self.threads.is_empty() {
                return code;
            }
        }
    }

    fn gone(&mut self, pid: Pid) {
        self.threads.remove(&pid);
        self.counted.remove(&pid);
    }

    /// The process of a thread, which may be new.
    fn known(&mut self, pid: Pid) -> Pid {
        if let Some(process) = self.threads.get(&pid) {
            return *process;
        }
        let process = process_of(pid).unwrap_or(pid);
        self.threads.insert(pid, process);
        if is_mvm(process) {
            self.counted.insert(process);
        }
        process
    }

    fn event(&mut self, pid: Pid, event: i32) {
        let process = self.known(pid);
        if event == libc::PTRACE_EVENT_EXEC {
            // After an execve there is one thread, with the process' number.
            if is_mvm(process) {
                self.counted.insert(process);
            } else {
                self.gone(pid);
                // Whatever it is, it is not what is tested.
                let _ = ptrace::detach(pid, None);
                return;
            }
        }
        go_on(pid, None);
    }

    fn call(&mut self, pid: Pid) {
        let process = self.known(pid);
        if self.counted.contains(&process) && !self.killed {
            if let Some(words) = crate::syscalls::change(pid) {
                let asked = words.contains(&self.only);
                let counts = asked || self.just_counted;
                self.just_counted = asked;
                if !counts {
                    go_on(pid, None);
                    return;
                }
                self.calls.push(words);
                if self.at == Some(self.calls.len()) {
                    self.kill(process);
                }
            }
        }
        go_on(pid, None);
    }

    fn kill(&mut self, caller: Pid) {
        self.killed = true;
        let victims: Vec<_> = match self.victim {
            Victim::Main => vec![self.main],
            Victim::Caller => vec![caller],
            Victim::All => self.counted.iter().copied().collect(),
        };
        for pid in victims {
            // It may be ending by itself.
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

/// To the next system call.
fn go_on(pid: Pid, signal: Option<Signal>) {
    // One that was killed is reported by its end.
    let _ = ptrace::syscall(pid, signal);
}

fn process_of(thread: Pid) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    line.trim().parse().ok().map(Pid::from_raw)
}

fn is_mvm(pid: Pid) -> bool {
    fs::read_link(format!("/proc/{pid}/exe"))
        .is_ok_and(|path| path.file_name().is_some_and(|name| name == "mvm"))
}
