//! Disks: what is mounted, swapped to, or a part of a volume.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::HostUse;
use crate::host::devices::place::{self, Place};
use crate::host::sysfs::Sysfs;

/// How far volumes are stacked: a file system on LVM on LUKS on RAID on partitions is five.
const DEEP: usize = 12;

/// A block device, its place, and what the host does with it.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    /// Its name, `nvme0n1`.
    pub(crate) name: String,
    /// Whose it is.
    pub(crate) place: Place,
    /// Whether it is a part of another one.
    pub(crate) partition: bool,
    /// What the host does with it.
    pub(crate) uses: Vec<HostUse>,
}

/// All block devices that belong to a device of the host.
pub(in crate::host::devices) fn read(sysfs: &Sysfs, around: Option<&Path>) -> Vec<Disk> {
    let names = sysfs.list("class/block").unwrap_or_default();
    let direct = direct(sysfs, around, &names);
    let mut all = Vec::new();
    for name in &names {
        let Ok(target) = fs::read_link(sysfs.path(format!("class/block/{name}"))) else {
            continue;
        };
        let places = match place::of_path(&target) {
            place if place.function().is_some() => vec![place],
            _ => paths_of_nvme(sysfs, &target),
        };
        let above = target.parent().and_then(Path::file_name);
        let partition = above.is_some_and(|above| names.iter().any(|n| above == n.as_str()));
        for place in places {
            let mut uses = Vec::new();
            collect(sysfs, &direct, name, &mut uses, DEEP);
            all.push(Disk {
                name: name.clone(),
                place,
                partition,
                uses,
            });
        }
    }
    all
}

/// The controllers of a namespace that several paths lead to: it is in the subsystem's directory, with
/// links to them.
fn paths_of_nvme(sysfs: &Sysfs, target: &Path) -> Vec<Place> {
    let parts: Vec<&str> = target.iter().filter_map(|part| part.to_str()).collect();
    let Some(at) = parts.iter().position(|part| *part == "nvme-subsystem") else {
        return Vec::new();
    };
    let Some(subsystem) = parts.get(at + 1) else {
        return Vec::new();
    };
    let dir = format!("class/nvme-subsystem/{subsystem}");
    let entries = sysfs.list(&dir).unwrap_or_default();
    let controllers = entries.iter().filter(|name| {
        let number = name.strip_prefix("nvme").unwrap_or_default();
        !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
    });
    controllers
        .map(|name| place::of(sysfs, &format!("{dir}/{name}")))
        .filter(|place| place.function().is_some())
        .collect()
}

/// The uses of a block device, and of what is made of it.
fn collect(
    sysfs: &Sysfs,
    direct: &BTreeMap<String, Vec<HostUse>>,
    name: &str,
    uses: &mut Vec<HostUse>,
    deep: usize,
) {
    let before = uses.len();
    uses.extend(direct.get(name).into_iter().flatten().cloned());
    let holders = sysfs
        .list(format!("class/block/{name}/holders"))
        .unwrap_or_default();
    if deep > 0 {
        for holder in &holders {
            collect(sysfs, direct, holder, uses, deep - 1);
        }
    }
    if let (true, Some(by)) = (uses.len() == before, holders.first()) {
        uses.push(HostUse::Held {
            what: name.to_owned(),
            by: by.clone(),
        });
    }
}

/// What is mounted, swapped to or in a file system of several devices, by the block device itself.
fn direct(
    sysfs: &Sysfs,
    around: Option<&Path>,
    names: &[String],
) -> BTreeMap<String, Vec<HostUse>> {
    let mut all: BTreeMap<String, Vec<HostUse>> = BTreeMap::new();
    let Some(around) = around else {
        return all;
    };
    let resolve = |source: &str| resolve(sysfs, around, names, source);
    let read = |file: &str| fs::read_to_string(around.join(file)).unwrap_or_default();
    for (source, at) in mounts(sysfs, around) {
        if let Some(what) = resolve(&source) {
            let at = at.clone();
            let mounted = HostUse::Mounted {
                what: what.clone(),
                at,
            };
            let uses = all.entry(what).or_default();
            if !uses.contains(&mounted) {
                uses.push(mounted);
            }
        }
    }
    for line in read("proc/swaps").lines().skip(1) {
        if let Some(what) = line.split_whitespace().next().and_then(resolve) {
            let swap = HostUse::Swap { what: what.clone() };
            all.entry(what).or_default().push(swap);
        }
    }
    // Of a btrfs, `mounts` names one device of several. Its folder is there while it is mounted.
    for id in sysfs.list("fs/btrfs").unwrap_or_default() {
        for what in sysfs
            .list(format!("fs/btrfs/{id}/devices"))
            .unwrap_or_default()
        {
            let by = format!("btrfs {id}");
            let uses = all.entry(what.clone()).or_default();
            if uses.is_empty() {
                uses.push(HostUse::Held { what, by });
            }
        }
    }
    all
}

/// Source and mount point of each mounted file system. A number of a block device goes before the name:
/// `/dev/root` is nobody's.
fn mounts(sysfs: &Sysfs, around: &Path) -> Vec<(String, String)> {
    if let Ok(text) = fs::read_to_string(around.join("proc/self/mountinfo")) {
        // proc(5): 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
        let line = |line: &str| {
            let (own, other) = line.split_once(" - ")?;
            let fields: Vec<&str> = own.split(' ').collect();
            let at = unescape(fields.get(4)?);
            let number = fields.get(2)?;
            let device = sysfs.link_name(format!("dev/block/{number}")).ok()?;
            let source = other.split(' ').nth(1)?;
            let source = device.map_or_else(|| unescape(source), |name| format!("/dev/{name}"));
            Some((source, at))
        };
        return text.lines().filter_map(line).collect();
    }
    let text = fs::read_to_string(around.join("proc/mounts")).unwrap_or_default();
    let line = |line: &str| {
        let mut fields = line.split(' ');
        Some((unescape(fields.next()?), unescape(fields.next()?)))
    };
    text.lines().filter_map(line).collect()
}

/// The kernel's name of the block device that a path names: directly, by its name in device mapper, or
/// by a link.
fn resolve(sysfs: &Sysfs, around: &Path, names: &[String], source: &str) -> Option<String> {
    let path = source.strip_prefix("/dev/")?;
    let known = |name: &str| names.iter().find(|n| *n == name).cloned();
    if let Some(name) = known(&path.replace('/', "!")) {
        return Some(name);
    }
    if let Some(mapped) = path.strip_prefix("mapper/") {
        let is_it = |name: &&String| {
            name.starts_with("dm-")
                && sysfs
                    .read(format!("class/block/{name}/dm/name"))
                    .is_ok_and(|n| n == mapped)
        };
        if let Some(name) = names.iter().find(is_it) {
            return Some(name.clone());
        }
    }
    let target = fs::read_link(around.join("dev").join(path)).ok()?;
    known(target.file_name()?.to_str()?)
}

/// Mount tables write space, tab, newline and backslash as octal numbers.
fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..3).filter(|_| *first == b'\\').and_then(|three| {
            let digits = std::str::from_utf8(three).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match code {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape(r"/mnt/a\040b\134c"), r"/mnt/a b\c");
        assert_eq!(unescape(r"/mnt/\9"), r"/mnt/\9");
        assert_eq!(unescape("\\"), "\\");
    }

    proptest! {
        #[test]
        fn no_mount_point_upsets_it(text in ".{0,20}") {
            let _ = unescape(&text);
        }
    }
}
