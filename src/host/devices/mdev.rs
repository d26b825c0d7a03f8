//! Mediated devices (`Documentation/ABI/testing/sysfs-bus-vfio-mdev`).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::Bdf;

/// A type of mediated device that a device can make.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct MdevType {
    /// Its name in sysfs, `i915-GVTg_V5_4`.
    pub id: String,
    /// What its maker calls it; may be empty.
    pub name: String,
    /// More about it, on one line; may be empty.
    pub description: String,
    /// How many more can be made.
    pub available: u32,
    /// Those that exist.
    pub devices: Vec<Uuid>,
}

/// A device that mediated devices can be made of: one of `/sys/class/mdev_bus`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct MdevParent {
    /// Its name there: a PCI address, or `mtty` and the like for a device without a bus.
    pub name: String,
    /// The PCI function that it is.
    pub bdf: Option<Bdf>,
    /// What it can make.
    pub types: Vec<MdevType>,
}

/// A mediated device that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Mdev {
    /// Its name.
    pub uuid: Uuid,
    /// The name of the [`MdevParent`] that it was made of.
    pub parent: String,
    /// Its type.
    pub type_id: String,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// Its driver, `vfio_mdev`.
    pub driver: Option<String>,
}
