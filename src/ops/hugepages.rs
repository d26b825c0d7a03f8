//! Huge pages: added to the host's pool where it lacks some, and taken off again.
//!
//! What is added is counted for each guest, and what is given back is that number, whatever anybody else has
//! made of the pool meanwhile. Pages that are still in use when the pool shrinks are surplus to the kernel
//! and go when they are freed (`set_max_huge_pages`).

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::device_error::DeviceError;
use super::hostdir::{Change, Claim, HostLock};
use super::sysfs::{Device, Place};
use crate::plan::step::User;
use crate::units::Size;

/// How long the kernel is asked for pages that it cannot make at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between one try and the next.
const PAUSE: Duration = Duration::from_millis(200);

/// A pool of the host.
struct HostPool<'a> {
    place: &'a Place,
    device: Device<'a>,
    key: String,
    dir: PathBuf,
    size: Size,
}

impl<'a> HostPool<'a> {
    fn new(place: &'a Place, size: Size, node: Option<u32>) -> Self {
        let name = format!("hugepages-{}kB", size.as_bytes() >> 10);
        let (key, above) = match node {
            Some(node) => (
                format!("{name}-node{node}"),
                format!("devices/system/node/node{node}/hugepages"),
            ),
            None => (name.clone(), "kernel/mm/hugepages".to_owned()),
        };
        Self {
            place,
            device: place.device(key.clone()),
            dir: PathBuf::from(above).join(name),
            key,
            size,
        }
    }

    /// A number that the kernel may not have for nodes.
    fn count(&self, file: &str) -> u64 {
        self.place.number(self.dir.join(file)).unwrap_or(0)
    }

    /// Pages that stay: surplus ones go when they are freed.
    fn persistent(&self) -> u64 {
        let all = self.count("nr_hugepages");
        all.saturating_sub(self.count("surplus_hugepages"))
    }

    /// Pages that a new QEMU could have.
    fn free(&self) -> u64 {
        let free = self.count("free_hugepages");
        free.saturating_sub(self.count("resv_hugepages"))
    }

    fn resize(&self, pages: u64) -> Result<(), DeviceError> {
        let file = self.dir.join("nr_hugepages");
        self.device.command(file, &format!("{pages}\n"))
    }

    /// Makes room for pages by moving others; kernels without it have none.
    fn compact(&self) {
        let file = self.place.proc.join("sys/vm/compact_memory");
        if file.exists() {
            if let Err(error) = self.device.command(file, "1\n") {
                tracing::debug!(%error, "the memory is not compacted");
            }
        }
    }

    /// Adds pages until the pool has `to`, as far as the kernel can. Each try begins where the last one ended.
    fn grow(&self, to: u64) -> Result<(), DeviceError> {
        let end = Instant::now() + PATIENCE;
        self.resize(to)?;
        while self.persistent() < to && Instant::now() < end {
            self.compact();
            std::thread::sleep(PAUSE);
            self.resize(to)?;
        }
        Ok(())
    }
}

/// Sees to it that so many pages are free for a guest, and books them for it.
pub(crate) fn claim(
    place: &Place,
    lock: &HostLock,
    size: Size,
    node: Option<u32>,
    pages: u64,
    user: &User,
) -> Result<(), DeviceError> {
    let host = HostPool::new(place, size, node);
    if !place.exists(&host.dir) {
        return Err(DeviceError::NoHugepages { size, node });
    }
    let mut pool = place.host.pool(&host.key)?.unwrap_or_default();
    pool.settle_change(host.persistent());
    let others = elsewhere(place, &host.key, size, node)?;
    let promised = pool.promised(Some(user)).saturating_add(others);
    let missing = pages.saturating_sub(host.free().saturating_sub(promised));
    if !place.host.is_ours()? {
        // Only root adds pages, and books them; those of the host's own are anybody's.
        return match missing {
            0 => Ok(()),
            _ => Err(DeviceError::FewHugepages {
                size,
                node,
                pages,
                had: pages - missing,
            }),
        };
    }
    match pool.of(user) {
        Some(claim) => claim.pages = pages,
        None => pool.users.push(Claim {
            user: user.clone(),
            pages,
            added: 0,
            settled: false,
        }),
    }
    if missing == 0 {
        return place.host.put_pool(lock, &host.key, &pool);
    }
    let from = host.persistent();
    let to = from.saturating_add(missing);
    pool.under_way = Some(Change {
        user: user.clone(),
        from,
        to,
    });
    place.host.put_pool(lock, &host.key, &pool)?;
    let grown = host.grow(to);
    let now = host.persistent();
    pool.settle_change(now);
    place.host.put_pool(lock, &host.key, &pool)?;
    grown?;
    if now < to {
        return Err(DeviceError::FewHugepages {
            size: host.size,
            node,
            pages,
            had: pages.saturating_sub(to - now),
        });
    }
    Ok(())
}

