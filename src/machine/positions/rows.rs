//! The devices of a machine by the rows of their places, with the names that a place is kept under.

use std::collections::{BTreeMap, BTreeSet};

use super::BRIDGE;
use crate::ids::Id;
use crate::machine::desktop::video::Video;
use crate::machine::host_devices::GuestPlace;
use crate::machine::slots::{self, PortKind};
use crate::machine::{Disk, Machine};
use crate::profile::schema::DiskBus;

/// The devices of one kind, in their order.
pub(super) struct Kind {
    pub(super) port: PortKind,
    pub(super) names: Vec<String>,
}

impl Kind {
    fn of<'a>(port: PortKind, word: &str, ids: impl Iterator<Item = &'a Id>) -> Self {
        Self {
            port,
            names: ids.map(|id| format!("{word}.{id}")).collect(),
        }
    }
}

/// Cards, disks, shares, controllers whose places mvm chooses.
pub(super) fn kinds(machine: &Machine) -> [Kind; 4] {
    let disks = machine.disks.iter().filter(|disk| slots::has_place(disk));
    let controllers = machine.controllers.iter();
    let controllers = controllers.filter(|one| one.address.is_none());
    [
        Kind::of(
            PortKind::Card,
            "network",
            slots::cards(machine).map(|nic| &nic.id),
        ),
        Kind::of(PortKind::Disk, "disk", disks.map(|disk| &disk.id)),
        Kind::of(
            PortKind::Share,
            "share",
            machine.shares.iter().map(|share| &share.id),
        ),
        Kind::of(
            PortKind::Controller,
            "controller",
            controllers.map(|one| &one.id),
        ),
    ]
}

/// The names of all.
pub(super) fn names(kinds: &[Kind; 4]) -> Vec<String> {
    let names = kinds.iter().flat_map(|kind| &kind.names);
    names.cloned().collect()
}

/// What is to have a port, in the order of a first start. `old` are the cards that sit where a port would be.
pub(super) fn wanted(
    machine: &Machine,
    kinds: &[Kind; 4],
    old: &BTreeSet<String>,
) -> Vec<(PortKind, u8, String)> {
    let bridge = machine.desktop.has_bridge().then(|| BRIDGE.to_owned());
    let bridge = bridge.into_iter().map(|name| (PortKind::Bridge, 0, name));
    let hosts = hosts(machine).map(|(index, name)| (PortKind::Host, index, name));
    let kinds = kinds.iter().flat_map(|kind| {
        let names = kind.names.iter();
        names.map(|name| match old.contains(name) {
            true => (PortKind::OldCard, 0, name.clone()),
            false => (kind.port, 0, name.clone()),
        })
    });
    bridge.chain(kinds).chain(hosts).collect()
}

/// The devices of the host that have slots, by the index that they have in the profile's order. Functions of one
/// slot are one.
pub(super) fn hosts(machine: &Machine) -> impl Iterator<Item = (u8, String)> {
    let devices = machine.host_devices.iter();
    devices.filter_map(|device| match device.guest.place? {
        GuestPlace::Own {
            index, function: 0, ..
        } => Some((index, format!("host.{}", device.id))),
        GuestPlace::Own { .. } | GuestPlace::Root { .. } => None,
    })
}

/// The row of a disk whose place is a number on its controller.
pub(super) fn unit_row(disk: &Disk) -> Option<String> {
    if let Some(controller) = &disk.options.controller {
        return Some(format!("controller.{controller}"));
    }
    let row = match disk.bus {
        DiskBus::Scsi => "scsi",
        DiskBus::Sata => "sata",
        DiskBus::Ide => "ide",
        // Ports of USB are others' as well, and there are two floppy drives.
        DiskBus::Usb | DiskBus::Floppy | DiskBus::Virtio | DiskBus::Nvme => return None,
    };
    Some(row.to_owned())
}

pub(super) fn units(machine: &Machine) -> BTreeMap<String, Vec<String>> {
    let mut rows: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for disk in &machine.disks {
        if let Some(row) = unit_row(disk) {
            let names = rows.entry(row).or_default();
            names.push(format!("disk.{}", disk.id));
        }
    }
    rows
}

pub(super) fn behind(machine: &Machine) -> [(&'static str, Vec<String>); 3] {
    let mut words = ["audio", "shmem", "input"].into_iter();
    machine.desktop.behind().map(|ids| {
        let word = words.next().unwrap_or_default();
        let names = ids.into_iter().map(|id| format!("{word}.{id}"));
        (word, names.collect())
    })
}

/// Functions of the display's slot.
pub(super) fn videos(machine: &Machine) -> Vec<String> {
    let videos = machine.desktop.video.iter();
    let videos = videos.filter(|video| Video::has_place(video));
    videos.map(|video| format!("video.{}", video.id)).collect()
}
