//! The memory.

use serde::{Deserialize, Serialize};

use super::facts::Roots;
use super::sysfs::Sysfs;

/// The memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryFacts {
    /// All of it.
    pub total: u64,
    /// What a new process can have without swapping.
    pub available: u64,
    /// Huge page pools.
    pub hugepages: Vec<HugepagePool>,
}

/// A pool of huge pages of one size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugepagePool {
    /// The page's size in bytes.
    pub size: u64,
    /// Pages in the pool.
    pub total: u64,
    /// Pages not yet used.
    pub free: u64,
}

impl MemoryFacts {
    /// Reads `/proc/meminfo` and `/sys/kernel/mm/hugepages`.
    pub fn read(roots: &Roots) -> Self {
        let info = std::fs::read_to_string(roots.path("/proc/meminfo")).unwrap_or_default();
        Self {
            total: meminfo(&info, "MemTotal"),
            available: meminfo(&info, "MemAvailable"),
            hugepages: hugepages(&roots.sysfs),
        }
    }
}

fn meminfo(text: &str, key: &str) -> u64 {
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
    let kib: u64 = line
        .and_then(|l| l.split_whitespace().next()?.parse().ok())
        .unwrap_or(0);
    kib.saturating_mul(1024)
}

fn hugepages(sys: &Sysfs) -> Vec<HugepagePool> {
    let dir = "kernel/mm/hugepages";
    let mut pools: Vec<HugepagePool> = sys
        .list(dir)
        .unwrap_or_default()
        .iter()
        .filter_map(|name| {
            let kib: u64 = name
                .strip_prefix("hugepages-")?
                .strip_suffix("kB")?
                .parse()
                .ok()?;
            Some(HugepagePool {
                size: kib * 1024,
                total: sys.read_u64(format!("{dir}/{name}/nr_hugepages")).ok()?,
                free: sys.read_u64(format!("{dir}/{name}/free_hugepages")).ok()?,
            })
        })
        .collect();
    pools.sort_by_key(|p| p.size);
    pools
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use super::*;
    use crate::host::testing::{put, roots};

    #[test]
    fn memory_and_huge_pages() {
        let dir = tempfile::tempdir().unwrap();
        put(
            dir.path(),
            "proc/meminfo",
            "MemTotal:       16 kB\nMemFree: 1 kB\nMemAvailable:   8 kB\n",
        );
        for (name, total, free) in [
            ("hugepages-2048kB", "10", "4"),
            ("hugepages-64kB", "1", "1"),
            ("junk", "0", "0"),
        ] {
            put(
                dir.path(),
                &format!("sys/kernel/mm/hugepages/{name}/nr_hugepages"),
                total,
            );
            put(
                dir.path(),
                &format!("sys/kernel/mm/hugepages/{name}/free_hugepages"),
                free,
            );
        }
        let memory = MemoryFacts::read(&roots(dir.path()));
        assert_eq!((memory.total, memory.available), (16384, 8192));
        let sizes: Vec<_> = memory
            .hugepages
            .iter()
            .map(|p| (p.size, p.total, p.free))
            .collect();
        assert_eq!(sizes, [(65_536, 1, 1), (2_097_152, 10, 4)]);
    }
}
