//! Devices opened through VFIO before QEMU does: what is wrong is told by its cause, not by QEMU's.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vfio_ioctls::{VfioContainer, VfioDevice as Opened, VfioError};

use super::device_error::DeviceError;
use super::driver::{Function, load_iommu_backend};
use super::hostdir::{Lease, Record};
use super::sysfs::Place;
use super::{holders, mdev, process, session};
use crate::plan::step::VfioDevice;

/// For all devices of a guest to be opened; each is reset then.
const LIMIT: Duration = Duration::from_secs(60);

/// One that did not open, as the child that tried it says.
#[derive(Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// The device's directory.
    pub device: PathBuf,
    /// What was refused.
    pub what: Kind,
    /// What the system said.
    pub said: String,
}

/// What can be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `/dev/vfio/vfio` or the group's node.
    Node,
    /// A function of the group is with another driver.
    Viable,
    /// The group's IOMMU cannot be set.
    Iommu,
    /// The device itself.
    Device,
    /// It has no regions that a guest could use.
    Regions,
}

/// Opens the devices as QEMU will, in a process that can be left behind: the kernel resets a device that
/// is opened. One of a group that the guest has open already is not opened: a group is one process's at a time.
///
/// # Errors
/// The first that does not open, with the cause.
pub(crate) fn confirm(place: &Place, devices: &[VfioDevice]) -> Result<(), DeviceError> {
    if devices.is_empty() {
        return Ok(());
    }
    let mut dirs = Vec::new();
    let mut opened = Vec::new();
    for device in devices {
        let dir = match device {
            VfioDevice::Pci(pci) => Function::get(place, *pci)?.dir,
            VfioDevice::Mdev(uuid) => mdev::dir_of(*uuid),
        };
        expect_ready(place, device, &dir)?;
        if !is_guests_already(place, device, &dir)? {
            dirs.push(place.path(dir));
            opened.push(device);
        }
    }
    if dirs.is_empty() {
        return Ok(());
    }
    if !place.is_real() {
        return Ok(());
    }
    load_iommu_backend(place);
    let found = in_child(&dirs).map_err(|error| DeviceError::Vfio {
        device: names(&opened),
        what: error.to_string(),
        hint: None,
    })?;
    let Some(refusal) = found else {
        return Ok(());
    };
    let at = dirs.iter().position(|dir| *dir == refusal.device);
    let device = at.map_or_else(|| names(&opened), |at| opened[at].to_string());
    Err(explain(place, &refusal, device))
}

/// Whether the guest that the device is for has its group open, through another device of the group.
fn is_guests_already(place: &Place, device: &VfioDevice, dir: &Path) -> Result<bool, DeviceError> {
    let VfioDevice::Pci(pci) = device else {
        return Ok(false);
    };
    let lease = place.host.lease(&pci.key())?;
    let ours = |lease: &Record<Lease>| {
        let lock = lease.content.run_dir.join("lock");
        lease.trusted && holders::is_group_of(place, dir, &lock)
    };
    Ok(lease.is_some_and(|lease| ours(&lease)))
}

fn names(devices: &[&VfioDevice]) -> String {
    let names: Vec<String> = devices.iter().map(|one| one.to_string()).collect();
    names.join(", ")
}

/// What can be seen without opening anything: the group is there and all of it is with VFIO.
fn expect_ready(place: &Place, device: &VfioDevice, dir: &Path) -> Result<(), DeviceError> {
    let refuse = |what: String, hint: &str| {
        Err(DeviceError::Vfio {
            device: device.to_string(),
            what,
            hint: Some(hint.to_owned()),
        })
    };
    if place.link_name(dir.join("iommu_group")).is_none() {
        return refuse(
            "it is in no IOMMU group".to_owned(),
            "the IOMMU is off: `mvm doctor` tells how to switch it on",
        );
    }
    // The group of a mediated device is its own, whatever its driver is called.
    let others = match device {
        VfioDevice::Pci(_) => foreign(place, dir),
        VfioDevice::Mdev(_) => Vec::new(),
    };
    if others.is_empty() {
        return Ok(());
    }
    refuse(
        format!("its IOMMU group is shared with {}", others.join(", ")),
        "give these to the same guest (`group = \"all\"`), or take them from their drivers (`mvm bind`)",
    )
}

/// The members of a group that keep it from being given away, with their drivers. Bridges and functions
/// without a driver do not (`vfio_dev_viable` of Linux before 5.19, group ownership since).
fn foreign(place: &Place, dir: &Path) -> Vec<String> {
    place
        .list(dir.join("iommu_group/devices"))
        .into_iter()
        .filter_map(|name| {
            let member = dir.join("iommu_group/devices").join(&name);
            let driver = place.link_name(member.join("driver"))?;
            // A mediated device is VFIO's by birth, whatever its driver is called (`intel_vgpu_mdev`).
            let harmless = driver.contains("vfio")
                || place.link_name(member.join("subsystem")).as_deref() == Some("mdev")
                || matches!(driver.as_str(), "pcieport" | "pci-stub" | "shpchp");
            (!harmless).then(|| format!("{name} ({driver})"))
        })
        .collect()
}

/// Runs `mvm internal confirm-vfio`; what it refuses, if anything.
fn in_child(dirs: &[PathBuf]) -> io::Result<Option<Refusal>> {
    let mut said = process::memory_file()?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["internal", "confirm-vfio", "--"])
        .args(dirs)
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(Stdio::null());
    session::inherit_nothing(&mut command);
    let mut child = command.spawn()?;
    let Some(status) = process::wait(&mut child, LIMIT)? else {
        // It may be in the kernel for good; it is not waited for.
        let _ = child.kill();
        return Err(io::Error::other(format!(
            "that is not done after {} s: a device is stuck",
            LIMIT.as_secs()
        )));
    };
    let mut text = String::new();
    io::Seek::rewind(&mut said)?;
    io::Read::read_to_string(&mut said, &mut text)?;
    if !status.success() {
        return Err(io::Error::other(format!(
            "the process that tries it ended ({})",
            process::how(status)
        )));
    }
    serde_json::from_str(&text).map_err(io::Error::from)
}

