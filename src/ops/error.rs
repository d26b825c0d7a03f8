//! Why a step could not be carried out.

use std::io;
use std::path::{Path, PathBuf};

use super::device_error::DeviceError;
use crate::error::{ExitCode, Hint};

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpsError {
    /// A system call on a path failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A system call on a network device failed.
    #[error("cannot {what} `{name}`")]
    Net {
        /// What was tried.
        what: &'static str,
        /// The device.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// A run-time directory of somebody else.
    #[error("{} belongs to user {owner}, not to user {us}", path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// Something else is where a directory, file or socket should be.
    #[error("{} is there already and is {found}, not {wanted}", path.display())]
    InTheWay {
        /// The path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
        /// What should be.
        wanted: &'static str,
    },
    /// A directory keeps files that mvm did not put there.
    #[error("{} holds files that are not mvm's: {}", path.display(), files.join(", "))]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Their names.
        files: Vec<String>,
    },
    /// The lock is held: the guest runs.
    #[error("guest `{guest}` is running already{}", pid_text(*pid))]
    Held {
        /// The guest.
        guest: String,
        /// The process that took the lock.
        pid: Option<u32>,
    },
    /// Somebody listens on the socket.
    #[error("a process listens on {} already", path.display())]
    Listening {
        /// The socket.
        path: PathBuf,
    },
    /// A helper program is missing.
    #[error("`{program}` is neither beside QEMU nor in PATH")]
    NoProgram {
        /// The program.
        program: String,
    },
    /// A helper program failed.
    #[error("`{program}` failed ({how}){}{said}", if said.is_empty() { "" } else { ": " })]
    Program {
        /// The program.
        program: String,
        /// Its exit status.
        how: String,
        /// The end of its stderr.
        said: String,
    },
    /// A helper program took too long and was ended.
    #[error("`{program}` did not end within {seconds} s")]
    Slow {
        /// The program.
        program: String,
        /// The deadline.
        seconds: u64,
    },
    /// A program was not waited for any longer: whoever it runs for ends.
    #[error("`{0}` was ended, as mvm was told to end")]
    BrokenOff(String),
    /// A program beside QEMU has not come to the point where it serves.
    #[error("`{program}` is not ready after {seconds} s")]
    NotReady {
        /// The program.
        program: String,
        /// The deadline.
        seconds: u64,
        /// What it wrote.
        log: PathBuf,
    },
    /// A program beside QEMU does not end.
    #[error("{} does not end, not even by SIGKILL", processes(pids))]
    Stays {
        /// The lock that it holds.
        lock: PathBuf,
        /// The processes.
        pids: Vec<u32>,
    },
    /// The host has no such network device.
    #[error("this host has no network device `{name}`")]
    NoDevice {
        /// The device.
        name: String,
    },
    /// The network device is not a tap.
    #[error("the network device `{name}` is not a tap")]
    NotATap {
        /// The device.
        name: String,
    },
    /// An address that is none.
    #[error("`{address}` is not an address with a prefix length, as in 192.168.7.1/24")]
    BadAddress {
        /// What was given.
        address: String,
    },
    /// A device cannot be taken or given back.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// What was written does not read back.
    #[error("{what} did not take effect")]
    NoEffect {
        /// What.
        what: String,
    },
}

fn pid_text(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})"))
        .unwrap_or_default()
}

fn processes(pids: &[u32]) -> String {
    match pids {
        [] => "a process that cannot be seen".to_owned(),
        pids => {
            let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
            format!("process {}", pids.join(", "))
        }
    }
}

impl OpsError {
    pub(crate) fn io<E: Into<io::Error>>(
        what: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self + use<E> {
        let path = path.to_owned();
        move |source| Self::Io {
            what,
            path,
            source: source.into(),
        }
    }

    pub(crate) fn net<E: Into<io::Error>>(
        what: &'static str,
        name: &str,
    ) -> impl FnOnce(E) -> Self + use<E> {
        let name = name.to_owned();
        move |source| Self::Net {
            what,
            name,
            source: source.into(),
        }
    }

    /// The system's error number behind it, if any.
    pub fn os_error(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } | Self::Net { source, .. } => source.raw_os_error(),
            Self::Device(error) => error.os_error(),
            _ => None,
        }
    }
}

impl Hint for OpsError {
    fn hints(&self) -> Vec<String> {
        use nix::libc::{EACCES, EBUSY, EDQUOT, ENOSPC, EPERM, EROFS};
        let number = self.os_error();
        let hint = match self {
            Self::Device(error) => return error.hints(),
            Self::Held { guest, .. } => format!("end it first: `mvm stop {guest}`"),
            Self::NotOurs { .. } => {
                "set MVM_RUNTIME_DIR to a directory of your own".to_owned()
            }
            Self::Foreign { path, .. } => {
                format!("move them away and remove {}", path.display())
            }
            Self::NoProgram { program } if program == "qemu-img" => {
                "install qemu-img (Debian: qemu-utils)".to_owned()
            }
            Self::NotReady { log, .. } => format!("see what it says in {}", log.display()),
            Self::Stays { lock, .. } => format!(
                "it hangs in the kernel, or is another user's: `fuser {}` shows it, `mvm recover` tries again",
                lock.display()
            ),
            Self::NoDevice { name } => format!(
                "make it first (`ip tuntap add dev {name} mode tap`), or let the profile make it with `create`"
            ),
            Self::Net { .. } if matches!(number, Some(EPERM | EACCES)) => {
                "this needs root or CAP_NET_ADMIN; a tap made beforehand with `ip tuntap add … user YOU` does not".to_owned()
            }
            Self::Net { name, .. } if number == Some(EBUSY) => {
                format!("another process has `{name}`: give each guest a tap of its own")
            }
            Self::Io { path, .. } if matches!(number, Some(ENOSPC | EDQUOT)) => {
                format!("make room on the file system of {}", path.display())
            }
            Self::Io { path, .. } if number == Some(EROFS) => {
                format!(
                    "the file system of {} is read-only: mount one there that can be written, or set MVM_STATE_DIR and MVM_RUNTIME_DIR to directories that can",
                    path.display()
                )
            }
            Self::Io { path, .. } if matches!(number, Some(EPERM | EACCES)) => {
                format!("check the owner and mode of {} and the folders above it", path.display())
            }
            _ => return Vec::new(),
        };
        vec![hint]
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoProgram { .. } | Self::NoDevice { .. } | Self::NotATap { .. } => ExitCode::Host,
            Self::BadAddress { .. } => ExitCode::Profile,
            Self::Device(error) => error.exit_code(),
            _ => ExitCode::Failed,
        }
    }
}
