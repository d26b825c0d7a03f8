//! Functions that people take and give back themselves: written down before they change, and no
//! recovery's business, as nobody died.

use super::device_error::DeviceError;
use super::driver::{Function, is_same};
use super::hostdir::{Alive, HostLock, alive};
use super::node;
use super::sysfs::Place;
use crate::handover::Extent;
use crate::ids::PciRef;
use crate::plan::step::{Node, Owner, Step, VfioDevice};

/// Gives a function to a driver until [`unbind`], and its node to a user. Whether anything was to be done.
///
/// # Errors
/// A guest has it, or it cannot be taken: then it is as it was.
pub fn bind(
    place: &Place,
    device: PciRef,
    driver: &str,
    user: Option<u32>,
) -> Result<bool, DeviceError> {
    let lock = place.host.lock()?;
    expect_no_guest(place, device)?;
    let function = Function::get(place, device)?;
    let from = function.observe()?;
    let has_it = from.driver.as_ref().is_some_and(|now| is_same(now, driver));
    if has_it && user.is_none() {
        return Ok(false);
    }
    let key = device.key();
    let before = place.host.bound_by_hand(&key)?;
    // What was there before the first time is what counts.
    let (undo, nodes) = match before.filter(|before| before.trusted) {
        Some(before) => (before.content.undo, before.content.nodes),
        None => {
            let driver = driver.to_owned();
            let undo = Step::GiveBack {
                device,
                driver,
                from,
            };
            (undo, Vec::new())
        }
    };
    let note = |nodes: &[Step]| {
        let name = device.to_string();
        place.host.note_by_hand(&lock, &key, &name, &undo, nodes)
    };
    note(&nodes)?;
    let done = function
        .bind(driver)
        .and_then(|()| user.map_or(Ok(!has_it), |uid| give(place, device, uid, &nodes, &note)));
    if let Err(error) = done {
        let noted = place.host.bound_by_hand(&key)?;
        let nodes = noted.map_or(nodes, |noted| noted.content.nodes);
        if let Err(stays) = give_back(place, &lock, &undo, &nodes) {
            tracing::warn!(error = %stays, "cannot put it back");
        }
        return Err(error);
    }
    done
}

/// Gives the function's nodes to a user, each noted before. Whether any was another's.
fn give(
    place: &Place,
    device: PciRef,
    uid: u32,
    before: &[Step],
    note: &dyn Fn(&[Step]) -> Result<(), DeviceError>,
) -> Result<bool, DeviceError> {
    let to = Owner::alone(uid);
    let device = VfioDevice::Pci(device);
    let mut steps = Vec::new();
    let mut gives = Vec::new();
    for node in [Node::Group(device.clone()), Node::Own(device.clone())] {
        let Some(now) = node::observe(place, &node)? else {
            continue;
        };
        let first = before.iter().find_map(|step| match step {
            Step::TakeNodeBack {
                node: noted, from, ..
            } if *noted == node => *from,
            _ => None,
        });
        steps.push(Step::TakeNodeBack {
            node: node.clone(),
            to,
            from: first.or(Some(now)),
        });
        gives.push((node, now != to));
    }
    if gives.is_empty() {
        return Err(DeviceError::Gone {
            device: Node::Group(device).to_string(),
        });
    }
    note(&steps)?;
    for (node, _) in &gives {
        node::give(place, node, to)?;
    }
    Ok(gives.iter().any(|(_, changes)| *changes))
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
    give_back(place, &lock, &found.content.undo, &found.content.nodes)?;
    Ok(true)
}

fn give_back(
    place: &Place,
    lock: &HostLock,
    undo: &Step,
    nodes: &[Step],
) -> Result<(), DeviceError> {
    for step in nodes {
        if let Step::TakeNodeBack { node, to, from } = step {
            node::take_back(place, node, *to, *from)?;
        }
    }
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
