//! VFIO in the kernel.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::variant::{self, Variant};
use crate::host::sysfs::Sysfs;

/// What there is of VFIO.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct VfioFacts {
    /// `/dev/vfio/vfio` is there.
    pub container: bool,
    /// The driver `vfio-pci` is there now.
    pub pci_driver: bool,
    /// It can be loaded: this kernel has it as a module or built in. `None` where that could not be
    /// found out.
    pub pci_available: Option<bool>,
    /// `/dev/iommu` is there.
    pub iommufd: bool,
    /// The groups that have a node under `/dev/vfio`.
    pub groups: Vec<u32>,
    /// Drivers beside vfio-pci for devices of one kind.
    pub variants: Vec<Variant>,
}

/// Reads it.
pub(super) fn read(sysfs: &Sysfs, around: Option<&Path>) -> VfioFacts {
    let dev = |node: &str| around.is_some_and(|around| around.join("dev").join(node).exists());
    let nodes = around.and_then(|around| fs::read_dir(around.join("dev/vfio")).ok());
    let mut groups: Vec<u32> = nodes
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    groups.sort_unstable();
    let pci_driver = sysfs.exists("bus/pci/drivers/vfio-pci");
    VfioFacts {
        container: dev("vfio/vfio"),
        pci_driver,
        pci_available: if pci_driver {
            Some(true)
        } else {
            around.and_then(has_module)
        },
        iommufd: dev("iommu"),
        groups,
        variants: around.map(variant::read).unwrap_or_default(),
    }
}

/// Whether this kernel's modules hold `vfio-pci`; `None` where they are not to be seen.
fn has_module(around: &Path) -> Option<bool> {
    let release = fs::read_to_string(around.join("proc/sys/kernel/osrelease")).ok()?;
    let dir = around.join("lib/modules").join(release.trim());
    let lists = ["modules.dep", "modules.builtin"];
    let mut texts = lists
        .iter()
        .filter_map(|list| fs::read_to_string(dir.join(list)).ok())
        .peekable();
    texts.peek()?;
    // The file's name ends the line or is before a colon, maybe with `.xz` or the like after it, and has
    // no folder where a small system has all modules in one.
    let is_it = |line: &str| {
        let file = line.split(':').next().unwrap_or_default();
        let name = file.rsplit('/').next().unwrap_or_default();
        name.starts_with("vfio-pci.ko")
    };
    Some(texts.any(|text| text.lines().any(is_it)))
}
