//! Reading `/sys/bus/pci/devices`: the listing of each device tells which of its files there are.
//!
//! What takes the device's lock in the kernel is not read here: `driver_override` (see
//! [`super::super::slow`]), `sriov_numvfs` (the links to the virtual functions are counted instead) and
//! `config`, which wakes a device that sleeps.

use std::collections::{BTreeMap, HashSet};

use super::{PciDevice, Sriov};
use crate::host::sysfs::{Sysfs, parse_u64};
use crate::ids::Bdf;

/// Where the functions are.
pub(in crate::host::devices) const DEVICES: &str = "bus/pci/devices";

/// Every function, in bus order; names, uses and what is behind a lock are left open.
pub(in crate::host::devices) fn read(sysfs: &Sysfs) -> Vec<PciDevice> {
    let names = sysfs.list(DEVICES).unwrap_or_default();
    let mut numbers = BTreeMap::new();
    let mut all: Vec<PciDevice> = names
        .iter()
        .filter_map(|name| function(sysfs, name.parse().ok()?, &mut numbers))
        .collect();
    all.sort_by_key(|device| device.bdf);
    for device in &mut all {
        // The links of a physical function tell the number, and the virtual one whose it is.
        device.physfn = device.physfn.and_then(|(pf, _)| {
            let number = numbers.get(&(pf, device.bdf))?;
            Some((pf, *number))
        });
    }
    all
}

/// The number of a virtual function by its physical one and its own address.
type VfNumbers = BTreeMap<(Bdf, Bdf), u32>;

/// One that went away while it was read is left out.
fn function(sysfs: &Sysfs, bdf: Bdf, numbers: &mut VfNumbers) -> Option<PciDevice> {
    let dir = format!("{DEVICES}/{bdf}");
    let files: HashSet<String> = sysfs.list(&dir).ok()?.into_iter().collect();
    let text = |file: &str| {
        files
            .contains(file)
            .then(|| sysfs.read(format!("{dir}/{file}")).ok())?
    };
    let number = |file: &str| text(file).and_then(|text| parse_u64(&text));
    let id = |file: &str| number(file).and_then(|id| u16::try_from(id).ok());
    let link = |file: &str| {
        files
            .contains(file)
            .then(|| sysfs.link_name(format!("{dir}/{file}")).ok()?)?
    };
    let class = u32::try_from(number("class")?).ok()?;
    let subsystem = id("subsystem_vendor").zip(id("subsystem_device"));
    let members = |folder: &str| {
        if files.contains(folder) {
            sysfs.list(format!("{dir}/{folder}")).unwrap_or_default()
        } else {
            Vec::new()
        }
    };
    let mut drm = members("drm");
    drm.retain(|name| name.starts_with("card") || name.starts_with("render"));
    let reset_methods = text("reset_method").unwrap_or_default();
    let vfs = vfs(sysfs, &dir, &files);
    numbers.extend(vfs.iter().map(|(number, vf)| ((bdf, *vf), *number)));
    let physfn: Option<Bdf> = link("physfn").and_then(|name| name.parse().ok());
    Some(PciDevice {
        bdf,
        class,
        vendor: id("vendor")?,
        device: id("device")?,
        subsystem: subsystem.filter(|ids| *ids != (0, 0)),
        revision: number("revision").map_or(0, |revision| revision as u8),
        driver: link("driver"),
        group: link("iommu_group").and_then(|name| name.parse().ok()),
        // -1: the firmware does not tell.
        numa: text("numa_node").and_then(|node| node.parse().ok()),
        reset_methods: reset_methods
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
        can_reset: files.contains("reset"),
        boot_vga: number("boot_vga") == Some(1),
        bridge: class >> 8 == 0x0604 || class >> 8 == 0x0609 || class >> 8 == 0x0607,
        parent: parent(sysfs, &dir),
        // The number comes once all links have been read.
        physfn: physfn.map(|pf| (pf, 0)),
        sriov: number("sriov_totalvfs")
            .filter(|total| *total > 0)
            .map(|total| Sriov {
                total: total as u32,
                current: vfs.len() as u32,
                offset: number("sriov_offset").unwrap_or(0) as u32,
                stride: number("sriov_stride").unwrap_or(0) as u32,
                // Without the `0x` that other ids have.
                vf_device: text("sriov_vf_device").and_then(|id| u16::from_str_radix(&id, 16).ok()),
                // Kernels before 4.13 have no such file and always look for a driver.
                autoprobe: number("sriov_drivers_autoprobe") != Some(0),
                vfs: vfs.iter().map(|(_, vf)| *vf).collect(),
            }),
        drm,
        power_control: files
            .contains("power")
            .then(|| sysfs.read(format!("{dir}/power/control")).ok())
            .flatten(),
        ..PciDevice::default()
    })
}

/// `virtfn0` is number 1.
fn vf_number(name: &str) -> Option<u32> {
    let index: u32 = name.strip_prefix("virtfn")?.parse().ok()?;
    index.checked_add(1)
}

/// The virtual functions by number.
fn vfs(sysfs: &Sysfs, dir: &str, files: &HashSet<String>) -> Vec<(u32, Bdf)> {
    let mut all: Vec<(u32, Bdf)> = files
        .iter()
        .filter_map(|name| {
            let number = vf_number(name)?;
            let target = sysfs.link_name(format!("{dir}/{name}")).ok()??;
            Some((number, target.parse().ok()?))
        })
        .collect();
    all.sort_unstable();
    all
}

/// The bridge above: the directory that the device's own is in, if that is a function too.
fn parent(sysfs: &Sysfs, dir: &str) -> Option<Bdf> {
    let target = std::fs::read_link(sysfs.path(dir)).ok()?;
    target.parent()?.file_name()?.to_str()?.parse().ok()
}
