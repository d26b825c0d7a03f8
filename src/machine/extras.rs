//! Shares, the random number generator, the watchdog, the virtual socket.

use std::path::{Path, PathBuf};

use super::error::ResolveError;
use super::files::{FileError, find};
use super::net::why;
use super::virtiofs::virtiofs;
use super::{BalloonDoes, BoardKind, Bus, RunAs, Share, Watchdog, names};
use crate::error::{ExitCode, Hint};
use crate::host::HostFacts;
use crate::host::images::{FileKind, Images};
use crate::ids::{GuestName, Id};
use crate::profile::schema::{Layer, SecurityModel, WatchdogAction, WatchdogModel};

/// A device that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtraError {
    /// A share without a folder.
    #[error("share `{0}` names no folder")]
    NoPath(Id),
    /// A relative path, which would depend on where mvm was started.
    #[error("share `{id}`: {path:?} is not an absolute path")]
    Relative {
        /// The share.
        id: Id,
        /// The path.
        path: String,
    },
    /// The tag does not fit (`MAX_TAG_LEN` of QEMU's virtio-9p, `tag` of the kernel's `virtio_fs_config`).
    #[error("share `{id}`: the tag {tag:?} is not 1 to {most} bytes long")]
    BadTag {
        /// The share.
        id: Id,
        /// The tag.
        tag: String,
        /// The longest.
        most: usize,
    },
    /// Not a mode.
    #[error("share `{id}`: `{key}` is {text:?}, not a mode in octal digits, as in `0644`")]
    BadMode {
        /// The share.
        id: Id,
        /// The key.
        key: &'static str,
        /// The text.
        text: String,
    },
    /// A mode where the guest's own is kept.
    #[error(
        "share `{id}`: `{key}` is for the security models mapped-xattr and mapped-file, and it is {model}"
    )]
    UnmappedMode {
        /// The share.
        id: Id,
        /// The key.
        key: &'static str,
        /// The model.
        model: SecurityModel,
    },
    /// One tag, two shares.
    #[error("shares `{first}` and `{second}` both have the tag {tag:?}")]
    TagTwice {
        /// The one.
        first: Id,
        /// The other.
        second: Id,
        /// The tag.
        tag: String,
    },
    /// The watchdog is a PCI device.
    #[error("the watchdog i6300esb is a PCI device, and the board {0} has no PCI")]
    NoPci(BoardKind),
    /// Arm boards have no NMI.
    #[error("`watchdog.action = \"inject-nmi\"`: the board {0} has no non-maskable interrupt")]
    NoNmi(BoardKind),
    /// Nor has microvm what its guests would find a panic device by.
    #[error("`[panic]`: the board {0} has no place for a panic device")]
    NoPanic(BoardKind),
    /// The host has no vhost-vsock.
    #[error("the guest's virtual socket needs {node}, which cannot be used: {why}")]
    NoVsock {
        /// The device node.
        node: String,
        /// What is in the way.
        why: String,
    },
    /// A context id that has another meaning.
    #[error("`vsock.cid` is {0}; a guest's is 3 to 4294967294")]
    BadCid(u32),
}

impl Hint for ExtraError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::NoVsock { .. } => {
                vec![
                    "`mvm doctor` says how to get it; `--set vsock.enabled=false` does without"
                        .to_owned(),
                ]
            }
            Self::NoPath(id) => vec![format!("set `share.{id}.path`")],
            _ => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoVsock { .. } => ExitCode::Host,
            _ => ExitCode::Profile,
        }
    }
}

/// The shares, in the order of their names.
pub(super) fn shares(
    layer: &Layer,
    images: &Images,
    facts: &HostFacts,
    run_as: Option<&RunAs>,
) -> Result<Vec<Share>, ResolveError> {
    let mut shares: Vec<Share> = Vec::new();
    for (id, table) in layer.share.iter().flatten() {
        let Some(text) = table.path.as_deref() else {
            return Err(ExtraError::NoPath(id.clone()).into());
        };
        if !Path::new(text).is_absolute() {
            return Err(ExtraError::Relative {
                id: id.clone(),
                path: text.chars().take(200).collect(),
            }
            .into());
        }
        let what = format!("share `{id}`");
        let folder = find(images, &what, text, || None)?;
        if folder.kind != FileKind::Dir {
            return Err(FileError::WrongKind {
                what,
                path: folder.path.clone(),
                expected: "a directory",
            }
            .into());
        }
        let tag = table.tag.clone().unwrap_or_else(|| id.to_string());
        let virtiofs = virtiofs(id, table, facts, run_as)?;
        let most = if virtiofs.is_some() { 36 } else { 31 };
        if !(1..=most).contains(&tag.len()) {
            return Err(ExtraError::BadTag {
                id: id.clone(),
                tag: tag.chars().take(80).collect(),
                most,
            }
            .into());
        }
        if let Some(twin) = shares.iter().find(|share| share.tag == tag) {
            return Err(ExtraError::TagTwice {
                first: twin.id.clone(),
                second: id.clone(),
                tag,
            }
            .into());
        }
        let security_model = table.security_model.unwrap_or(SecurityModel::MappedXattr);
        shares.push(Share {
            id: id.clone(),
            path: folder.path.clone(),
            tag,
            read_only: table.read_only.unwrap_or(false),
            security_model,
            fmode: mode(id, "fmode", table.fmode.as_deref(), security_model)?,
            dmode: mode(id, "dmode", table.dmode.as_deref(), security_model)?,
            virtiofs,
        });
    }
    Ok(shares)
}

