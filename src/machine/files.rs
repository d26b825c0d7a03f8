//! The files that a profile names, found through the facts about them.

use std::path::PathBuf;

use super::error::ResolveError;
use crate::error::{ExitCode, Hint};
use crate::host::images::{FileKind, ImageFacts, Images, Look};
use crate::profile::schema::{Layer, UnixEnd};

/// A file that a profile names and that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It is nowhere.
    #[error("{what}: there is no {text:?}{}", at(looked))]
    Missing {
        /// What it was to be.
        what: String,
        /// As the profile names it.
        text: String,
        /// Where it was looked for.
        looked: Vec<PathBuf>,
        /// How to get one.
        fix: Option<String>,
    },
    /// It could not be looked at.
    #[error("{what}: cannot look at {path:?}: {why}")]
    Failed {
        /// What it was to be.
        what: String,
        /// The full path.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// It cannot be read.
    #[error("{what}: {path:?} cannot be read by this user")]
    Unreadable {
        /// What it was to be.
        what: String,
        /// The full path.
        path: PathBuf,
    },
    /// It is something else.
    #[error("{what}: {path:?} is not {expected}")]
    WrongKind {
        /// What it was to be.
        what: String,
        /// The full path.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
    /// QEMU's JSON takes UTF-8 only.
    #[error("{what}: the path {path:?} is not UTF-8, which QEMU's options need")]
    NotUtf8 {
        /// What it was to be.
        what: String,
        /// The full path.
        path: PathBuf,
    },
}

fn at(looked: &[PathBuf]) -> String {
    match looked {
        [] => String::new(),
        // The path itself when it was absolute, or the one folder there is.
        looked => {
            let list: Vec<String> = looked.iter().map(|path| format!("{path:?}")).collect();
            format!(" (looked for {})", list.join(", "))
        }
    }
}

impl Hint for FileError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Missing { fix, .. } => fix.iter().cloned().collect(),
            Self::Unreadable { path, .. } => {
                vec![format!("`ls -l` shows who may read it: {}", shown(path))]
            }
            Self::Failed { .. } | Self::WrongKind { .. } | Self::NotUtf8 { .. } => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Host
    }
}

/// A path as a shell takes it.
pub(super) fn shown(path: &std::path::Path) -> String {
    let text = path.to_string_lossy();
    shlex::try_quote(&text).map_or_else(|_| format!("{text:?}"), |quoted| quoted.into_owned())
}

/// The socket that has to be there: one that mvm does not make, and that the guest does not wait for.
fn connected(unix: &UnixEnd) -> Option<&str> {
    let waits = unix.listen == Some(true) || unix.reconnect.is_some();
    unix.path.as_deref().filter(|_| !waits)
}

/// Every file that a profile names: what [`crate::host::images::look`] has to look for.
pub fn wanted(layer: &Layer) -> Vec<&str> {
    let mut wanted = Vec::new();
    for disk in layer.disk.iter().flat_map(|disks| disks.values()) {
        if let Some(file) = &disk.file {
            wanted.extend(file.path.as_deref());
        }
        if let Some(other) = &disk.vhost_user {
            wanted.extend(other.socket.as_deref());
        }
    }
    for card in layer.network.iter().flat_map(|cards| cards.values()) {
        wanted.extend(card.rom.as_deref());
        if let Some(other) = card
            .vhost_user
            .as_ref()
            .filter(|one| one.server != Some(true))
        {
            wanted.extend(other.socket.as_deref());
        }
    }
    for console in layer.console.iter().flat_map(|consoles| consoles.values()) {
        wanted.extend(
            console
                .host
                .iter()
                .filter_map(|host| host.device.as_deref()),
        );
        wanted.extend(console.unix.iter().filter_map(connected));
    }
    for channel in layer.channel.iter().flat_map(|channels| channels.values()) {
        wanted.extend(
            channel
                .host
                .iter()
                .filter_map(|host| host.device.as_deref()),
        );
        wanted.extend(channel.unix.iter().filter_map(connected));
    }
    if let Some(boot) = &layer.boot {
        wanted.extend(boot.kernel.as_deref());
        wanted.extend(boot.initrd.as_deref());
        wanted.extend(boot.splash.as_deref());
    }
    wanted.extend(
        layer
            .memory
            .iter()
            .filter_map(|memory| memory.path.as_deref()),
    );
    if let Some(firmware) = &layer.firmware {
        wanted.extend(firmware.file.as_deref());
        wanted.extend(firmware.nvram_template.as_deref());
    }
    for share in layer.share.iter().flat_map(|shares| shares.values()) {
        wanted.extend(share.path.as_deref());
    }
    for pci in layer.pci.iter().flat_map(|pcis| pcis.values()) {
        wanted.extend(pci.rom.as_deref());
    }
    if let Some(display) = &layer.display {
        let vnc = display.vnc.iter();
        wanted.extend(vnc.filter_map(|vnc| vnc.password_file.as_deref()));
        let spice = display.spice.iter();
        wanted.extend(spice.filter_map(|spice| spice.password_file.as_deref()));
    }
    wanted.extend(super::hooks::wanted(layer));
    wanted.extend(layer.gpu.iter().filter_map(|gpu| gpu.rom.as_deref()));
    wanted.extend(layer.rng.iter().filter_map(|rng| rng.source.as_deref()));
    wanted
}

/// The facts about a file, or why there are none.
pub(super) fn find<'a>(
    images: &'a Images,
    what: &str,
    text: &str,
    fix: impl FnOnce() -> Option<String>,
) -> Result<&'a ImageFacts, FileError> {
    match images.get(text) {
        Some(Look::Found(facts)) if facts.path.to_str().is_none() => Err(FileError::NotUtf8 {
            what: what.to_owned(),
            path: facts.path.clone(),
        }),
        Some(Look::Found(facts)) if !facts.readable => Err(FileError::Unreadable {
            what: what.to_owned(),
            path: facts.path.clone(),
        }),
        Some(Look::Found(facts)) => Ok(facts),
        Some(Look::Failed { path, why }) => Err(FileError::Failed {
            what: what.to_owned(),
            path: path.clone(),
            why: why.clone(),
        }),
        found => Err(FileError::Missing {
            what: what.to_owned(),
            text: text.to_owned(),
            looked: match found {
                Some(Look::Missing { looked }) => looked.clone(),
                _ => Vec::new(),
            },
            fix: fix(),
        }),
    }
}

/// The path of a regular file. `key` is the profile's key that names it, or the flag.
pub(super) fn regular(
    images: &Images,
    what: &str,
    key: &str,
    text: &str,
) -> Result<PathBuf, ResolveError> {
    let fix = || {
        Some(if text.starts_with("demo/") {
            "`make demo-guest` in mvm's source folder makes the demo guest".to_owned()
        } else {
            format!("put one there, or name another: {key}")
        })
    };
    let facts = find(images, what, text, fix)?;
    if facts.kind != FileKind::File {
        return Err(FileError::WrongKind {
            what: what.to_owned(),
            path: facts.path.clone(),
            expected: "a regular file",
        }
        .into());
    }
    Ok(facts.path.clone())
}