/// The child's work: what does not open, the first of it.
pub fn try_open(dirs: &[PathBuf]) -> Option<Refusal> {
    let refusal = |device: &Path, error: &VfioError| Refusal {
        device: device.to_owned(),
        what: kind(error),
        said: error.to_string(),
    };
    let container = match VfioContainer::new(None) {
        Ok(container) => Arc::new(container),
        Err(error) => return Some(refusal(Path::new("/dev/vfio/vfio"), &error)),
    };
    // All of them at once, as in QEMU: two of one group would be in each other's way otherwise.
    let mut open = Vec::new();
    for dir in dirs {
        match Opened::new(dir, container.clone(), false) {
            Ok(device) => {
                let regions = (0..=8).any(|index| device.get_region_size(index) > 0);
                if !regions {
                    return Some(Refusal {
                        device: dir.clone(),
                        what: Kind::Regions,
                        said: "it tells no regions".to_owned(),
                    });
                }
                open.push(device);
            }
            Err(error) => return Some(refusal(dir, &error)),
        }
    }
    None
}

const fn kind(error: &VfioError) -> Kind {
    match error {
        VfioError::OpenContainer(_) | VfioError::OpenGroup(..) => Kind::Node,
        VfioError::GetGroupStatus | VfioError::GroupViable => Kind::Viable,
        VfioError::VfioApiVersion
        | VfioError::VfioExtension
        | VfioError::VfioInvalidType
        | VfioError::VfioType1V2
        | VfioError::GroupSetContainer
        | VfioError::ContainerSetIOMMU(_) => Kind::Iommu,
        _ => Kind::Device,
    }
}

fn explain(place: &Place, refusal: &Refusal, device: String) -> DeviceError {
    let said = &refusal.said;
    let dir = refusal
        .device
        .strip_prefix(&place.sys)
        .unwrap_or(&refusal.device);
    let group = place.link_name(dir.join("iommu_group"));
    let node = group.map_or_else(
        || place.dev.join("vfio"),
        |group| place.dev.join("vfio").join(group),
    );
    let (what, hint) = match refusal.what {
        Kind::Node if !node.exists() => (
            format!("{} is not there ({said})", node.display()),
            "the kernel makes it when the whole group is with vfio-pci: `modprobe vfio-pci`".to_owned(),
        ),
        Kind::Node => {
            let mode = std::fs::metadata(&node).map_or(0, |meta| meta.permissions().mode() & 0o777);
            (
                format!("{} (mode {mode:04o}): {said}", node.display()),
                format!(
                    "run it as root, or give yourself the node: `chown $USER {}`; where another process has it open, end that",
                    node.display()
                ),
            )
        }
        Kind::Viable => {
            let others = foreign(place, dir);
            (
                format!("its group is not viable: {}", if others.is_empty() { said.clone() } else { others.join(", ") }),
                "give all of the group to the same guest (`group = \"all\"`)".to_owned(),
            )
        }
        Kind::Iommu => (
            said.clone(),
            "where interrupts cannot be remapped, `vfio_iommu_type1.allow_unsafe_interrupts=1` on the kernel's command line lets it; `dmesg` tells".to_owned(),
        ),
        Kind::Device | Kind::Regions => (
            said.clone(),
            "the device may not come out of its sleep or reset: `dmesg` tells; `mvm devices` shows how it can be reset".to_owned(),
        ),
    };
    DeviceError::Vfio {
        device,
        what,
        hint: Some(hint),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::handover::Extent;
    use crate::hosts;
    use crate::ids::PciRef;
    use crate::ops::standin;
    use crate::plan::step::User;

    #[test]
    fn a_group_that_the_guest_has_open_is_not_opened_again() {
        let tree = hosts::Host::new("intel-i915-7vf");
        let top = tempfile::tempdir().unwrap();
        standin::set(Some(tree.root()));
        let place = standin::place(&top.path().join("host")).unwrap();
        standin::set(None);
        let sound: PciRef = "0000:00:1f.3".parse().unwrap();
        let user = User {
            guest: "g".to_owned(),
            run_dir: top.path().join("g"),
        };
        std::fs::create_dir(&user.run_dir).unwrap();
        let lock = user.run_dir.join("lock");
        std::fs::write(&lock, "").unwrap();
        let held = place.host.lock().unwrap();
        let wanted = Extent::pci(sound);
        let take = place
            .host
            .take_lease(&held, &wanted, "it", &user, &|_| None);
        take.unwrap();
        let dir = Function::get(&place, sound).unwrap().dir;
        let already = || is_guests_already(&place, &VfioDevice::Pci(sound), &dir).unwrap();
        assert!(!already(), "nobody has it open");
        let open = |pid: &str, fd: &str, to: &Path| {
            let fds = place.proc.join(pid).join("fd");
            std::fs::create_dir_all(&fds).unwrap();
            symlink(to, fds.join(fd)).unwrap();
        };
        open("4242", "3", Path::new("/dev/vfio/11"));
        assert!(!already(), "somebody has it open");
        open("4242", "4", &lock.canonicalize().unwrap());
        assert!(already(), "its QEMU has it open");
        open("4243", "3", Path::new("/dev/vfio/11"));
        assert!(!already(), "and somebody else has it open too");
    }
}
