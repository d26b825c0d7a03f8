//! Shares that virtiofsd serves.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

use super::{Machine, RunAs, Share, controller};
use crate::error::{ExitCode, Hint};
use crate::host::packages::{Package, install};
use crate::host::{HostFacts, Virtiofsd, VirtiofsdKind};
use crate::ids::Id;
use crate::profile::schema::{Layer, ShareTable, VirtiofsCache, VirtiofsSandbox};
use crate::sidecar::{SOCKET, Sidecar};

/// How a share is served by virtiofsd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Virtiofs {
    /// The program.
    pub program: PathBuf,
    /// Whose it is.
    pub kind: VirtiofsdKind,
    /// How long the guest believes what it knows.
    pub cache: VirtiofsCache,
    /// Places in the queue of requests, where that is not QEMU's number.
    pub queue_size: Option<u32>,
    /// Whether there are extended attributes.
    pub xattr: bool,
    /// What keeps the program to the folder.
    pub sandbox: VirtiofsSandbox,
}

/// A share cannot be virtiofs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VirtiofsError {
    /// The program is missing.
    #[error("share `{id}`: `virtiofs` needs virtiofsd, which is not installed")]
    NoVirtiofsd {
        /// The share.
        id: Id,
        /// What to do about it.
        install: String,
    },
    /// A key of 9p's.
    #[error("share `{id}`: `{key}` is for 9p, and the share is virtiofs")]
    Of9p {
        /// The share.
        id: Id,
        /// The key.
        key: &'static str,
    },
    /// QEMU takes no such queue.
    #[error(
        "share `{id}`: `virtiofs.queue-size` is {size}; powers of two from 2 to 1024 are possible"
    )]
    QueueSize {
        /// The share.
        id: Id,
        /// The size.
        size: u32,
    },
    /// This virtiofsd lets all write.
    #[error("share `{id}`: `read-only` is beyond {}, which has no option for it", program.display())]
    NoReadOnly {
        /// The share.
        id: Id,
        /// The program.
        program: PathBuf,
    },
    /// QEMU's own cannot do without.
    #[error("share `{id}`: {} has no `sandbox = \"none\"`", program.display())]
    AlwaysSandboxed {
        /// The share.
        id: Id,
        /// The program.
        program: PathBuf,
    },
    /// Its sandbox is made with root's rights.
    #[error("share `{id}`: {} needs root's rights for the sandbox `{sandbox}`, and it is to run as {user}", program.display())]
    NotRoot {
        /// The share.
        id: Id,
        /// The program.
        program: PathBuf,
        /// The sandbox.
        sandbox: VirtiofsSandbox,
        /// As whom it runs.
        user: String,
    },
}

impl Hint for VirtiofsError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::NoVirtiofsd { install, .. } => {
                vec![
                    install.clone(),
                    "leave `virtiofs` out: QEMU serves 9p itself".to_owned(),
                ]
            }
            Self::Of9p { .. } | Self::QueueSize { .. } => Vec::new(),
            Self::NoReadOnly { .. } => vec![
                "9p can (leave `virtiofs` out), and so can the virtiofsd written in Rust from 1.13 on"
                    .to_owned(),
            ],
            Self::AlwaysSandboxed { .. } => vec![
                "`namespace` or `chroot`, as root; the virtiofsd written in Rust can do without"
                    .to_owned(),
            ],
            Self::NotRoot { .. } => vec![
                "the virtiofsd written in Rust serves ordinary users, with `sandbox = \"none\"`"
                    .to_owned(),
                "leave `virtiofs` out: QEMU serves 9p itself".to_owned(),
            ],
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoVirtiofsd { .. } | Self::NoReadOnly { .. } | Self::NotRoot { .. } => {
                ExitCode::Host
            }
            _ => ExitCode::Profile,
        }
    }
}

/// Whether a profile has a share that virtiofsd serves: whether the facts must be about that.
pub fn wanted(layer: &Layer) -> bool {
    let mut shares = layer.share.iter().flat_map(|shares| shares.values());
    shares.any(|share| share.virtiofs.is_some())
}

