//! Functions that people take and give back themselves: written down before they change, and no
//! recovery's business, as nobody died.

use super::device_error::DeviceError;
use super::driver::Function;
use super::hostdir::{Alive, HostLock, alive};
use super::sysfs::Place;
use crate::handover::Extent;
use crate::ids::PciRef;
use crate::plan::step::Step;

/// Gives a function to a driver until [`unbind`]. Whether anything was to be done.
///
/// # Errors
/// A guest has it, or it cannot be taken: then it is as it was.
pub fn bind(place: &Place, device: PciRef, driver: &str) -> Result<bool, DeviceError> {
    let lock = place.host.lock()?;
    expect_no_guest(place, device)?;
    let function = Function::get(place, device)?;
    let from = function.observe()?;
    if from.driver.as_deref() == Some(driver) {
        return Ok(false);
    }
    let key = device.key();
    let undo = match place.host.bound_by_hand(&key)? {
        // What was there before the first time is what counts.
        Some(before) if before.trusted => before.content.undo,
        _ => Step::GiveBack {
            device,
            driver: driver.to_owned(),
            from,
        },
    };
    place
        .host
        .note_by_hand(&lock, &key, &device.to_string(), &undo)?;
    let Err(error) = function.bind(driver) else {
        return Ok(true);
    };
    if let Err(stays) = give_back(place, &lock, &undo) {
        tracing::warn!(error = %stays, "cannot put it back");
    }
    Err(error)
}

/// Gives back what [`bind`] took, as it was. Whether anything was taken.
///
/// # Errors
/// A guest has it, or it cannot be given back.
pub fn unbind(place: &Place, device: PciRef) -> Result<bool, DeviceError> {
    let lock = place.host.lock()?;
    let found = place.host.bound_by_hand(&device.key())?;
    let Some(found) = found.filter(|record| record.trusted) else {
        return Ok(false);
    };
    expect_no_guest(place, device)?;
    give_back(place, &lock, &found.content.undo)?;
    Ok(true)
}

fn give_back(place: &Place, lock: &HostLock, undo: &Step) -> Result<(), DeviceError> {
    let Step::GiveBack {
        device,
        driver,
        from,
    } = undo
    else {
        return Ok(());
    };
    if let Some(function) = Function::find(place, *device) {
        function.give_back(driver, from)?;
    }
    place.host.forget_by_hand(lock, &device.key())
}

/// That no guest has it, or a part of it, or what it is a part of.
fn expect_no_guest(place: &Place, device: PciRef) -> Result<(), DeviceError> {
    let wanted = Extent::pci(device);
    if let Some(damaged) = place.host.damaged(&wanted.key) {
        return Err(damaged.error());
    }
    let leases = place.host.leases()?;
    let theirs = leases
        .into_iter()
        .find(|lease| wanted.excludes(&lease.extent()));
    match theirs {
        Some(lease) if alive(&lease.content.run_dir) == Alive::Yes => Err(lease.error()),
        Some(lease) => Err(DeviceError::LeftBehind {
            device: lease.content.device,
            guest: lease.content.guest,
            run_dir: lease.content.run_dir,
        }),
        None => Ok(()),
    }
}
