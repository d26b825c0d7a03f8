//! Mediated devices: those that exist, and those that are made for the guest.

use uuid::Uuid;

use super::error::DeviceError;
use super::gpu::{self, GPU, igd_spot};
use super::may::taken;
use super::resolve::{Asked, Spot, shown};
use super::{GuestPlace, GuestSide, HostDevice, HostDeviceKind, HostMdev, Igd};
use crate::handover::Extent;
use crate::host::devices::{MdevParent, MdevType, find};
use crate::ids::{Bdf, Id};
use crate::machine::{BoardKind, names};

/// One that is asked for.
struct Ask<'a> {
    id: Id,
    what: String,
    /// A UUID of one that exists.
    uuid: Option<Uuid>,
    /// The type of one that is made.
    kind: Option<&'a str>,
    parent: Option<String>,
    keep: bool,
    park: bool,
    display: bool,
    ramfb: bool,
    /// Whether only a GPU can make it.
    gpu: bool,
}

/// The mediated devices of the guest. `next` is the first place that is free.
pub(super) fn mdevs(
    asked: Asked<'_>,
    mut next: u8,
    notes: &mut Vec<String>,
) -> Result<Vec<HostDevice>, DeviceError> {
    let mut out: Vec<HostDevice> = Vec::new();
    for ask in asks(asked) {
        if asked.board == BoardKind::Microvm {
            return Err(DeviceError::NoPci {
                what: ask.what,
                board: asked.board,
            });
        }
        let (mdev, text) = match ask.uuid {
            Some(uuid) => existing(asked, &ask, uuid)?,
            None => made(asked, &ask, &out, notes)?,
        };
        if let Some(lease) = asked.other_guest(&Extent::mdev(mdev.uuid, mdev.part_of)) {
            return Err(taken(&ask.what, lease.shown(), lease));
        }
        let gpu = asked.layer.gpu.as_ref().filter(|_| ask.gpu);
        let parent = mdev.parent.parse::<Bdf>().ok();
        let parent = parent.and_then(|bdf| asked.devices().function(bdf));
        let spot = if ask.gpu {
            igd_spot(parent, asked.board)
        } else {
            Spot::Next
        };
        let place = match spot {
            Spot::Root(slot) => GuestPlace::Root {
                slot,
                function: 0,
                multifunction: false,
            },
            _ => {
                let index = if spot == Spot::Gpu { 0 } else { next };
                next += u8::from(spot != Spot::Gpu);
                GuestPlace::Own {
                    index,
                    function: 0,
                    multifunction: false,
                }
            }
        };
        out.push(HostDevice {
            id: ask.id,
            text,
            kind: HostDeviceKind::Mdev(mdev),
            take_from_host: false,
            park: ask.park,
            guest: GuestSide {
                place: Some(place),
                no_rom: gpu.is_some_and(|gpu| gpu.rom_bar == Some(false)),
                igd: gpu.filter(|gpu| gpu.opregion == Some(true)).map(|_| Igd {
                    opregion: true,
                    gms: None,
                }),
                display: ask.display,
                ramfb: ask.display && ask.ramfb,
                ..GuestSide::default()
            },
        });
    }
    Ok(out)
}

fn asks<'a>(asked: Asked<'a>) -> Vec<Ask<'a>> {
    let mut asks = Vec::new();
    let gpu = asked.layer.gpu.as_ref();
    if let Some((gpu, text)) = gpu.and_then(|gpu| Some((gpu, gpu.mdev.as_deref()?))) {
        let uuid = text.parse().ok();
        asks.push(Ask {
            id: gpu::id(),
            what: GPU.to_owned(),
            uuid,
            kind: Some(text).filter(|_| uuid.is_none()),
            parent: gpu.address.map(|bdf| bdf.to_string()),
            keep: gpu.keep.unwrap_or(false),
            park: gpu.park.unwrap_or(false),
            display: gpu.display == Some(true),
            ramfb: gpu.ramfb == Some(true),
            gpu: true,
        });
    }
    for (id, table) in asked.layer.mdev.iter().flatten() {
        asks.push(Ask {
            id: id.clone(),
            what: format!("`[mdev.{id}]`"),
            uuid: table.uuid,
            kind: table.r#type.as_deref(),
            parent: table.parent.clone(),
            keep: table.keep.unwrap_or(false),
            park: table.park.unwrap_or(false),
            display: table.display == Some(true),
            ramfb: table.ramfb == Some(true),
            gpu: false,
        });
    }
    asks
}

fn existing(
    asked: Asked<'_>,
    ask: &Ask<'_>,
    uuid: Uuid,
) -> Result<(HostMdev, String), DeviceError> {
    let mdevs = &asked.devices().mdevs;
    let found = mdevs.iter().find(|mdev| mdev.uuid == uuid);
    let Some(found) = found else {
        return Err(DeviceError::NoMdev {
            what: ask.what.clone(),
            uuid: uuid.to_string(),
            has: mdevs
                .iter()
                .map(|mdev| format!("{} ({} of {})", mdev.uuid, mdev.type_id, mdev.parent))
                .collect(),
        });
    };
    let text = format!("{} of {}", found.type_id, found.parent);
    let mdev = HostMdev {
        uuid,
        parent: found.parent.clone(),
        part_of: asked.devices().mdev_parent(&found.parent),
        type_id: Some(found.type_id.clone()),
        create: false,
        keep: true,
    };
    Ok((mdev, text))
}

