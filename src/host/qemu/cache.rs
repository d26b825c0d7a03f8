//! What QEMU answered, kept for as long as it is the same QEMU.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::caps::QemuCaps;
use super::modules;
use crate::host::store::write_atomically;
use crate::ids::Arch;

/// Grows with every change of what is asked or how it is kept.
const FORMAT: u32 = 3;

/// What the answers hold for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Key {
    format: u32,
    binary: PathBuf,
    /// Inode, size, change time of the file that the path leads to.
    file: (u64, u64, i64, i64),
    /// Modules come and go by packages of their own.
    modules: Vec<(PathBuf, i64, i64)>,
    /// What KVM offers moves with these, and QEMU's answers with it.
    kernel: String,
    microcode: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    key: Key,
    caps: QemuCaps,
}

impl Key {
    /// The key of a binary as it is now; `None` where it cannot be looked at.
    pub(super) fn of(binary: &Path, kernel: &str, microcode: Option<&str>) -> Option<Self> {
        let meta = fs::metadata(binary).ok()?;
        let modules = modules::directories(binary)
            .into_iter()
            .filter_map(|dir| {
                let meta = fs::metadata(&dir).ok()?;
                Some((dir, meta.mtime(), meta.mtime_nsec()))
            })
            .collect();
        Some(Self {
            format: FORMAT,
            binary: binary.to_owned(),
            file: (meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec()),
            modules,
            kernel: kernel.to_owned(),
            microcode: microcode.map(str::to_owned),
        })
    }
}

fn file(dir: &Path, arch: Arch) -> PathBuf {
    dir.join(format!("qemu-{arch}.json"))
}

/// The answers kept for `key`.
pub(super) fn load(dir: &Path, arch: Arch, key: &Key) -> Option<QemuCaps> {
    let kept: Kept = serde_json::from_slice(&fs::read(file(dir, arch)).ok()?).ok()?;
    (kept.key == *key).then_some(kept.caps)
}

/// Keeps the answers. A cache that cannot be written costs time, nothing else.
pub(super) fn store(dir: &Path, arch: Arch, key: Key, caps: &QemuCaps) {
    let kept = Kept {
        key,
        caps: caps.clone(),
    };
    if let Err(e) = write_atomically(&file(dir, arch), &kept) {
        tracing::debug!("what QEMU answered was not kept: {e}");
    }
}
