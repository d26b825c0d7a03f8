//! The command line as data: it can be printed for people, or rendered with real fd numbers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The first number that passed file descriptors get in QEMU.
pub const FIRST_FD: i32 = 10;

/// A command line whose file descriptors have names until launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandLine {
    /// The program.
    pub program: PathBuf,
    /// Its arguments, without the program's own name.
    pub args: Vec<Arg>,
    /// Variables added to its environment.
    pub env: Vec<(String, String)>,
    /// What the descriptors are; the one at index `i` becomes `FIRST_FD + i`.
    pub fds: Vec<Fd>,
}

/// One argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arg {
    /// The same for QEMU and for people. QEMU's JSON, and so mvm, takes UTF-8 only.
    Text(String),
    /// One that differs.
    Fd {
        /// What QEMU gets; `{fd:NAME}` stands for a number.
        real: String,
        /// What a person could paste: with paths instead.
        shown: String,
    },
    /// One for QEMU under mvm alone: a person who pastes the command line does without (`-S`). Descriptors as in `Fd`.
    Real(String),
}

/// A descriptor that QEMU inherits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fd {
    /// Its name in the arguments.
    pub name: String,
    /// What it is.
    pub source: FdSource,
}

/// Where a descriptor comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FdSource {
    /// A listening Unix socket that mvm binds.
    Listen(PathBuf),
    /// The guest's lock file, so that the lock lives as long as QEMU.
    Lock(PathBuf),
    /// A queue of the tap device of that name.
    Tap(String),
    /// A device file that mvm opens (`/dev/vhost-net`, `/dev/vhost-vsock`).
    Device(PathBuf),
    /// A connection to the program that listens on that Unix socket.
    Connect(PathBuf),
    /// What a file that holds a password says, without the end of its line; QEMU gets a copy in memory.
    Secret(PathBuf),
}

impl CommandLine {
    /// The number of a descriptor in QEMU.
    pub fn fd_number(&self, name: &str) -> Option<i32> {
        let index = self.fds.iter().position(|fd| fd.name == name)?;
        i32::try_from(index).ok().map(|index| FIRST_FD + index)
    }

    /// The arguments as QEMU gets them.
    pub fn argv(&self) -> Vec<String> {
        self.args
            .iter()
            .map(|arg| match arg {
                Arg::Text(text) => text.clone(),
                Arg::Fd { real, .. } | Arg::Real(real) => {
                    let mut text = real.clone();
                    for (index, fd) in self.fds.iter().enumerate() {
                        let number = FIRST_FD as usize + index;
                        text = text.replace(&format!("{{fd:{}}}", fd.name), &number.to_string());
                    }
                    text
                }
            })
            .collect()
    }

    /// The arguments as a person could paste them, unquoted.
    pub fn shown(&self) -> Vec<String> {
        self.args
            .iter()
            .filter_map(|arg| match arg {
                Arg::Text(text) => Some(text.clone()),
                Arg::Fd { shown, .. } => Some(shown.clone()),
                Arg::Real(_) => None,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_get_numbers_at_the_end() {
        let line = CommandLine {
            program: "qemu".into(),
            args: vec![
                Arg::Real("-S".into()),
                Arg::Text("-chardev".into()),
                Arg::Fd {
                    real: "socket,id=q,server=on,wait=off,fd={fd:q}".into(),
                    shown: "socket,id=q,server=on,wait=off,path=/run/q".into(),
                },
            ],
            env: vec![],
            fds: vec![
                Fd {
                    name: "lock".into(),
                    source: FdSource::Lock("/run/lock".into()),
                },
                Fd {
                    name: "q".into(),
                    source: FdSource::Listen("/run/q".into()),
                },
            ],
        };
        assert_eq!(line.argv()[2], "socket,id=q,server=on,wait=off,fd=11");
        assert_eq!(
            line.shown()[1],
            "socket,id=q,server=on,wait=off,path=/run/q"
        );
        assert_eq!(line.fd_number("q"), Some(11));
    }
}
