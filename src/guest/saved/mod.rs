//! The saved state of a guest: an image of its memory and its devices in its state directory, and what it
//! may be loaded into.
//!
//! As long as a mark says [`Kind::Saved`](super::asleep::Kind), no instruction of the guest has been executed
//! since the image was written. Whatever lets the guest go on changes the mark first, on the disk: an image
//! is loaded once, or never.

pub(super) mod image;
mod squeeze;

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::RunDir;
use super::asleep::{self, Asleep, AsleepError, Kind};
use crate::machine::Machine;
use crate::plan::Plan;
use crate::profile::schema::Media;
use crate::qemu::command::{Arg, CommandLine};

/// What binds an image to a machine, beside the machine itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Saved {
    /// How long the image is.
    pub length: u64,
    /// Whether the guest was paused when it was saved: it goes on so.
    pub paused: bool,
    /// The switches that make its devices.
    pub devices: Vec<String>,
    /// Its disks when it was held.
    pub disks: Vec<Identity>,
}

/// A file, and when it was written to last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Identity {
    /// What is there now. Of a block device it is told which one it is: nothing says when it was written to.
    fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::metadata(path)?;
        let path = path.to_owned();
        if meta.file_type().is_block_device() {
            return Ok(Self {
                path,
                device: meta.rdev(),
                inode: 0,
                size: 0,
                changed: (0, 0),
            });
        }
        Ok(Self {
            path,
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            changed: (meta.mtime(), meta.mtime_nsec()),
        })
    }

    /// What of it is another now, in words.
    fn difference(&self) -> Option<String> {
        let path = self.path.display();
        match Self::of(&self.path) {
            Ok(now) if now == *self => None,
            Ok(now) if (now.device, now.inode) != (self.device, self.inode) => {
                Some(format!("{path} is another file"))
            }
            Ok(now) if now.size != self.size => Some(format!(
                "{path} has {} bytes and had {}",
                now.size, self.size
            )),
            Ok(_) => Some(format!("{path} was written to")),
            Err(error) => Some(format!("{path}: {error}")),
        }
    }
}

impl Saved {
    /// What the image that is there belongs to.
    ///
    /// # Errors
    /// The image, or a disk, cannot be looked at.
    pub(super) fn of(run: &RunDir, plan: &Plan, paused: bool) -> io::Result<Self> {
        // UEFI's variables are part of the image, and are written anew from there. A medium can be changed
        // while the guest is away, as while it runs.
        let disks = plan.machine.disks.iter();
        let images = disks
            .filter(|disk| disk.media == Media::Disk)
            .filter_map(|disk| disk.image.as_ref());
        Ok(Self {
            length: fs::metadata(run.saved())?.len(),
            paused,
            devices: devices(&plan.command),
            disks: images
                .map(|image| Identity::of(&image.path))
                .collect::<io::Result<_>>()?,
        })
    }
}

/// The switches of a command line that make what the image has states of.
pub(super) fn devices(command: &CommandLine) -> Vec<String> {
    let shown = |arg: &Arg| match arg {
        Arg::Text(text) | Arg::Real(text) => text.clone(),
        Arg::Fd { shown, .. } => shown.clone(),
    };
    let words: Vec<String> = command.args.iter().map(shown).collect();
    let pairs = words.windows(2);
    pairs
        .filter(|pair| matches!(pair[0].as_str(), "-device" | "-global"))
        .map(|pair| pair[1].clone())
        .collect()
}

/// Whether the saved guest may go on as this plan.
pub(super) fn check(
    run: &RunDir,
    asleep: &Asleep,
    saved: &Saved,
    plan: &Plan,
) -> Result<(), AsleepError> {
    let guest = || run.name().clone();
    let no_image = |why: String| AsleepError::NoImage {
        guest: guest(),
        path: run.saved(),
        why,
    };
    match fs::metadata(run.saved()) {
        Ok(meta) if meta.len() == saved.length => {}
        Ok(meta) => {
            return Err(no_image(format!(
                "it has {} bytes and had {}",
                meta.len(),
                saved.length
            )));
        }
        Err(error) => return Err(no_image(error.to_string())),
    }
    let (was, is) = (asleep.machine.qemu.version, plan.machine.qemu.version);
    if is < was {
        return Err(AsleepError::Older {
            guest: guest(),
            was: version(was),
            is: version(is),
        });
    }
    let now = devices(&plan.command);
    if now != saved.devices {
        return Err(AsleepError::Differs {
            guest: guest(),
            kind: asleep.kind,
            differences: switches(&saved.devices, &now),
        });
    }
    let changes: Vec<String> = saved
        .disks
        .iter()
        .filter_map(Identity::difference)
        .collect();
    if changes.is_empty() {
        return Ok(());
    }
    Err(AsleepError::Moved {
        guest: guest(),
        changes,
    })
}

fn version((major, minor, micro): (u32, u32, u32)) -> String {
    format!("{major}.{minor}.{micro}")
}

/// What differs of the switches, one clause each.
fn switches(was: &[String], is: &[String]) -> Vec<String> {
    let missing = was.iter().filter(|word| !is.contains(word));
    let new = is.iter().filter(|word| !was.contains(word));
    let told: Vec<String> = missing
        .map(|word| format!("`{word}` is missing"))
        .chain(new.map(|word| format!("`{word}` is new")))
        .collect();
    if told.is_empty() {
        return vec!["its devices are in another order".to_owned()];
    }
    told
}

/// Gives a machine that is named by its board's kind the very type that the saved guest knows: with a newer
/// QEMU the same name means another one.
pub fn pin(asleep: &Asleep, machine: &mut Machine) {
    let (was, is) = (&asleep.machine.board, &mut machine.board);
    if asleep.kind == Kind::Saved && was.kind == is.kind && is.machine_type == is.kind.as_str() {
        is.machine_type.clone_from(&was.machine_type);
    }
}

/// Removes what no mark speaks of: of a save that was broken off, or of one that the guest has gone on from.
pub(super) fn sweep(run: &RunDir) {
    let keeps = match asleep::read(run) {
        Ok(asleep) => asleep.is_some_and(|asleep| asleep.kind == Kind::Saved),
        // Whoever repairs it may want the image.
        Err(_) => true,
    };
    let image = (!keeps).then(|| run.saved());
    for path in image.into_iter().chain([run.saved_part()]) {
        match fs::remove_file(&path) {
            Ok(()) => tracing::debug!(path = %path.display(), "removed"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, path = %path.display(), "cannot remove"),
        }
    }
}

#[cfg(test)]
mod tests;
