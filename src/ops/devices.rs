//! The steps of host devices, each under the host's lock.

use std::path::Path;

use super::device_error::DeviceError;
use super::driver::{self, Function};
use super::hostdir::Damaged;
use super::sysfs::Place;
use super::{console, holders, hugepages, mdev, node, usb, vfio, vfnet, vfs};
use crate::handover::Extent;
use crate::ids::PciRef;
use crate::plan::step::{Step, VfNetState};

/// Carries out one step. One that takes something back is for the guest of that run-time directory.
///
/// # Errors
/// What stood in the way.
pub(crate) fn run(place: &Place, step: &Step, back_for: Option<&Path>) -> Result<(), DeviceError> {
    if let Step::ConfirmVfio { devices } = step {
        // It changes nothing, and others need not wait for it.
        return vfio::confirm(place, devices);
    }
    let lock = place.host.lock()?;
    // The lease itself is no change that it could take back, and is not this guest's yet.
    let key = match step {
        Step::TakeLease { .. } => None,
        step => step.lease(),
    };
    if let (Some(key), Some(run_dir)) = (&key, back_for) {
        if let Some(guest) = place.host.other_guest(key, run_dir)? {
            tracing::info!(%key, "it was given back before: guest `{guest}` has it");
            return Ok(());
        }
    }
    // What gives the device back is in its lease as well: the guest's journal may go with a login
    // session's directory.
    let undoing = match &key {
        Some(key) => place.host.has_undo(key, step)?,
        None => false,
    };
    if let (Some(key), Some(undo), false) = (&key, step.inverse(), undoing) {
        place.host.note_undo(&lock, key, &undo)?;
    }
    match step {
        Step::TakeLease {
            key,
            device,
            part_of,
            user,
        } => {
            let in_use = |key: &str| who_has(place, key);
            let wanted = Extent {
                key: key.clone(),
                part_of: *part_of,
            };
            place
                .host
                .take_lease(&lock, &wanted, device, user, &in_use)?;
        }
        Step::ReleaseLease { key, user } => place.host.release_lease(&lock, key, user)?,
        Step::MakeVfs {
            pf,
            count,
            user,
            keep,
            provision,
        } => vfs::make(place, &lock, *pf, *count, user, *keep, provision.as_ref())?,
        Step::DropVfs { pf, user } => vfs::leave(place, &lock, *pf, user)?,
        Step::ClaimHugepages {
            size,
            node,
            pages,
            user,
        } => hugepages::claim(place, &lock, *size, *node, *pages, user)?,
        Step::ReturnHugepages { size, node, user } => {
            hugepages::give_back(place, &lock, *size, *node, user)?;
        }
        Step::RestoreVfs {
            pf,
            driver,
            autoprobe,
            remove,
            attributes,
        } => vfs::restore(
            place,
            *pf,
            driver.as_deref(),
            *autoprobe,
            *remove,
            attributes,
        )?,
        Step::SetVfNet { pf, index, to, .. } => set_vf_net(place, *pf, *index, to, undoing)?,
        Step::MakeMdev {
            parent,
            type_id,
            uuid,
            ..
        } => mdev::make(place, parent, type_id, *uuid)?,
        Step::RemoveMdev { uuid } => mdev::remove(place, *uuid)?,
        Step::DetachConsole { console, user } => console::detach(place, &lock, console, user)?,
        Step::AttachConsole { console, user } => console::attach(place, &lock, console, user)?,
        Step::BindDriver { device, driver, .. } => Function::get(place, *device)?.bind(driver)?,
        Step::GiveBack {
            device,
            driver,
            from,
        } => {
            // One that is gone, as a virtual function may be, needs nothing.
            if let Some(function) = Function::find(place, *device) {
                function.give_back(driver, from)?;
            }
        }
        Step::GiveNode { node, to, .. } => node::give(place, node, *to)?,
        Step::TakeNodeBack { node, to, from } => node::take_back(place, node, *to, *from)?,
        Step::GiveBackUsb { port, interfaces } => usb::give_back(place, port, interfaces)?,
        _ => {}
    }
    if let (Some(key), true) = (&key, undoing) {
        place.host.strike_undo(&lock, key, step)?;
    }
    Ok(())
}

