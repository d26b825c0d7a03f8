//! Whose something is: a user beside root and ourselves, and the processes that keep it.

use std::fmt;
use std::fs;
use std::path::Path;

use nix::unistd::{Uid, User};
use serde::{Deserialize, Serialize};

/// Another user who has something, with the processes that hold it, as far as they may be seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Owner {
    /// The user's number.
    pub uid: u32,
    /// The user's name.
    pub name: Option<String>,
    /// The processes.
    pub processes: Vec<Process>,
}

/// A process, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// What it runs.
    pub command: String,
}

impl Owner {
    /// The user of that number; `None` for root and for ourselves.
    pub fn other(uid: u32) -> Option<Self> {
        (uid != 0 && uid != Uid::effective().as_raw()).then(|| Self {
            uid,
            name: User::from_uid(uid.into())
                .ok()
                .flatten()
                .map(|user| user.name),
            processes: Vec::new(),
        })
    }

    /// The same, with the processes that have a file open.
    #[must_use]
    pub fn holding(mut self, file: &Path) -> Self {
        let Ok(file) = file.canonicalize() else {
            return self;
        };
        let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        self.processes = numbers
            .filter(|pid| has_open(*pid, &file))
            .map(|pid| {
                let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                let command = command.trim().to_owned();
                Process { pid, command }
            })
            .collect();
        self
    }

    /// What helps against it.
    pub fn advice(&self, guest: &str) -> String {
        let who = self.who();
        let pids: Vec<String> = self
            .processes
            .iter()
            .map(|one| one.pid.to_string())
            .collect();
        match pids.as_slice() {
            _ if !Uid::effective().is_root() => {
                format!("{who} can stop it (`mvm stop {guest}`), and so can root")
            }
            [] => format!(
                "{who} can stop it (`mvm stop {guest}`), or `loginctl terminate-user {who}`"
            ),
            pids => format!(
                "{who} can stop it (`mvm stop {guest}`); `kill {}` ends it, and `mvm recover` then gives back what it had",
                pids.join(" ")
            ),
        }
    }

    fn who(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.uid.to_string())
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}", self.who())?;
        for process in &self.processes {
            write!(f, ", process {} ({})", process.pid, process.command)?;
        }
        Ok(())
    }
}

fn has_open(pid: u32, file: &Path) -> bool {
    let fds = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    fds.flatten()
        .any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == file))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn another_user_is_named_with_what_holds_the_file() {
        assert_eq!(Owner::other(0), None);
        assert_eq!(Owner::other(Uid::effective().as_raw()), None);
        let file = tempfile::NamedTempFile::new().unwrap();
        let stranger = Owner::other(54_321).unwrap().holding(file.path());
        let us = std::process::id();
        let [process] = stranger.processes.as_slice() else {
            panic!("{stranger:?}");
        };
        assert_eq!(process.pid, us);
        let text = format!("user 54321, process {us} ({})", process.command);
        assert_eq!(stranger.to_string(), text);
        assert!(stranger.advice("web").contains("54321"));
    }
}
