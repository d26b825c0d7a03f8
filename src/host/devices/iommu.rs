//! The IOMMU: on or off, its groups, and what would turn it on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::Bdf;

/// The host's IOMMU.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct IommuFacts {
    /// Whether the kernel drives one: devices are in groups.
    pub on: bool,
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
