//! The IOMMU: on or off, its groups, and what would turn it on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::pci::PciDevice;
use crate::host::sysfs::Sysfs;
use crate::ids::Bdf;

/// The host's IOMMU.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct IommuFacts {
    /// Whether the kernel drives one: devices are in groups, or can be.
    pub on: bool,
    /// Whether a function comes into its group only when a driver takes it: where a device tree, not ACPI,
    /// tells what is behind an IOMMU (`of_dma_configure`; seen with Linux 6.1). One that no driver has had
    /// since the boot is in none then.
    pub late_groups: bool,
    /// Which one.
    pub kind: Option<IommuKind>,
    /// How many address bits a guest's memory may have: the smallest of all VT-d units' (MGAW of their
    /// capability register). Other IOMMUs do not tell.
    pub width: Option<u8>,
    /// The functions of each group.
    pub groups: BTreeMap<u32, Vec<Bdf>>,
    /// Who made the processor.
    pub cpu_vendor: Option<CpuVendor>,
    /// What the kernel was started with; empty where it could not be read.
    pub cmdline: String,
    /// What seems to have started it.
    pub boot_loader: Option<BootLoader>,
}

/// The kind of an IOMMU, by its driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IommuKind {
    /// Intel VT-d.
    Intel,
    /// AMD-Vi.
    Amd,
    /// Arm SMMU, any version.
    Smmu,
    /// virtio-iommu: this host is a guest itself.
    Virtio,
    /// Another one.
    Other,
}

/// Who made the processor, as far as the kernel's parameters differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CpuVendor {
    /// Intel.
    Intel,
    /// AMD, and Hygon, which is made after it.
    Amd,
    /// Any Arm processor.
    Arm,
}

/// What starts the kernel, and so where its parameters are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootLoader {
    /// GRUB.
    Grub,
    /// systemd-boot.
    SystemdBoot,
    /// U-Boot or another one that reads `extlinux.conf`.
    Extlinux,
    /// The Raspberry Pi's firmware.
    RaspberryPi,
}

/// The variable in which a boot loader leaves its name (Boot Loader Interface of systemd).
const LOADER_INFO: &str = "firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// Reads them; the groups are those of `pci`.
pub(super) fn read(sysfs: &Sysfs, around: Option<&Path>, pci: &[PciDevice]) -> IommuFacts {
    let mut groups: BTreeMap<u32, Vec<Bdf>> = BTreeMap::new();
    for device in pci {
        if let Some(group) = device.group {
            groups.entry(group).or_default().push(device.bdf);
        }
    }
    let units = sysfs.list("class/iommu").unwrap_or_default();
    let text = |file: &str| {
        let text = around.and_then(|around| fs::read_to_string(around.join(file)).ok());
        text.unwrap_or_default()
    };
    // Firmware with ACPI leaves an empty tree.
    let late_groups = !units.is_empty() && sysfs.exists("firmware/devicetree/base/compatible");
    IommuFacts {
        on: !groups.is_empty() || late_groups,
        late_groups,
        kind: units.first().map(|unit| kind(sysfs, unit)),
        width: units.iter().filter_map(|unit| width(sysfs, unit)).min(),
        groups,
        cpu_vendor: cpu_vendor(&text("proc/cpuinfo")),
        cmdline: text("proc/cmdline").trim().to_owned(),
        boot_loader: boot_loader(sysfs, around).or_else(|| by_cmdline(text("proc/cmdline").trim())),
    }
}

/// What a boot loader adds of its own: GRUB the kernel's file, systemd-boot files as Windows writes them.
fn by_cmdline(cmdline: &str) -> Option<BootLoader> {
    if cmdline.starts_with("BOOT_IMAGE=") {
        Some(BootLoader::Grub)
    } else if cmdline.starts_with("initrd=\\") {
        Some(BootLoader::SystemdBoot)
    } else {
        None
    }
}

fn kind(sysfs: &Sysfs, unit: &str) -> IommuKind {
    let has = |dir: &str| sysfs.exists(format!("class/iommu/{unit}/{dir}"));
    if has("intel-iommu") {
        IommuKind::Intel
    } else if has("amd-iommu") {
        IommuKind::Amd
    } else if unit.contains("smmu") {
        IommuKind::Smmu
    } else if unit.starts_with("virtio") {
        IommuKind::Virtio
    } else {
        IommuKind::Other
    }
}

/// MGAW, bits 21:16 of the capability register, is the width less one (VT-d specification, 11.4.2).
fn width(sysfs: &Sysfs, unit: &str) -> Option<u8> {
    let text = sysfs
        .read(format!("class/iommu/{unit}/intel-iommu/cap"))
        .ok()?;
    // Hexadecimal without `0x`.
    let cap = u64::from_str_radix(&text, 16).ok()?;
    Some((cap >> 16 & 0x3f) as u8 + 1)
}

fn cpu_vendor(cpuinfo: &str) -> Option<CpuVendor> {
    let value = |key: &str| {
        cpuinfo.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == key).then(|| value.trim())
        })
    };
    match value("vendor_id") {
        Some("GenuineIntel") => Some(CpuVendor::Intel),
        Some("AuthenticAMD" | "HygonGenuine") => Some(CpuVendor::Amd),
        Some(_) => None,
        None => value("CPU implementer").map(|_| CpuVendor::Arm),
    }
}

fn boot_loader(sysfs: &Sysfs, around: Option<&Path>) -> Option<BootLoader> {
    if let Ok(bytes) = sysfs.read_bytes(LOADER_INFO) {
        // Four bytes of attributes, then UTF-16.
        let units = bytes.get(4..).unwrap_or_default().chunks_exact(2);
        let units: Vec<u16> = units
            .map(|two| u16::from_le_bytes([two[0], two[1]]))
            .collect();
        let name = String::from_utf16_lossy(&units);
        if name.starts_with("systemd-boot") {
            return Some(BootLoader::SystemdBoot);
        }
        if name.starts_with("GRUB") {
            return Some(BootLoader::Grub);
        }
    }
    let around = around?;
    let has = |files: &[&str]| files.iter().any(|file| around.join(file).exists());
    if has(&["boot/extlinux/extlinux.conf"]) {
        Some(BootLoader::Extlinux)
    } else if has(&["boot/firmware/cmdline.txt", "boot/cmdline.txt"]) {
        Some(BootLoader::RaspberryPi)
    } else if has(&[
        "etc/default/grub",
        "boot/grub/grub.cfg",
        "boot/grub2/grub.cfg",
    ]) {
        // Before systemd-boot: with Fedora's GRUB there are entries for both.
        Some(BootLoader::Grub)
    } else if has(&[
        "boot/loader/loader.conf",
        "efi/loader/loader.conf",
        "boot/efi/loader/loader.conf",
    ]) {
        Some(BootLoader::SystemdBoot)
    } else {
        None
    }
}
