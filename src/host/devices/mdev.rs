//! Mediated devices (`Documentation/ABI/testing/sysfs-bus-vfio-mdev`).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::slow::Answers;
use crate::host::sysfs::Sysfs;
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
    /// How many more can be made; `None` where the driver did not tell in time.
    pub available: Option<u32>,
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

const PARENTS: &str = "class/mdev_bus";

impl MdevType {
    /// How many more can be made, for people.
    pub fn left(&self) -> String {
        self.available
            .map_or_else(|| "?".to_owned(), |left| left.to_string())
    }
}

/// The files of the types that ask a driver, read beside others that may not answer.
pub(super) fn slow_files(sysfs: &Sysfs) -> Vec<String> {
    let mut files = Vec::new();
    for parent in sysfs.list(PARENTS).unwrap_or_default() {
        for id in types(sysfs, &parent) {
            for file in ["available_instances", "description"] {
                files.push(type_file(&parent, &id, file));
            }
        }
    }
    files
}

fn types(sysfs: &Sysfs, parent: &str) -> Vec<String> {
    let dir = format!("{PARENTS}/{parent}/mdev_supported_types");
    sysfs.list(dir).unwrap_or_default()
}

fn type_file(parent: &str, id: &str, file: &str) -> String {
    format!("{PARENTS}/{parent}/mdev_supported_types/{id}/{file}")
}

/// Reads what can make mediated devices.
pub(super) fn parents(sysfs: &Sysfs, answers: &Answers) -> Vec<MdevParent> {
    let one = |name: String| {
        let kind = |id: String| {
            let file = |file: &str| type_file(&name, &id, file);
            let devices = sysfs.list(file("devices")).unwrap_or_default();
            let number = answers.text(&file("available_instances"));
            let description = answers.text(&file("description")).unwrap_or_default();
            MdevType {
                name: sysfs.read(file("name")).unwrap_or_default(),
                description: description.lines().collect::<Vec<_>>().join(", "),
                available: number.and_then(|text| text.parse().ok()),
                devices: devices
                    .iter()
                    .filter_map(|uuid| uuid.parse().ok())
                    .collect(),
                id,
            }
        };
        MdevParent {
            bdf: name.parse().ok(),
            types: types(sysfs, &name).into_iter().map(kind).collect(),
            name,
        }
    };
    let names = sysfs.list(PARENTS).unwrap_or_default();
    names.into_iter().map(one).collect()
}

/// Reads the mediated devices that exist.
pub(super) fn devices(sysfs: &Sysfs) -> Vec<Mdev> {
    let one = |name: &String| {
        let dir = format!("bus/mdev/devices/{name}");
        let link = |file: &str| sysfs.link_name(format!("{dir}/{file}")).ok().flatten();
        let target = std::fs::read_link(sysfs.path(&dir)).ok();
        let parent = target
            .as_deref()
            .and_then(|path| path.parent()?.file_name());
        Some(Mdev {
            uuid: name.parse().ok()?,
            parent: parent.map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            type_id: link("mdev_type").unwrap_or_default(),
            group: link("iommu_group").and_then(|group| group.parse().ok()),
            driver: link("driver"),
        })
    };
    let names = sysfs.list("bus/mdev/devices").unwrap_or_default();
    names.iter().filter_map(one).collect()
}
