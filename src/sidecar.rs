//! What the machine, the steps and the supervisor say about programs that serve a guest beside its QEMU: plain
//! data.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Stands in an argument for the number of the listening socket's descriptor.
pub const SOCKET: &str = "{socket}";
/// Stands in an argument for the number of a descriptor, an empty file, to which the program writes something once it is ready.
/// Where it stands nowhere, the program is taken for ready when it was started: its socket takes connections.
pub const READY: &str = "{ready}";

/// A program that serves a guest: mvm's child and not QEMU's, started before QEMU, watched while the guest runs,
/// and ended with it.
///
/// Its socket is bound by mvm and inherited. It holds a lock as long as it lives, by which it is found whoever
/// started it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Sidecar {
    /// Its name among those of the guest: `tpm`.
    pub name: String,
    /// What the guest goes without once it has ended, as a whole sentence in lower case.
    pub loss: String,
    /// The program.
    pub program: PathBuf,
    /// Its current directory: paths of the guest's own need no escaping where they are relative.
    pub dir: PathBuf,
    /// Its arguments, with [`SOCKET`] and [`READY`] for descriptors.
    pub args: Vec<String>,
    /// The same as a person would write them, with the socket's path.
    pub shown: Vec<String>,
    /// Where QEMU finds it.
    pub socket: PathBuf,
    /// Held as long as it lives.
    pub lock: PathBuf,
    /// What it writes to stdout and stderr.
    pub log: PathBuf,
    /// As whom it runs, where that is another user than the one who runs mvm.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<SidecarUser>,
}

/// A user by numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SidecarUser {
    /// The user.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// The other groups.
    pub groups: Vec<u32>,
}

impl Sidecar {
    /// The socket of the sidecar of that name in a guest's run-time directory.
    pub fn socket_in(run_dir: &Path, name: &str) -> PathBuf {
        run_dir.join(format!("sidecar-{name}.sock"))
    }

    /// The lock of the sidecar of that name in a guest's run-time directory.
    pub fn lock_in(run_dir: &Path, name: &str) -> PathBuf {
        run_dir.join(format!("sidecar-{name}.lock"))
    }

    /// The program's own name.
    pub fn program_name(&self) -> String {
        let name = self.program.file_name();
        name.unwrap_or(self.program.as_os_str())
            .to_string_lossy()
            .into_owned()
    }
}
