//! Programs that serve a guest beside QEMU.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bounded;
use super::facts::Roots;

/// Where distributions have virtiofsd: beside QEMU's own helpers.
const VIRTIOFSD_FOLDERS: [&str; 4] = [
    "/usr/libexec",
    "/usr/lib",
    "/usr/lib/virtiofsd",
    "/usr/lib/qemu",
];
/// For a program to tell its options.
const TELLS_WITHIN: Duration = Duration::from_secs(5);

/// Where those programs are that this host has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Programs {
    /// The TPM in software.
    pub swtpm: Option<PathBuf>,
    /// What serves virtiofs, where somebody asked.
    pub virtiofsd: Option<Virtiofsd>,
}

/// A virtiofsd. There are two programs of that name, which share no option but the socket's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Virtiofsd {
    /// The program.
    pub path: PathBuf,
    /// Whose it is.
    pub kind: VirtiofsdKind,
    /// Whether it can refuse writes.
    pub readonly: bool,
}

/// Which virtiofsd it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VirtiofsdKind {
    /// QEMU's own, up to QEMU 7.2.
    Qemu,
    /// The one written in Rust.
    Rust,
}

impl Programs {
    /// Looks for them; for virtiofsd, which is asked for its options, where it is wanted.
    pub fn read(roots: &Roots, virtiofsd: bool) -> Self {
        let folders = VIRTIOFSD_FOLDERS.as_slice();
        Self {
            swtpm: find(roots, "swtpm", &[]),
            virtiofsd: virtiofsd
                .then(|| find(roots, "virtiofsd", folders))
                .flatten()
                .and_then(Virtiofsd::ask),
        }
    }
}

impl Virtiofsd {
    /// What the program says of itself. One that says nothing known is none.
    fn ask(path: PathBuf) -> Option<Self> {
        let mut command = Command::new(&path);
        command.arg("--help");
        let outcome = bounded::run(command, TELLS_WITHIN).ok()?;
        let text = String::from_utf8_lossy(&outcome.stdout?).into_owned();
        Self::told(path, &text)
    }

    /// The same by its help.
    fn told(path: PathBuf, help: &str) -> Option<Self> {
        let kind = if help.contains("--shared-dir") {
            VirtiofsdKind::Rust
        } else if help.contains("-o source=") {
            VirtiofsdKind::Qemu
        } else {
            return None;
        };
        Some(Self {
            path,
            kind,
            readonly: kind == VirtiofsdKind::Rust && help.contains("--readonly"),
        })
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

    #[test]
    fn the_two_virtiofsds_are_told_apart_by_what_they_say() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("virtiofsd");
        for (help, known) in [
            (
                "    -o source=PATH             shared directory tree\n",
                Some((VirtiofsdKind::Qemu, false)),
            ),
            (
                "      --shared-dir <SHARED_DIR>\n      --sandbox <SANDBOX>\n",
                Some((VirtiofsdKind::Rust, false)),
            ),
            (
                "      --shared-dir <SHARED_DIR>\n      --readonly\n",
                Some((VirtiofsdKind::Rust, true)),
            ),
            ("usage: something else\n", None),
        ] {
            std::fs::write(&file, format!("#!/bin/sh\ncat <<'E'\n{help}E\n")).unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
            let found = Virtiofsd::ask(file.clone());
            assert_eq!(found.map(|it| (it.kind, it.readonly)), known, "{help}");
        }
    }
}
