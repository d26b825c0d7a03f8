//! The host's own TPM, for a guest that is to have it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::facts::Roots;
use super::node;

/// A TPM of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TpmFacts {
    /// Its node, as asked for.
    pub path: PathBuf,
    /// Why a guest cannot have it now.
    pub why_not: Option<String>,
    /// Its version: 1 for 1.2, 2 for 2.0; `None` where the kernel does not tell it.
    pub version: Option<u32>,
    /// Where a command that is under way is cancelled; a TPM 2.0 has no such file.
    pub cancel: Option<PathBuf>,
}

impl TpmFacts {
    /// Looks at the node, at who has it, and at what the kernel says of it. The node is opened and closed, as one
    /// process alone can have it.
    pub fn read(roots: &Roots, path: &str) -> Self {
        let name = Path::new(path).file_name().unwrap_or_default();
        let name = name.to_string_lossy();
        // The resource manager's node is of the same chip.
        let chip = name.replace("tpmrm", "tpm");
        let class = PathBuf::from("class/tpm").join(&chip);
        let version = roots.sysfs.read(class.join("tpm_version_major"));
        let cancel = roots.sysfs.root().join(class.join("device/cancel"));
        let held = holder(roots, &chip);
        let why_not = held.or_else(|| {
            let opened = node::open(&roots.path(path));
            opened.err().map(|problem| problem.to_string())
        });
        Self {
            path: path.into(),
            why_not,
            version: version.ok().and_then(|text| text.trim().parse().ok()),
            cancel: cancel.exists().then_some(cancel),
        }
    }
}

/// Who has the chip open, by either of its nodes, as far as this user may see.
fn holder(roots: &Roots, chip: &str) -> Option<String> {
    let nodes = [chip.to_owned(), chip.replace("tpm", "tpmrm")];
    let nodes = nodes.map(|name| Path::new("/dev").join(name));
    let processes = std::fs::read_dir(roots.path("/proc")).ok()?;
    for process in processes.flatten() {
        let fds = std::fs::read_dir(process.path().join("fd"));
        let has =
            fds.into_iter().flatten().flatten().any(|fd| {
                std::fs::read_link(fd.path()).is_ok_and(|target| nodes.contains(&target))
            });
        if has {
            let comm = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let pid = process.file_name();
            return Some(format!(
                "process {} ({}) has it",
                pid.to_string_lossy(),
                comm.trim()
            ));
        }
    }
    None
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::host::Sysfs;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_tpm_that_somebody_has_is_told_with_his_name() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots {
            sysfs: Sysfs::at(dir.path().join("sys")),
            root: dir.path().to_owned(),
            cache: None,
            user_config: None,
            around_devices: None,
            leases: "/nowhere".into(),
        };
        let facts = TpmFacts::read(&roots, "/dev/tpm0");
        assert_eq!(facts.why_not.as_deref(), Some("it does not exist"));
        let class = dir.path().join("sys/class/tpm/tpm0");
        fs::create_dir_all(class.join("device")).unwrap();
        fs::write(class.join("tpm_version_major"), "2\n").unwrap();
        fs::create_dir_all(dir.path().join("dev")).unwrap();
        fs::write(dir.path().join("dev/tpm0"), "").unwrap();
        let facts = TpmFacts::read(&roots, "/dev/tpm0");
        assert_eq!((facts.why_not, facts.version), (None, Some(2)));
        let process = dir.path().join("proc/77");
        fs::create_dir_all(process.join("fd")).unwrap();
        fs::write(process.join("comm"), "tpm2-abrmd\n").unwrap();
        symlink("/dev/tpmrm0", process.join("fd/5")).unwrap();
        let facts = TpmFacts::read(&roots, "/dev/tpm0");
        let told = facts.why_not.unwrap();
        assert_eq!(told, "process 77 (tpm2-abrmd) has it");
    }
}