/// How that share is served, where its profile says that it is virtiofs.
pub(super) fn virtiofs(
    id: &Id,
    table: &ShareTable,
    facts: &HostFacts,
    run_as: Option<&RunAs>,
) -> Result<Option<Virtiofs>, VirtiofsError> {
    let Some(asked) = &table.virtiofs else {
        return Ok(None);
    };
    let id = id.clone();
    let of_9p = [
        ("security-model", table.security_model.is_some()),
        ("fmode", table.fmode.is_some()),
        ("dmode", table.dmode.is_some()),
    ];
    if let Some((key, _)) = of_9p.into_iter().find(|(_, said)| *said) {
        return Err(VirtiofsError::Of9p { id, key });
    }
    if !controller::power(asked.queue_size, 2) {
        let size = asked.queue_size.unwrap_or_default();
        return Err(VirtiofsError::QueueSize { id, size });
    }
    let Some(found) = facts.programs.virtiofsd.clone() else {
        let install = install(&facts.os, Package::Virtiofsd);
        return Err(VirtiofsError::NoVirtiofsd { id, install });
    };
    let Virtiofsd {
        path: program,
        kind,
        readonly,
    } = found;
    if table.read_only == Some(true) && !readonly {
        return Err(VirtiofsError::NoReadOnly { id, program });
    }
    // As whom it runs: with root's rights it serves the guest's own owners.
    let user = match run_as {
        Some(user) => Some(format!("the user `{}`", user.name)),
        None if facts.users.uid != 0 => Some("an ordinary user".to_owned()),
        None => None,
    };
    let default = match (kind, &user) {
        (VirtiofsdKind::Rust, Some(_)) => VirtiofsSandbox::None,
        _ => VirtiofsSandbox::Namespace,
    };
    let sandbox = asked.sandbox.unwrap_or(default);
    match (sandbox, kind, user) {
        (VirtiofsSandbox::None, VirtiofsdKind::Qemu, _) => {
            return Err(VirtiofsError::AlwaysSandboxed { id, program });
        }
        (VirtiofsSandbox::Namespace | VirtiofsSandbox::Chroot, _, Some(user)) => {
            return Err(VirtiofsError::NotRoot {
                id,
                program,
                sandbox,
                user,
            });
        }
        _ => {}
    }
    Ok(Some(Virtiofs {
        program,
        kind,
        cache: asked.cache.unwrap_or(VirtiofsCache::Auto),
        queue_size: asked.queue_size,
        xattr: asked.xattr.unwrap_or(false),
        sandbox,
    }))
}

impl Share {
    /// The name of the program that serves it, and of its socket.
    pub fn sidecar(&self) -> String {
        format!("share-{}", self.id)
    }
}

/// The virtiofsd of a share.
pub(super) fn sidecar(machine: &Machine, share: &Share) -> Option<Sidecar> {
    let virtiofs = share.virtiofs.as_ref()?;
    let name = share.sidecar();
    let socket = Sidecar::socket_in(&machine.run_dir, &name);
    let args = |at: [String; 2]| match virtiofs.kind {
        VirtiofsdKind::Qemu => qemus(share, virtiofs, at),
        VirtiofsdKind::Rust => rusts(share, virtiofs, at),
    };
    let path = socket.display().to_string();
    Some(Sidecar {
        loss: format!(
            "the share `{}` answers nothing until the guest's next start",
            share.id
        ),
        program: virtiofs.program.clone(),
        dir: machine.state_dir.clone(),
        args: args(["--fd".to_owned(), SOCKET.to_owned()]),
        shown: args(["--socket-path".to_owned(), path]),
        socket,
        lock: Sidecar::lock_in(&machine.run_dir, &name),
        log: machine
            .state_dir
            .join(format!("log/virtiofsd-{}.log", share.id)),
        user: machine.sidecar_user(),
        name,
    })
}

/// The arguments of QEMU's own.
fn qemus(share: &Share, virtiofs: &Virtiofs, [option, at]: [String; 2]) -> Vec<String> {
    let cache = match virtiofs.cache {
        VirtiofsCache::Never => "none",
        VirtiofsCache::Auto | VirtiofsCache::Always => virtiofs.cache.as_str(),
    };
    let xattr = if virtiofs.xattr { "xattr" } else { "no_xattr" };
    // FUSE's options: `\` lets the next character stand for itself.
    let path = share.path.to_string_lossy();
    let path = path.replace('\\', "\\\\").replace(',', "\\,");
    let mut args = vec![format!("{option}={at}")];
    let more = [
        "-o".to_owned(),
        format!("source={path}"),
        "-o".to_owned(),
        // What it says of its own accord is no word of trouble.
        format!(
            "cache={cache},sandbox={},{xattr},log_level=warn",
            virtiofs.sandbox
        ),
    ];
    args.extend(more);
    args
}

/// The arguments of the one written in Rust.
fn rusts(share: &Share, virtiofs: &Virtiofs, [option, at]: [String; 2]) -> Vec<String> {
    let path = share.path.to_string_lossy().into_owned();
    let words = [
        (option, at),
        ("--shared-dir".to_owned(), path),
        ("--cache".to_owned(), virtiofs.cache.to_string()),
        ("--sandbox".to_owned(), virtiofs.sandbox.to_string()),
    ];
    let words = words
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"));
    let flags = [("--xattr", virtiofs.xattr), ("--readonly", share.read_only)];
    let flags = flags.into_iter().filter(|(_, on)| *on);
    words
        .chain(flags.map(|(flag, _)| flag.to_owned()))
        .collect()
}
