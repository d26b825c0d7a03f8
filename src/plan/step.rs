//! One change to the host, as data, with the inverse that takes it back.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::profile::schema::DiskFormat;

/// A change to the host. Steps are idempotent: each compares before it writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// Makes a directory and its missing parents.
    MakeDir {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// Whether it is removed, with all that mvm put there, when the guest is gone.
        keep: bool,
    },
    /// Takes the guest's lock, which QEMU inherits: held as long as any of the two lives.
    Lock {
        /// The lock file.
        path: PathBuf,
    },
    /// Copies a file where there is none yet (the UEFI variable store). It is kept.
    CopyFile {
        /// The template.
        from: PathBuf,
        /// The copy.
        to: PathBuf,
        /// The copy's mode.
        mode: u32,
    },
    /// Makes a throw-away qcow2 overlay with `qemu-img`.
    CreateOverlay {
        /// The overlay.
        path: PathBuf,
        /// The image below it.
        backing: PathBuf,
        /// That image's format.
        backing_format: DiskFormat,
    },
    /// Makes a persistent tap device. It is in the plan only where the host has none of that name.
    CreateTap {
        /// Its name.
        name: String,
        /// The bridge it joins.
        bridge: Option<String>,
        /// Its address on the host, with prefix length.
        address: Option<String>,
        /// Whether it has a virtio-net header (`IFF_VNET_HDR`).
        vnet_hdr: bool,
    },
    /// Binds a listening Unix socket, mode 0600, which QEMU or the supervisor gets.
    Listen {
        /// The socket.
        path: PathBuf,
    },
    /// Removes a file that an earlier step made.
    RemoveFile {
        /// The file.
        path: PathBuf,
    },
    /// Removes a directory that an earlier step made, with the files that mvm itself puts there.
    RemoveDir {
        /// The directory.
        path: PathBuf,
    },
    /// Removes a tap device that an earlier step made.
    DeleteTap {
        /// Its name.
        name: String,
    },
}

impl Step {
    /// The step that takes this one back; `None` where there is nothing to take back.
    pub fn inverse(&self) -> Option<Self> {
        match self {
            Self::MakeDir {
                path, keep: false, ..
            } => Some(Self::RemoveDir { path: path.clone() }),
            Self::CreateOverlay { path, .. } | Self::Listen { path } => {
                Some(Self::RemoveFile { path: path.clone() })
            }
            Self::CreateTap { name, .. } => Some(Self::DeleteTap { name: name.clone() }),
            // The lock goes with the processes that hold it; the file stays, or two starts could
            // lock two files of one name. A variable store belongs to the guest.
            Self::MakeDir { keep: true, .. }
            | Self::Lock { .. }
            | Self::CopyFile { .. }
            | Self::RemoveFile { .. }
            | Self::RemoveDir { .. }
            | Self::DeleteTap { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_readable_json() {
        let step = Step::Listen {
            path: "/run/mvm/a/qmp.sock".into(),
        };
        let json = serde_json::to_string(&step).expect("a step is plain data");
        assert_eq!(json, r#"{"do":"listen","path":"/run/mvm/a/qmp.sock"}"#);
        assert_eq!(
            step.inverse(),
            Some(Step::RemoveFile {
                path: "/run/mvm/a/qmp.sock".into()
            })
        );
    }
}
