//! Mediated devices (`Documentation/ABI/testing/sysfs-bus-vfio-mdev`).

use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::device_error::DeviceError;
use super::holders;
use super::sysfs::Place;

/// The directory of a mediated device that exists, relative to `/sys`.
pub(crate) fn dir_of(uuid: Uuid) -> PathBuf {
    Path::new("bus/mdev/devices").join(uuid.to_string())
}

/// Whether it exists.
pub(crate) fn exists(place: &Place, uuid: Uuid) -> bool {
    place.exists(dir_of(uuid))
}

/// Makes it; one that is there must be of that type.
pub(crate) fn make(
    place: &Place,
    parent: &str,
    type_id: &str,
    uuid: Uuid,
) -> Result<(), DeviceError> {
    let device = place.device(format!("mdev-{uuid}"));
    let types = Path::new("class/mdev_bus")
        .join(parent)
        .join("mdev_supported_types");
    if !exists(place, uuid) {
        let of_type = types.join(type_id);
        if !place.exists(&of_type) {
            return Err(DeviceError::Gone {
                device: format!("type `{type_id}` of mediated devices on {parent}"),
            });
        }
        device.command(of_type.join("create"), &format!("{uuid}\n"))?;
    }
    let got = place.link_name(dir_of(uuid).join("mdev_type"));
    if got.as_deref() == Some(type_id) {
        return Ok(());
    }
    Err(DeviceError::NotBound {
        device: format!("the mediated device {uuid}"),
        wanted: type_id.to_owned(),
        got,
        hint: Some("name another UUID: this one is in use".to_owned()),
    })
}

/// Removes it, once nobody has it open.
pub(crate) fn remove(place: &Place, uuid: Uuid) -> Result<(), DeviceError> {
    let device = place.device(format!("mdev-{uuid}"));
    // An mvm that died may have left a process behind that is still making it.
    device.wait_until_quiet()?;
    if !exists(place, uuid) {
        return Ok(());
    }
    if let Some(by) = holders::wait_for_vfio(place, &dir_of(uuid)) {
        let device = format!("the mediated device {uuid}");
        return Err(DeviceError::InUse { device, by });
    }
    match device.command(dir_of(uuid).join("remove"), "1\n") {
        Err(_) if !exists(place, uuid) => Ok(()),
        done => done,
    }
}
