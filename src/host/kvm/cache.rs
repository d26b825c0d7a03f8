//! The verdict, kept until the next boot.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{KvmFacts, KvmState};
use crate::host::facts::Roots;
use crate::host::store::write_atomically;

/// What a verdict holds for. Anything else, and the probe runs again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Key {
    /// A new one at every boot.
    boot: String,
    kernel: String,
    microcode: Option<String>,
    /// The node is made anew when the module is loaded again (with another `nested=`, say), and its
    /// change time moves with its permissions.
    node: (u64, i64, i64, u32, u32, u32),
}

#[derive(Serialize, Deserialize)]
struct Kept {
    key: Key,
    /// Seconds since 1970 until which it holds; `None`: until the next boot.
    until: Option<u64>,
    facts: KvmFacts,
}

/// How long the verdict on a KVM that did not answer holds: each probe of it costs its whole deadline,
/// and it may have been a busy moment.
const SHORT: Duration = Duration::from_secs(300);

impl Key {
    pub(super) fn of(roots: &Roots, kernel: &str, microcode: Option<&str>) -> Option<Self> {
        let boot = fs::read_to_string(roots.path("/proc/sys/kernel/random/boot_id")).ok()?;
        let node = fs::metadata(roots.path("/dev/kvm")).ok()?;
        Some(Self {
            boot: boot.trim().to_owned(),
            kernel: kernel.to_owned(),
            microcode: microcode.map(str::to_owned),
            node: (
                node.ino(),
                node.ctime(),
                node.ctime_nsec(),
                node.mode(),
                node.uid(),
                node.gid(),
            ),
        })
    }
}

fn file(dir: &Path) -> PathBuf {
    dir.join("kvm.json")
}

/// The verdict that was kept for `key`.
pub(super) fn load(dir: &Path, key: &Key) -> Option<KvmFacts> {
    let kept: Kept = serde_json::from_slice(&fs::read(file(dir)).ok()?).ok()?;
    let fresh = kept.until.is_none_or(|until| now() < until);
    (kept.key == *key && fresh).then_some(KvmFacts {
        cached: true,
        ..kept.facts
    })
}

/// Keeps a verdict; `firm` says whether it holds until the next boot. A cache that cannot be written
/// costs time, nothing else.
pub(super) fn store(dir: &Path, key: Key, facts: &KvmFacts, firm: bool) {
    // Absent reasons can change at any moment, and cost nothing to find again.
    if matches!(facts.state, KvmState::Absent(_) | KvmState::NotAsked) {
        return;
    }
    let kept = Kept {
        key,
        until: (!firm).then(|| now() + SHORT.as_secs()),
        facts: facts.clone(),
    };
    if let Err(e) = write_atomically(&file(dir), &kept) {
        tracing::debug!("the verdict on KVM was not kept: {e}");
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use super::*;

    fn key(boot: &str) -> Key {
        Key {
            boot: boot.into(),
            kernel: "6.1".into(),
            microcode: None,
            node: (1, 2, 3, 4, 5, 6),
        }
    }

    fn facts(state: KvmState) -> KvmFacts {
        KvmFacts {
            state,
            ..KvmFacts::not_asked()
        }
    }

    #[test]
    fn a_verdict_holds_for_its_boot() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("not/yet/there");
        assert_eq!(load(&dir, &key("a")), None);
        store(&dir, key("a"), &facts(KvmState::Healthy), true);
        let found = load(&dir, &key("a")).unwrap();
        assert!(found.cached && found.usable());
        assert_eq!(load(&dir, &key("b")), None);
    }

    #[test]
    fn an_absent_kvm_is_looked_for_again() {
        let dir = tempfile::tempdir().unwrap();
        let denied = KvmState::Absent(super::super::AbsentWhy::Denied);
        store(dir.path(), key("a"), &facts(denied), true);
        assert_eq!(load(dir.path(), &key("a")), None);
    }

    #[test]
    fn a_silent_kvm_is_asked_again_later() {
        let dir = tempfile::tempdir().unwrap();
        store(dir.path(), key("a"), &facts(KvmState::Broken), false);
        assert!(load(dir.path(), &key("a")).is_some());
        let text = fs::read_to_string(file(dir.path())).unwrap();
        let mut kept: Kept = serde_json::from_str(&text).unwrap();
        kept.until = Some(now() - 1);
        write_atomically(&file(dir.path()), &kept).unwrap();
        assert_eq!(load(dir.path(), &key("a")), None);
    }

    #[test]
    fn a_damaged_file_is_no_verdict() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(file(dir.path()), "{").unwrap();
        assert_eq!(load(dir.path(), &key("a")), None);
    }
}
