//! Whether mvm can write where it keeps things: on a small system the root file system is often
//! read-only, and `/run` not there.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use super::{Finding, Level, finding};
use crate::dirs::Dirs;

/// A directory that mvm cannot make, or cannot write in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwritable {
    /// The environment variable that names another.
    pub variable: &'static str,
    /// The directory.
    pub path: PathBuf,
    /// Why not.
    pub why: Errno,
}

/// Those of the directories that cannot be written, without trying: nothing is made.
pub(super) fn unwritable(dirs: &Dirs) -> Vec<Unwritable> {
    let all = [
        ("MVM_RUNTIME_DIR", &dirs.runtime),
        ("MVM_STATE_DIR", &dirs.state),
        ("MVM_CACHE_DIR", &dirs.cache),
    ];
    all.into_iter()
        .filter_map(|(variable, path)| {
            let why = refusal(path)?;
            let path = path.clone();
            Some(Unwritable {
                variable,
                path,
                why,
            })
        })
        .collect()
}

/// What writing into the directory, or making it, would fail with.
fn refusal(path: &Path) -> Option<Errno> {
    let existing = path.ancestors().find(|dir| dir.exists())?;
    access(existing, AccessFlags::W_OK | AccessFlags::X_OK).err()
}

pub(super) fn findings(found: &[Unwritable]) -> Vec<Finding> {
    let finding = |one: &Unwritable| {
        let path = one.path.display();
        let why = one.why.desc();
        let (level, text) = if one.variable == "MVM_CACHE_DIR" {
            let what = "each start of a guest measures KVM and asks QEMU again";
            (
                Level::Warn,
                format!("{path} cannot be written ({why}): {what}"),
            )
        } else {
            (Level::Error, format!("{path} cannot be written: {why}"))
        };
        let id = match one.variable {
            "MVM_RUNTIME_DIR" => "runtime-directory",
            "MVM_STATE_DIR" => "state-directory",
            _ => "cache-directory",
        };
        finding(id, level, text).fix(format!(
            "mount a file system that can be written there (a tmpfs will do for all but disks and UEFI variables), or set {} to such a directory",
            one.variable
        ))
    };
    found.iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs(at: &Path) -> Dirs {
        let at = at.to_owned();
        Dirs::new(0, &move |name| {
            name.starts_with("MVM_")
                .then(|| at.join(name).into_os_string())
        })
    }

    #[test]
    fn a_directory_that_is_not_there_yet_is_no_finding() {
        let temp = tempfile::tempdir().expect("a folder");
        assert_eq!(unwritable(&dirs(&temp.path().join("not/there"))), []);
    }

    /// Below a file there is no directory, not even for root.
    #[test]
    fn each_directory_that_cannot_be_written_is_named_with_its_variable() {
        let found = unwritable(&dirs(Path::new("/proc/self/mounts/x")));
        let told = findings(&found);
        assert_eq!(told.len(), 3);
        assert_eq!(told[0].level, Level::Error);
        assert!(told[0].text.contains("MVM_RUNTIME_DIR cannot be written"));
        assert!(
            told[1]
                .fix
                .as_ref()
                .expect("a fix")
                .contains("MVM_STATE_DIR")
        );
        assert_eq!(told[2].level, Level::Warn);
    }
}
