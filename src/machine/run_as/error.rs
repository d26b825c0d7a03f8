//! Why QEMU cannot run as a user.

use std::path::PathBuf;

use crate::error::{ExitCode, Hint};
use crate::host::rights::{Denied, Need};
use crate::machine::files::shown;

/// QEMU cannot run as that user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunAsError {
    /// The host knows no such user.
    #[error("QEMU is to run as the user `{0}`, whom this host does not know")]
    Nobody(String),
    /// Only root can become somebody else.
    #[error("QEMU is to run as the user `{0}`, which only root can arrange")]
    NotRoot(String),
    /// Only root may keep other people's owners.
    #[error(
        "share `{share}`: the security model `passthrough` needs root's rights, and QEMU is to run as the user `{user}`"
    )]
    Passthrough {
        /// The share.
        share: String,
        /// The user.
        user: String,
    },
    /// A file that would have to be made for the user in a folder that is not mvm's.
    #[error("`firmware.nvram`: {} is not in mvm's own folders, and QEMU is to run as the user `{user}`", path.display())]
    Nvram {
        /// The file.
        path: PathBuf,
        /// The user.
        user: String,
    },
    /// Files that the user may not open.
    #[error("the user `{user}`, as whom QEMU is to run, may not {}", first(denied))]
    Denied {
        /// The user.
        user: String,
        /// What stands in the way.
        denied: Vec<Denied>,
    },
    /// This process may not ask.
    #[error("what the user `{user}` may open cannot be found out: {why}")]
    Unknown {
        /// The user.
        user: String,
        /// What the system said.
        why: String,
    },
}

fn first(denied: &[Denied]) -> String {
    denied.first().map_or_else(String::new, |denied| {
        let Denied { what, path, need } = denied;
        format!("{} {} ({what})", need.as_str(), path.display())
    })
}

/// What lets the user in.
fn fix(user: &str, denied: &Denied) -> String {
    let path = shown(&denied.path);
    match denied.need {
        _ if denied.path.starts_with("/dev") => {
            format!("`chgrp GROUP {path} && chmod 660 {path}` with a group of {user}'s")
        }
        Need::Search => format!(
            "`chmod o+x {path}` lets everybody through, `setfacl -m u:{user}:x {path}` that user alone"
        ),
        Need::Write | Need::Change => format!("`chown {user} {path}` makes it that user's"),
        Need::Read | Need::Run | Need::List => {
            let mode = if denied.need == Need::Read { "r" } else { "rx" };
            format!(
                "`chmod o+{mode} {path}` lets everybody read it, `setfacl -m u:{user}:{mode} {path}` that user alone"
            )
        }
    }
}

impl Hint for RunAsError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Nobody(name) => vec![format!(
                "`useradd --system --user-group --shell /usr/sbin/nologin {name}` makes one; `security.user` names another"
            )],
            Self::NotRoot(_) => {
                vec!["run mvm as root, or leave `security.user` out of the profile".to_owned()]
            }
            Self::Passthrough { .. } => {
                vec!["`security-model = \"mapped-xattr\"` needs no rights".to_owned()]
            }
            Self::Denied { user, denied } => {
                let mut hints: Vec<String> = denied.iter().map(|no| fix(user, no)).collect();
                hints.dedup();
                hints
            }
            Self::Nvram { .. } => {
                vec!["leave `firmware.nvram` out: mvm keeps a store for each guest".to_owned()]
            }
            Self::Unknown { .. } => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Passthrough { .. } | Self::Nvram { .. } => ExitCode::Profile,
            Self::NotRoot(_) | Self::Unknown { .. } => ExitCode::Failed,
            Self::Nobody(_) | Self::Denied { .. } => ExitCode::Host,
        }
    }
}