/// What is promised in other records of pages of that size: a node's pages are the host's too, and whoever takes
/// any may take the node's.
fn elsewhere(place: &Place, key: &str, size: Size, node: Option<u32>) -> Result<u64, DeviceError> {
    let records = place.host.pools()?.into_iter();
    let others = records.filter(|record| {
        let about = pool_of(&record.key).filter(|(other, _)| *other == size);
        let touches = about.is_some_and(|(_, other)| node.is_none() || other.is_none());
        record.trusted && record.key != key && touches
    });
    Ok(others.map(|record| record.content.promised(None)).sum())
}

/// Gives back what was added for a guest. One that is not booked has nothing.
pub(crate) fn give_back(
    place: &Place,
    lock: &HostLock,
    size: Size,
    node: Option<u32>,
    user: &User,
) -> Result<(), DeviceError> {
    let host = HostPool::new(place, size, node);
    let Some(mut pool) = place.host.pool(&host.key)? else {
        return Ok(());
    };
    pool.settle_change(host.persistent());
    let Some(added) = pool.of(user).map(|claim| claim.added) else {
        return place.host.put_pool(lock, &host.key, &pool);
    };
    if added > 0 {
        let from = host.persistent();
        let to = from.saturating_sub(added);
        pool.under_way = Some(Change {
            user: user.clone(),
            from,
            to,
        });
        place.host.put_pool(lock, &host.key, &pool)?;
        if from != to {
            host.resize(to)?;
        }
        pool.under_way = None;
    }
    pool.users
        .retain(|claim| claim.user.run_dir != user.run_dir);
    place.host.put_pool(lock, &host.key, &pool)
}

/// The pool that a record is about, by the record's name.
pub fn pool_of(key: &str) -> Option<(Size, Option<u32>)> {
    let (size, node) = key.strip_prefix("hugepages-")?.split_once("kB")?;
    let node = match node {
        "" => None,
        node => Some(node.strip_prefix("-node")?.parse().ok()?),
    };
    let kib: u64 = size.parse().ok()?;
    Some((Size::bytes(kib.checked_mul(1024)?), node))
}

