//! Which guest has which device.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::handover::Extent;
use crate::ids::{PciRef, UsbPort};
use crate::owner::Owner;

/// More than any record has, in bytes.
const LONGEST: u64 = 1 << 20;

/// A device that a guest has taken: a file of `leases` in the host directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Lease {
    /// The file's name: `pci-0000:01:00.0`, `pci-0000:01:00.0-vf1`, `mdev-UUID`, `usb-1-3.2`.
    pub key: String,
    /// The device as its guest names it.
    pub device: String,
    /// The PCI function that it comes and goes with: a USB device's controller, what a mediated device is
    /// made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part_of: Option<PciRef>,
    /// The guest.
    pub guest: String,
    /// Its run-time directory, whose `lock` QEMU holds.
    pub run_dir: PathBuf,
    /// The user whose guest it is.
    pub uid: u32,
    /// The process that took it.
    pub pid: u32,
    /// When, in seconds since 1970.
    pub since: u64,
    /// Whether the guest is there; not in the file.
    pub holder: Holder,
    /// Another user than root and this one, whose file it is; not in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// The file, where it cannot be read: whose the device is nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damaged: Option<PathBuf>,
}

/// What is known about the guest that has a lease.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holder {
    /// It runs: the lock is held.
    Alive,
    /// It is gone, and nobody has given the device back yet.
    Gone,
    /// Its lock may not be looked at: it counts as running.
    #[default]
    Unknown,
}

impl Lease {
    /// Which device it is of.
    pub fn extent(&self) -> Extent {
        Extent {
            key: self.key.clone(),
            part_of: self.part_of,
        }
    }

    /// The PCI function, if it is one.
    pub fn pci(&self) -> Option<PciRef> {
        PciRef::from_key(&self.key)
    }

    /// What it is of, as people name it.
    pub fn shown(&self) -> String {
        match (self.pci(), self.usb(), self.mdev()) {
            (Some(pci), ..) => pci.to_string(),
            (_, Some(port), _) => format!("usb {port}"),
            (.., Some(uuid)) => format!("mdev {uuid}"),
            _ => self.key.clone(),
        }
    }

    /// The USB port, if it is one.
    pub fn usb(&self) -> Option<UsbPort> {
        self.key.strip_prefix("usb-")?.parse().ok()
    }

    /// The mediated device, if it is one.
    pub fn mdev(&self) -> Option<Uuid> {
        self.key.strip_prefix("mdev-")?.parse().ok()
    }
}

/// Reads the leases in a host directory, sorted by key. A file that is no lease, or that may not be
/// read, is a damaged one: the device is not free.
pub(super) fn read(host: &Path) -> Vec<Lease> {
    let mut all: Vec<Lease> = fs::read_dir(host.join("leases"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let key = entry.file_name().into_string().ok()?;
            // One that is being written is no lease yet.
            if key.starts_with('.') {
                return None;
            }
            let (text, owner) = match text_of(&entry.path()) {
                // Given back meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => return None,
                text => text.unwrap_or_default(),
            };
            let lease: Option<Lease> = serde_json::from_slice(&text).ok();
            let mut lease = lease
                .filter(|lease| !lease.guest.is_empty())
                .map(|lease| Lease {
                    damaged: None,
                    ..lease
                })
                .unwrap_or_else(|| Lease {
                    guest: "?".to_owned(),
                    damaged: Some(entry.path()),
                    ..Lease::default()
                });
            // What the file itself says of these does not count.
            lease.uid = owner.unwrap_or(lease.uid);
            lease.owner = owner.and_then(Owner::other);
            lease.holder = match &lease.damaged {
                Some(_) => Holder::Unknown,
                None => holder(&lease.run_dir),
            };
            if lease.holder == Holder::Alive {
                let lock = lease.run_dir.join("lock");
                lease.owner = lease.owner.map(|owner| owner.holding(&lock));
            }
            lease.key = key;
            Some(lease)
        })
        .collect();
    all.sort_by(|a, b| a.key.cmp(&b.key));
    all
}

/// Opens a file that anybody may have put there: no link is followed, a FIFO is not waited for.
fn open(path: &Path) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(ErrorKind::InvalidInput.into());
    }
    Ok(file)
}

/// What it says, as far as a record can be long, and whose it is.
fn text_of(path: &Path) -> io::Result<(Vec<u8>, Option<u32>)> {
    let mut text = Vec::new();
    let file = open(path)?;
    let owner = file.metadata()?.uid();
    file.take(LONGEST).read_to_end(&mut text)?;
    Ok((text, Some(owner)))
}

/// Whether the guest of that run-time directory is there: QEMU holds its lock.
fn holder(run_dir: &Path) -> Holder {
    match is_held(&run_dir.join("lock")) {
        Some(true) => Holder::Alive,
        Some(false) => Holder::Gone,
        None => Holder::Unknown,
    }
}

/// What is being done to devices right now, by their keys: files of `busy` in the host directory whose
/// lock is held.
pub(super) fn under_way(host: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(host.join("busy"))
        .into_iter()
        .flatten()
        .flatten();
    let held = entries.filter(|entry| is_held(&entry.path()) == Some(true));
    held.filter_map(|entry| {
        let (what, _) = text_of(&entry.path()).unwrap_or_default();
        let what = String::from_utf8_lossy(&what);
        Some((
            entry.file_name().into_string().ok()?,
            what.trim().to_owned(),
        ))
    })
    .collect()
}

/// Whether anybody has the lock; `None` where it may not be looked at. No file, no lock.
fn is_held(path: &Path) -> Option<bool> {
    let file = match open(path) {
        Ok(file) => file,
        // Nothing, or nothing that could be a lock: a link, a socket, a FIFO.
        Err(error) => {
            let none = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput)
                || matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO));
            return none.then_some(false);
        }
    };
    // As for a reader's lock: a file that is open for reading cannot ask for more, and the holder's is
    // a writer's.
    let mut query = libc::flock {
        l_type: libc::F_RDLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut query)).ok()?;
    Some(libc::c_int::from(query.l_type) != libc::F_UNLCK)
}
