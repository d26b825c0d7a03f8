//! Virtual functions: made from none, shared by guests, removed by the last.
//!
//! The kernel lets their number go from 0 to N and back to 0 only (`sriov_numvfs_store`). What was there
//! before mvm is never counted nor changed.

use std::path::PathBuf;

use super::device_error::DeviceError;
use super::driver::{self, Function, dir_of};
use super::hostdir::{HostLock, Last};
use super::provision;
use super::sysfs::{Device, Place};
use crate::handover::Provision;
use crate::ids::{Bdf, PciRef};
use crate::plan::step::{Attribute, Step, User};

/// A physical function.
struct Physical<'a> {
    place: &'a Place,
    pf: Bdf,
    device: Device<'a>,
}

fn key(pf: Bdf) -> String {
    format!("vfs-{pf}")
}

impl<'a> Physical<'a> {
    fn find(place: &'a Place, pf: Bdf) -> Option<Self> {
        place.exists(dir_of(pf)).then(|| Self {
            place,
            pf,
            device: place.device(format!("pci-{pf}")),
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        dir_of(self.pf).join(name)
    }

    /// How many it has now.
    fn count(&self) -> Result<u32, DeviceError> {
        let text = self.device.read(self.file("sriov_numvfs"))?;
        let count = text.and_then(|text| text.parse().ok());
        count.ok_or_else(|| DeviceError::NoSriov {
            pf: self.pf.to_string(),
        })
    }

    fn driver(&self) -> Option<String> {
        self.place.link_name(self.file("driver"))
    }

    fn autoprobe(&self) -> Option<bool> {
        let text = self.place.read(self.file("sriov_drivers_autoprobe"))?;
        Some(text != "0")
    }

    fn set_autoprobe(&self, on: bool) -> Result<(), DeviceError> {
        if self.autoprobe().is_none_or(|now| now == on) {
            return Ok(());
        }
        let text = if on { "1" } else { "0" };
        self.device
            .set(self.file("sriov_drivers_autoprobe"), text)
            .map(drop)
    }
}

/// Makes them where there are none, or joins those who use the ones that mvm made.
pub(crate) fn make(
    place: &Place,
    lock: &HostLock,
    pf: Bdf,
    count: u32,
    user: &User,
    keep: bool,
    wanted: Option<&Provision>,
) -> Result<(), DeviceError> {
    let function = Physical::find(place, pf).ok_or_else(|| DeviceError::Gone {
        device: format!("PCI function {pf}"),
    })?;
    let total: u32 = place
        .number(function.file("sriov_totalvfs"))
        .ok_or_else(|| DeviceError::NoSriov { pf: pf.to_string() })?;
    let count = if count == 0 { total } else { count };
    let now = function.count()?;
    let shared = place.host.shared_of(&key(pf))?.is_some();
    if now > 0 && !shared {
        // The host's own.
        return Ok(());
    }
    if now == 0 && count > total {
        let pf = pf.to_string();
        return Err(DeviceError::TooManyVfs { pf, count, total });
    }
    let settings = match wanted {
        Some(wanted) if now == 0 => provision::settings(place, pf, count, wanted)?,
        _ => Vec::new(),
    };
    let autoprobe = function.autoprobe();
    place.host.share(lock, &key(pf), user, || {
        Ok(vec![Step::RestoreVfs {
            pf,
            driver: function.driver(),
            autoprobe,
            remove: !keep,
            attributes: provision::as_now(&function.device, &settings)?,
        }])
    })?;
    if now > 0 {
        return Ok(());
    }
    for setting in &settings {
        provision::write(&function.device, setting)?;
    }
    // The host's drivers would take what a guest is to get.
    function.set_autoprobe(false)?;
    let made = function
        .device
        .set(function.file("sriov_numvfs"), &count.to_string());
    let after = autoprobe.map_or(Ok(()), |before| function.set_autoprobe(before));
    made?;
    after
}

/// Gives up their use; the last user removes them.
pub(crate) fn leave(
    place: &Place,
    lock: &HostLock,
    pf: Bdf,
    user: &User,
) -> Result<(), DeviceError> {
    match place.host.unshare(lock, &key(pf), user)? {
        Last::No => Ok(()),
        Last::Yes(shared) => {
            for step in shared.undo.iter().rev() {
                if let Step::RestoreVfs {
                    pf,
                    driver,
                    autoprobe,
                    remove,
                    attributes,
                } = step
                {
                    restore(
                        place,
                        *pf,
                        driver.as_deref(),
                        *autoprobe,
                        *remove,
                        attributes,
                    )?;
                }
            }
            place.host.forget_shared(lock, &key(pf))
        }
    }
}

/// Puts a physical function back as it was.
pub(crate) fn restore(
    place: &Place,
    pf: Bdf,
    had: Option<&str>,
    autoprobe: Option<bool>,
    remove: bool,
    attributes: &[Attribute],
) -> Result<(), DeviceError> {
    let Some(function) = Physical::find(place, pf) else {
        return Ok(());
    };
    function.device.wait_until_quiet()?;
    if remove && function.count()? > 0 {
        for index in 1.. {
            let vf = PciRef::Vf { pf, index };
            let Some(vf) = Function::find(place, vf) else {
                break;
            };
            // Removing it would wait for whoever has it open.
            vf.expect_unused()?;
        }
        // It is the driver that removes them.
        if let (None, Some(had)) = (function.driver(), had) {
            let physical = Function::get(place, PciRef::Function(pf))?;
            let before = physical.observe()?;
            driver::rebind(&physical, had, &before)?;
        }
        function.device.set(function.file("sriov_numvfs"), "0")?;
    }
    // Virtual functions that stay keep what they were given.
    for setting in attributes.iter().rev().filter(|_| remove) {
        if let Err(error) = provision::write(&function.device, setting) {
            // They are about virtual functions that are gone.
            tracing::warn!(%error, "a setting of the GPU's driver is not put back");
        }
    }
    autoprobe.map_or(Ok(()), |before| function.set_autoprobe(before))
}
