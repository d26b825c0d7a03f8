//! Who has a file open: found in `/proc`, as far as this user may look.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{presence, state};
use crate::dirs::Dirs;

/// A process that has a file open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub command: String,
}

impl Holder {
    fn of(pid: u32) -> Self {
        let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Self {
            pid,
            command: command.trim().to_owned(),
        }
    }

    /// In words; a guest of ours by its name.
    pub fn describe(&self, dirs: Option<&Dirs>) -> String {
        let guest = dirs
            .and_then(|dirs| presence::list(dirs).ok())
            .into_iter()
            .flatten()
            .find(|(_, there)| {
                there
                    .state()
                    .is_some_and(|state: &state::GuestState| state.pid == Some(self.pid))
            });
        match guest {
            Some((name, _)) => format!("guest `{name}` (process {})", self.pid),
            None => format!("process {} ({})", self.pid, self.command),
        }
    }
}

/// Whether that process has that very file open.
pub fn has_open(pid: u32, path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| has(pid, meta.dev(), meta.ino()))
}

fn has(pid: u32, dev: u64, ino: u64) -> bool {
    let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    fds.flatten()
        .any(|fd| fs::metadata(fd.path()).is_ok_and(|meta| (meta.dev(), meta.ino()) == (dev, ino)))
}

/// Every other process that has that file open.
pub fn of(path: &Path) -> Vec<Holder> {
    let Ok(meta) = fs::metadata(path) else {
        return Vec::new();
    };
    others(|pid| has(pid, meta.dev(), meta.ino()))
}

/// Every other process that has that socket, by the inode that `/proc/net` tells.
pub fn of_socket(inode: u64) -> Vec<Holder> {
    let link = format!("socket:[{inode}]");
    others(|pid| {
        fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|fds| {
            fds.flatten().any(|fd| {
                fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == link.as_str())
            })
        })
    })
}

fn others(has: impl Fn(u32) -> bool) -> Vec<Holder> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let us = std::process::id();
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != us && has(*pid))
        .map(Holder::of)
        .collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn the_one_who_has_it_open_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut child = Command::new("sleep")
            .arg("60")
            .stdin(Stdio::from(file.reopen().unwrap()))
            .spawn()
            .unwrap();
        let found = of(file.path());
        assert!(has_open(child.id(), file.path()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].pid, child.id());
        assert!(!has_open(child.id(), file.path()));
    }
}
