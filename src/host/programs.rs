//! Programs that serve a guest beside QEMU.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::facts::Roots;

/// Where those programs are that this host has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Programs {
    /// The TPM in software.
    pub swtpm: Option<PathBuf>,
}

impl Programs {
    /// Looks for them.
    pub fn read(roots: &Roots) -> Self {
        Self {
            swtpm: find(roots, "swtpm", &[]),
        }
    }
}

/// A program in PATH, in one of these folders, or where distributions have programs that PATH may lack.
fn find(roots: &Roots, name: &str, folders: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).filter(|dir| dir.is_absolute());
    let more = folders
        .iter()
        .chain(&["/usr/bin", "/usr/sbin", "/usr/local/bin"]);
    let candidates = in_path.chain(more.map(PathBuf::from));
    candidates
        .map(|dir| roots.path(dir.join(name)))
        .find(|file| is_program(file))
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::host::Sysfs;

    #[test]
    fn a_program_is_found_where_it_can_be_run() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots {
            sysfs: Sysfs::at(dir.path().join("sys")),
            root: dir.path().to_owned(),
            cache: None,
            user_config: None,
            around_devices: None,
            leases: "/nowhere".into(),
        };
        let file = dir.path().join("opt/x/some-helper");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(find(&roots, "some-helper", &["/opt/x"]), None);
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(find(&roots, "some-helper", &["/opt/x"]), Some(file));
        assert_eq!(find(&roots, "some-helper", &[]), None);
    }
}