/// A mode of files that the guest makes. With the other security models they have the guest's own.
fn mode(
    id: &Id,
    key: &'static str,
    text: Option<&str>,
    model: SecurityModel,
) -> Result<Option<u32>, ExtraError> {
    let Some(text) = text else { return Ok(None) };
    let octal = (1..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    match u32::from_str_radix(text, 8) {
        Ok(mode @ ..=0o777) if octal => match model {
            SecurityModel::MappedXattr | SecurityModel::MappedFile => Ok(Some(mode)),
            _ => Err(ExtraError::UnmappedMode {
                id: id.clone(),
                key,
                model,
            }),
        },
        _ => Err(ExtraError::BadMode {
            id: id.clone(),
            key,
            text: text.chars().take(20).collect(),
        }),
    }
}

/// The source of the random number generator. As with all devices that a table alone makes, the table
/// is enough to have it.
pub(super) fn rng(layer: &Layer, images: &Images) -> Result<Option<PathBuf>, FileError> {
    let Some(table) = layer.rng.as_ref().filter(|rng| rng.enabled.unwrap_or(true)) else {
        return Ok(None);
    };
    let Some(text) = table.source.as_deref() else {
        return Ok(Some(PathBuf::from("/dev/urandom")));
    };
    let what = "the random number generator's source";
    let facts = find(images, what, text, || None)?;
    if matches!(facts.kind, FileKind::Char | FileKind::File) {
        Ok(Some(facts.path.clone()))
    } else {
        Err(FileError::WrongKind {
            what: what.to_owned(),
            path: facts.path.clone(),
            expected: "a device or a file",
        })
    }
}

/// Whether there is a balloon.
pub(super) fn balloon(layer: &Layer) -> bool {
    let table = layer.balloon.as_ref();
    let current = layer.memory.as_ref().and_then(|memory| memory.current);
    table.map_or(current.is_some(), |balloon| balloon.enabled.unwrap_or(true))
}

/// What it does by itself.
pub(super) fn balloon_does(layer: &Layer) -> BalloonDoes {
    let table = layer.balloon.clone().unwrap_or_default();
    BalloonDoes {
        free_page_reporting: table.free_page_reporting.unwrap_or(false),
        deflate_on_oom: table.deflate_on_oom.unwrap_or(false),
    }
}

/// The watchdog.
pub(super) fn watchdog(layer: &Layer, board: BoardKind) -> Result<Option<Watchdog>, ExtraError> {
    let table = layer.watchdog.as_ref();
    let Some(table) = table.filter(|watchdog| watchdog.enabled.unwrap_or(true)) else {
        return Ok(None);
    };
    let action = table.action.unwrap_or(WatchdogAction::Reset);
    match (board.bus(), board) {
        (Bus::Mmio, _) => Err(ExtraError::NoPci(board)),
        (_, BoardKind::Virt) if action == WatchdogAction::InjectNmi => {
            Err(ExtraError::NoNmi(board))
        }
        _ => Ok(Some(Watchdog {
            model: table.model.unwrap_or(WatchdogModel::I6300esb),
            action,
        })),
    }
}

/// The context id of the virtual socket.
pub(super) fn vsock(
    layer: &Layer,
    guest: &GuestName,
    facts: &HostFacts,
) -> Result<Option<u32>, ExtraError> {
    let table = layer.vsock.as_ref();
    let Some(table) = table.filter(|vsock| vsock.enabled.unwrap_or(true)) else {
        return Ok(None);
    };
    let cid = table.cid.unwrap_or_else(|| names::cid(guest));
    if !(3..u32::MAX).contains(&cid) {
        return Err(ExtraError::BadCid(cid));
    }
    if !facts.vhost_vsock.usable {
        return Err(ExtraError::NoVsock {
            node: facts.vhost_vsock.path.clone(),
            why: why(&facts.vhost_vsock),
        });
    }
    Ok(Some(cid))
}
