//! Device nodes that a guest's devices need.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::facts::Roots;

/// A device node, and whether this user can open it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// The node, as a guest's command line would name it.
    pub path: String,
    /// It opens for reading and writing.
    pub usable: bool,
    /// Why it does not.
    pub why_not: Option<NodeProblem>,
}

/// Why a device node cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeProblem {
    /// There is no such node: the module is not loaded, or a container was not given it.
    Missing,
    /// The node is there and no driver answers: the kernel lacks the module or the hardware.
    NoDriver,
    /// This user may not open it.
    Denied {
        /// The group that may, where there is one.
        group: Option<String>,
        /// The node's permission bits.
        mode: u32,
    },
    /// Something else: the system's own words.
    Other(String),
}

impl std::fmt::Display for NodeProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("it does not exist"),
            Self::NoDriver => f.write_str("no driver answers behind it"),
            Self::Denied {
                group: Some(group), ..
            } => {
                write!(
                    f,
                    "permission denied: only root and the group {group} may open it"
                )
            }
            Self::Denied { group: None, .. } => {
                f.write_str("permission denied: only root may open it")
            }
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl DeviceNode {
    /// Opens and closes the node. Opening is what QEMU will do first; nothing is configured.
    pub fn probe(roots: &Roots, path: &str) -> Self {
        let why_not = open(&roots.path(path)).err();
        Self {
            path: path.to_owned(),
            usable: why_not.is_none(),
            why_not,
        }
    }
}

/// Opens a node for reading and writing, and tells what is in the way.
pub(crate) fn open(path: &Path) -> Result<std::fs::File, NodeProblem> {
    let flags = nix::libc::O_CLOEXEC | nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path)
        .map_err(|e| problem(path, &e))
}

fn problem(path: &Path, error: &io::Error) -> NodeProblem {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENOTDIR) => NodeProblem::Missing,
        Some(Errno::ENODEV | Errno::ENXIO) => NodeProblem::NoDriver,
        Some(Errno::EACCES | Errno::EPERM) => denied(path),
        _ => NodeProblem::Other(error.to_string()),
    }
}

fn denied(path: &Path) -> NodeProblem {
    let Ok(meta) = path.metadata() else {
        return NodeProblem::Denied {
            group: None,
            mode: 0,
        };
    };
    let mode = meta.mode() & 0o7777;
    // The group helps only where the group may read and write, and root's own group is never the advice.
    let group = if mode & 0o060 == 0o060 && meta.gid() != 0 {
        group_name(meta.gid())
    } else {
        None
    };
    NodeProblem::Denied { group, mode }
}

/// The name of a group from `/etc/group`. Read as a file: a static binary has no NSS.
fn group_name(gid: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/group").ok()?;
    let name = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    });
    Some(name.unwrap_or_else(|| gid.to_string()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use super::*;
    use crate::host::Sysfs;

    fn roots(dir: &Path) -> Roots {
        Roots {
            sysfs: Sysfs::at(dir.join("sys")),
            root: dir.to_owned(),
            cache: None,
            user_config: None,
            around_devices: None,
            leases: "/nowhere".into(),
        }
    }

    #[test]
    fn tells_missing_from_usable() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("dev/net")).unwrap();
        std::fs::write(dir.path().join("dev/net/tun"), "").unwrap();
        let roots = roots(dir.path());
        assert!(DeviceNode::probe(&roots, "/dev/net/tun").usable);
        let none = DeviceNode::probe(&roots, "/dev/vhost-net");
        assert_eq!(
            (none.usable, none.why_not),
            (false, Some(NodeProblem::Missing))
        );
    }

    #[test]
    fn a_denied_node_names_the_group_that_may() {
        let dir = tempfile::tempdir().unwrap();
        let node = dir.path().join("kvm");
        std::fs::write(&node, "").unwrap();
        std::fs::set_permissions(&node, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        assert_eq!(
            denied(&node),
            NodeProblem::Denied {
                group: None,
                mode: 0o600
            }
        );
        let said = problem(&node, &io::Error::from_raw_os_error(Errno::EACCES as i32));
        assert_eq!(said.to_string(), "permission denied: only root may open it");
    }

    #[test]
    fn a_node_without_a_driver_is_told_apart() {
        let said = problem(
            Path::new("/dev/x"),
            &io::Error::from_raw_os_error(Errno::ENODEV as i32),
        );
        assert_eq!(said, NodeProblem::NoDriver);
    }
}