/// Notes that a guest's QEMU has its pages.
///
/// # Errors
/// The record cannot be written.
pub fn settled(
    place: &Place,
    size: Size,
    node: Option<u32>,
    user: &User,
) -> Result<(), DeviceError> {
    let host = HostPool::new(place, size, node);
    if place.host.pool(&host.key)?.is_none() {
        return Ok(());
    }
    let lock = place.host.lock()?;
    let Some(mut pool) = place.host.pool(&host.key)? else {
        return Ok(());
    };
    match pool.of(user) {
        Some(claim) if !claim.settled => claim.settled = true,
        _ => return Ok(()),
    }
    place.host.put_pool(&lock, &host.key, &pool)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::hosts::{Host, difference, snapshot};
    use crate::ops::set_stand_in;

    const DIR: &str = "sys/kernel/mm/hugepages/hugepages-2048kB";
    const SIZE: Size = Size::mib(2);

    fn put(root: &Path, file: &str, count: u64) {
        let path = root.join(DIR).join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("{count}\n")).unwrap();
    }

    fn pool(root: &Path) -> (u64, u64) {
        let count = |file: &str| {
            let text = std::fs::read_to_string(root.join(DIR).join(file)).unwrap();
            text.trim().parse().unwrap()
        };
        (count("nr_hugepages"), count("free_hugepages"))
    }

    /// A guest that lives as long as its lock is held.
    fn guest(top: &Path, name: &str) -> (User, std::os::fd::OwnedFd) {
        let run_dir = top.join(name);
        std::fs::create_dir(&run_dir).unwrap();
        let life = crate::ops::lock::take(&run_dir.join("lock")).unwrap();
        let guest = name.to_owned();
        (User { guest, run_dir }, life)
    }

    #[test]
    fn guests_share_a_pool_and_each_gives_back_its_own() {
        let tree = Host::new("intel-i915-7vf");
        let root = tree.root();
        for (file, count) in [
            ("nr_hugepages", 10),
            ("free_hugepages", 10),
            ("resv_hugepages", 2),
            ("surplus_hugepages", 0),
        ] {
            put(root, file, count);
        }
        let before = snapshot(root);
        let top = tempfile::tempdir().unwrap();
        set_stand_in(Some(root));
        let place = Place::new(&top.path().join("host"));
        let lock = place.host.lock().unwrap();
        let (a, a_lives) = guest(top.path(), "a");
        let (b, _b_lives) = guest(top.path(), "b");
        let more = |user, pages| claim(&place, &lock, SIZE, None, pages, user).unwrap();
        // Of ten pages two are promised to somebody by the kernel.
        more(&a, 20);
        assert_eq!(pool(root), (22, 22));
        // Twice is once.
        more(&a, 20);
        assert_eq!(pool(root), (22, 22));
        // A's are not B's, although nobody uses them yet.
        more(&b, 5);
        assert_eq!(pool(root), (27, 27));
        drop(lock);
        settled(&place, SIZE, None, &a).unwrap();
        let lock = place.host.lock().unwrap();
        let mut booked = place.host.pool("hugepages-2048kB").unwrap().unwrap();
        assert!(booked.of(&a).unwrap().settled && !booked.of(&b).unwrap().settled);
        let back = |user| give_back(&place, &lock, SIZE, None, user).unwrap();
        // The host's owner adds some meanwhile, and keeps them.
        put(root, "nr_hugepages", 127);
        put(root, "free_hugepages", 127);
        back(&a);
        assert_eq!(pool(root), (115, 115));
        back(&a);
        back(&b);
        assert_eq!(pool(root), (110, 110));
        put(root, "nr_hugepages", 10);
        put(root, "free_hugepages", 10);
        assert_eq!(difference(&before, &snapshot(root)), [""; 0]);
        assert!(place.host.pools().unwrap().is_empty());
        drop(a_lives);
        set_stand_in(None);
    }

    /// One part of the memory is bound to a node, the other may be anywhere: the node's pages are not counted twice.
    #[test]
    fn a_nodes_pages_are_not_everybodys() {
        let tree = Host::new("intel-i915-7vf");
        let root = tree.root();
        let node = "sys/devices/system/node/node0/hugepages/hugepages-2048kB";
        for file in ["nr_hugepages", "free_hugepages", "surplus_hugepages"] {
            put(root, file, 0);
            let path = root.join(node).join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "0\n").unwrap();
        }
        let top = tempfile::tempdir().unwrap();
        set_stand_in(Some(root));
        let place = Place::new(&top.path().join("host"));
        let lock = place.host.lock().unwrap();
        let (a, _life) = guest(top.path(), "a");
        claim(&place, &lock, SIZE, Some(0), 100, &a).unwrap();
        // The kernel counts a node's pages among all; the stand-in does not know.
        put(root, "nr_hugepages", 100);
        put(root, "free_hugepages", 100);
        claim(&place, &lock, SIZE, None, 100, &a).unwrap();
        assert_eq!(pool(root), (200, 200));
        give_back(&place, &lock, SIZE, None, &a).unwrap();
        assert_eq!(pool(root), (100, 100));
        give_back(&place, &lock, SIZE, Some(0), &a).unwrap();
        assert!(place.host.pools().unwrap().is_empty());
        set_stand_in(None);
    }

    #[test]
    fn what_the_kernel_cannot_make_is_told_and_given_back() {
        let tree = Host::new("intel-i915-7vf");
        let root = tree.root();
        for file in ["nr_hugepages", "free_hugepages", "surplus_hugepages"] {
            put(root, file, 0);
        }
        let room = root.join(".standin/memory");
        std::fs::create_dir_all(&room).unwrap();
        std::fs::write(room.join("room"), "60\n").unwrap();
        let top = tempfile::tempdir().unwrap();
        set_stand_in(Some(root));
        let place = Place::new(&top.path().join("host"));
        let lock = place.host.lock().unwrap();
        let (a, _life) = guest(top.path(), "a");
        let error = claim(&place, &lock, SIZE, None, 100, &a).unwrap_err();
        assert_eq!(
            error.to_string(),
            "of the 100 huge pages of 2M that the guest needs, the kernel can make 60"
        );
        assert_eq!(pool(root), (60, 60));
        give_back(&place, &lock, SIZE, None, &a).unwrap();
        assert_eq!(pool(root), (0, 0));
        let error = claim(&place, &lock, Size::mib(32), None, 1, &a).unwrap_err();
        assert_eq!(error.to_string(), "this host has no huge pages of 32M");
        assert_eq!(pool_of("hugepages-2048kB-node3"), Some((SIZE, Some(3))));
        assert_eq!(pool_of("hugepages-2048kB"), Some((SIZE, None)));
        assert_eq!(pool_of("elsewhere"), None);
        set_stand_in(None);
    }
}
