//! VFIO in the kernel.

use serde::{Deserialize, Serialize};

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
}