/// The parent that can make one more, and the type.
fn made(
    asked: Asked<'_>,
    ask: &Ask<'_>,
    others: &[HostDevice],
    notes: &mut Vec<String>,
) -> Result<(HostMdev, String), DeviceError> {
    let facts = asked.devices();
    let kind = ask.kind.unwrap_or_default();
    let uuid = names::mdev(asked.name, &ask.id);
    let parents = parents(asked, ask)?;
    let is_it = |one: &&MdevType| one.id == kind || (!one.name.is_empty() && one.name == kind);
    let found: Vec<(&MdevParent, &MdevType)> = parents
        .iter()
        .filter_map(|parent| Some((*parent, parent.types.iter().find(is_it)?)))
        .collect();
    if found.is_empty() {
        let all = parents.iter().flat_map(|parent| {
            let types = parent.types.iter();
            types.map(|one| format!("{} of {} ({} left)", one.id, parent.name, one.left()))
        });
        return Err(DeviceError::NoMdevType {
            what: ask.what.clone(),
            kind: kind.to_owned(),
            parent: ask.parent.clone(),
            types: all.collect(),
            gpu: ask.gpu,
            elsewhere: facts
                .mdev_parents
                .iter()
                .find(|parent| ask.gpu && parent.types.iter().any(|one| is_it(&one)))
                .map(|parent| parent.name.clone()),
        });
    }
    let there = facts.mdevs.iter().find(|mdev| mdev.uuid == uuid);
    let left = |parent: &MdevParent, one: &MdevType| {
        let ours = others.iter().filter(|device| match &device.kind {
            HostDeviceKind::Mdev(mdev) => {
                mdev.create && mdev.parent == parent.name && mdev.type_id.as_ref() == Some(&one.id)
            }
            _ => false,
        });
        // What the driver does not tell in time is found out when it is made.
        let left = one.available.map_or(usize::MAX, |left| left as usize);
        left.saturating_sub(ours.count())
    };
    let pick = found.iter().find(|(parent, one)| match there {
        Some(there) => there.parent == parent.name && there.type_id == one.id,
        None => left(parent, one) > 0,
    });
    let Some((parent, one)) = pick else {
        let names: Vec<&str> = found
            .iter()
            .map(|(parent, _)| parent.name.as_str())
            .collect();
        let exist = found.iter().flat_map(|(_, one)| &one.devices);
        return Err(DeviceError::NoInstances {
            what: ask.what.clone(),
            kind: kind.to_owned(),
            parent: names.join(" or "),
            users: exist
                .map(|uuid| match asked.other_guest(&Extent::mdev(*uuid, None)) {
                    Some(lease) => format!("{uuid} (guest {})", lease.guest),
                    None => uuid.to_string(),
                })
                .collect(),
        });
    };
    if ask.parent.is_none() {
        notes.push(format!("{} → {} of {}", ask.what, one.id, parent.name));
    }
    let text = match one.name.as_str() {
        "" => format!("{} of {}", one.id, parent.name),
        name => format!("{name} ({}) of {}", one.id, parent.name),
    };
    let mdev = HostMdev {
        uuid,
        parent: parent.name.clone(),
        part_of: facts.mdev_parent(&parent.name),
        type_id: Some(one.id.clone()),
        create: there.is_none(),
        keep: ask.keep || there.is_some(),
    };
    Ok((mdev, text))
}

/// The devices that may make it.
fn parents<'a>(asked: Asked<'a>, ask: &Ask<'_>) -> Result<Vec<&'a MdevParent>, DeviceError> {
    let facts = asked.devices();
    let all = facts.mdev_parents.iter();
    let Some(parent) = &ask.parent else {
        let is_gpu = |one: &&MdevParent| {
            let device = one.bdf.and_then(|bdf| facts.function(bdf));
            !ask.gpu || device.is_some_and(|device| device.is_gpu())
        };
        return Ok(all.filter(is_gpu).collect());
    };
    let named: Vec<&MdevParent> = all.clone().filter(|one| one.name == *parent).collect();
    if !named.is_empty() {
        return Ok(named);
    }
    let device = find::pci(facts, parent).map_err(|error| DeviceError::Find {
        what: ask.what.clone(),
        error,
        gone: Vec::new(),
    })?;
    let own: Vec<&MdevParent> = all.filter(|one| one.bdf == Some(device.bdf)).collect();
    if own.is_empty() {
        return Err(DeviceError::NoMdevType {
            what: ask.what.clone(),
            kind: ask.kind.unwrap_or_default().to_owned(),
            parent: Some(shown(device)),
            types: Vec::new(),
            gpu: false,
            elsewhere: None,
        });
    }
    Ok(own)
}