/// Before it is looked for what is lost: what keeps devices from everybody without being a guest's that lives.
/// Root drops leases of other users' guests that are gone, and everybody what cannot be read, as far as it
/// is his. What cannot be read and is gone.
///
/// # Errors
/// The directory that guests share cannot be used.
pub(crate) fn drop_strangers(place: &Place) -> Result<Vec<Damaged>, DeviceError> {
    let strange = place.host.leases()?.iter().any(|lease| !lease.trusted);
    if !strange && place.host.damaged_leases()?.is_empty() {
        return Ok(Vec::new());
    }
    let lock = place.host.lock()?;
    let in_use = |key: &str| who_has(place, key);
    place.host.drop_strangers(&lock, &in_use)?;
    place.host.drop_damaged(&lock, &in_use)
}

/// The step with what the host has right now in the place of what it is to be put back to.
///
/// # Errors
/// It cannot be looked at.
pub(crate) fn observe(place: &Place, step: &Step) -> Result<Step, DeviceError> {
    let mut seen = step.clone();
    let _lock = match step {
        Step::BindDriver { .. }
        | Step::SetVfNet { .. }
        | Step::MakeMdev { .. }
        | Step::GiveNode { .. } => Some(place.host.lock()?),
        _ => None,
    };
    match &mut seen {
        Step::BindDriver { device, from, .. } => {
            *from = Function::get(place, *device)?.observe()?;
        }
        Step::SetVfNet {
            pf, index, from, ..
        } => *from = vfnet::observe(place, *pf, *index)?,
        // One that was there before stays.
        Step::MakeMdev { uuid, keep, .. } => *keep |= mdev::exists(place, *uuid),
        Step::GiveNode { node, from, .. } => *from = node::observe(place, node)?,
        Step::TakeUsb { interfaces, .. } => *interfaces = usb::observe(place, interfaces),
        _ => {}
    }
    Ok(seen)
}

/// Sets address and VLAN. When they are put back the function may be gone already, or its driver may
/// not take back what it gave itself: that is no reason to keep anything else.
fn set_vf_net(
    place: &Place,
    pf: crate::ids::Bdf,
    index: u32,
    to: &VfNetState,
    undoing: bool,
) -> Result<(), DeviceError> {
    let vf = PciRef::Vf { pf, index };
    if undoing && driver::address_of(place, vf).is_none() {
        return Ok(());
    }
    match vfnet::set(place, pf, index, to) {
        Err(error @ DeviceError::Net { .. }) if undoing => {
            tracing::warn!(%error, "not put back");
            Ok(())
        }
        done => done,
    }
}

/// Who still has the device of a lease open, in words.
fn who_has(place: &Place, key: &str) -> Option<String> {
    if let Some(uuid) = key.strip_prefix("mdev-") {
        return holders::of_vfio(place, &mdev::dir_of(uuid.parse().ok()?));
    }
    let name = key.strip_prefix("pci-")?;
    let device = match name.split_once("-vf") {
        Some((pf, index)) => PciRef::Vf {
            pf: pf.parse().ok()?,
            index: index.parse().ok()?,
        },
        None => PciRef::Function(name.parse().ok()?),
    };
    holders::of_vfio(place, &Function::find(place, device)?.dir)
}

/// Whether it is about a device of the host.
pub(crate) const fn is_device_step(step: &Step) -> bool {
    !matches!(
        step,
        Step::MakeDir { .. }
            | Step::Lock { .. }
            | Step::CopyFile { .. }
            | Step::KeepPlaces { .. }
            | Step::CreateOverlay { .. }
            | Step::CreateTap { .. }
            | Step::Listen { .. }
            | Step::OpenDir { .. }
            | Step::GiveFile { .. }
            | Step::RunHook { .. }
            | Step::PromiseHook { .. }
            | Step::StartSidecar { .. }
            | Step::EndSidecar { .. }
            | Step::RemoveFile { .. }
            | Step::RemoveDir { .. }
            | Step::DeleteTap { .. }
    )
}
