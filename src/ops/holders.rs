//! Which processes have a device open, found in `/proc` as far as this user may look.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::sysfs::Place;

/// For a process that was killed to have closed what it had open.
const CLOSING: Duration = Duration::from_secs(10);

/// The processes that have any of these files open, by the paths that `/proc/PID/fd` shows; but not
/// ourselves.
fn processes(place: &Place, paths: &[String]) -> Vec<u32> {
    let us = std::process::id();
    let processes = fs::read_dir(&place.proc).into_iter().flatten().flatten();
    let mut found = Vec::new();
    for process in processes {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid != us && has_open(&process.path(), paths) {
            found.push(pid);
        }
    }
    found
}

fn has_open(process: &Path, paths: &[String]) -> bool {
    let fds = fs::read_dir(process.join("fd")).into_iter().flatten();
    fds.flatten().any(|fd| {
        fs::read_link(fd.path()).is_ok_and(|to| {
            to.to_str()
                .is_some_and(|to| paths.iter().any(|path| path == to))
        })
    })
}

/// The same in words: `process pid (command)` each.
fn of(place: &Place, paths: &[String]) -> Vec<String> {
    let in_words = |pid: u32| {
        let comm = place.proc.join(pid.to_string()).join("comm");
        let comm = fs::read_to_string(comm).unwrap_or_default();
        format!("process {pid} ({})", comm.trim())
    };
    processes(place, paths).into_iter().map(in_words).collect()
}

/// Whether those who have the device's IOMMU group open, or a device of it, are the guest whose lock that is:
/// its QEMU inherits the lock. `dir` is the device's directory, relative to `/sys`.
pub(crate) fn is_group_of(place: &Place, dir: &Path, lock: &Path) -> bool {
    let members = dir.join("iommu_group/devices");
    let nodes = place.list(&members).into_iter();
    let nodes = nodes.flat_map(|member| vfio_nodes(place, &members.join(member)));
    let open = processes(place, &nodes.collect::<Vec<_>>());
    let Ok(lock) = fs::canonicalize(lock) else {
        return false;
    };
    let lock = [lock.to_string_lossy().into_owned()];
    let theirs = |pid: &u32| has_open(&place.proc.join(pid.to_string()), &lock);
    !open.is_empty() && open.iter().all(theirs)
}

/// The files by which a process has a device open through VFIO: its group, and its own node for iommufd.
/// `dir` is the device's directory, relative to `/sys`.
fn vfio_nodes(place: &Place, dir: &Path) -> Vec<String> {
    let group = place.link_name(dir.join("iommu_group"));
    let cdevs = place.list(dir.join("vfio-dev"));
    let nodes = group
        .into_iter()
        .chain(cdevs.into_iter().map(|name| format!("devices/{name}")));
    // As the kernel tells it, wherever our own `/dev` is.
    nodes.map(|name| format!("/dev/vfio/{name}")).collect()
}

/// Who has the device open through VFIO, in words; `None` when nobody has.
pub(crate) fn of_vfio(place: &Place, dir: &Path) -> Option<String> {
    let nodes = vfio_nodes(place, dir);
    if nodes.is_empty() {
        return None;
    }
    let found = of(place, &nodes);
    (!found.is_empty()).then(|| found.join(", "))
}

/// Waits until nobody has the device open through VFIO; who has it after the deadline.
pub(crate) fn wait_for_vfio(place: &Place, dir: &Path) -> Option<String> {
    wait(|| of_vfio(place, dir))
}

/// Waits until nobody has the USB device open; who has it after the deadline.
pub(crate) fn wait_for_usb(place: &Place, bus: u32, address: u32) -> Option<String> {
    let node = [format!("/dev/bus/usb/{bus:03}/{address:03}")];
    wait(|| {
        let found = of(place, &node);
        (!found.is_empty()).then(|| found.join(", "))
    })
}

fn wait(look: impl Fn() -> Option<String>) -> Option<String> {
    let end = Instant::now() + CLOSING;
    loop {
        let found = look()?;
        if Instant::now() >= end {
            return Some(found);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
