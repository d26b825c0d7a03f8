//! Whether a board has places for all devices of a machine.

use super::ports::{FREE, OWN, PORTS};
use super::{
    BEHIND_MAX, MMIO_FIRST_NAMED, MMIO_LAST, PCI_FIRST_NAMED, asked_numbers, cards, has_place,
    places, usb_hosts,
};
use crate::error::{ExitCode, Hint};
use crate::machine::host_devices::GuestPlace;
use crate::machine::{BoardKind, Bus, Controller, Machine};
use crate::profile::schema::DiskBus;

/// Devices of the host, in an error. Functions of one slot count as one.
const OF_HOST: &str = "PCI devices of the host beside a GPU";
const PCI_NAMED: usize = 0x20 - PCI_FIRST_NAMED as usize;
/// microvm has 24 transports where it has two I/O APICs, as it does with ACPI.
const MMIO_NAMED: usize = MMIO_LAST as usize + 1 - MMIO_FIRST_NAMED as usize;
const SATA_PORTS: usize = 6;
const IDE_UNITS: usize = 4;
const FLOPPY_UNITS: usize = 2;
/// As many as hide behind the first port of a slot.
const CONTROLLERS: usize = 7;
/// What is behind the bridge to conventional PCI.
const BEHIND: [&str; 3] = [
    "sound cards",
    "pieces of shared memory",
    "virtio keyboards and pointers",
];
const SCSI_TARGETS: usize = 255;

/// The board has no place for all devices.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{count} {what} are more than the {max} that the board {board} has places for")]
pub struct SlotError {
    count: usize,
    what: &'static str,
    max: usize,
    board: BoardKind,
}

impl Hint for SlotError {
    fn hints(&self) -> Vec<String> {
        if self.what.contains("virtio") {
            vec!["disks with `bus = \"scsi\"` share one place".to_owned()]
        } else {
            Vec::new()
        }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Profile
    }
}

/// How many places there are for cards, disks, shares and controllers together, and on pc for devices of the host.
pub(in crate::machine) fn row_max(machine: &Machine) -> usize {
    match machine.board.kind.bus() {
        // The last slot is left to what a GPU displaces.
        Bus::Pci if has_gpu(machine) => PCI_NAMED - 1,
        Bus::Pci | Bus::Pcie => PCI_NAMED,
        // The inputs come after the GPU.
        Bus::Mmio => {
            let desktop = &machine.desktop;
            let taken = match (desktop.inputs.len(), desktop.video.len()) {
                (0, videos) => videos,
                (inputs, _) => 1 + inputs,
            };
            MMIO_NAMED.saturating_sub(taken)
        }
    }
}

/// How many disks there can be on a bus or controller, by the name of its row.
pub(in crate::machine) fn units(machine: &Machine, row: &str) -> usize {
    match row {
        "sata" => SATA_PORTS,
        "ide" => IDE_UNITS,
        _ => {
            let mut controllers = machine.controllers.iter();
            let named = row.strip_prefix("controller.");
            let named = controllers.find(|one| Some(one.id.as_str()) == named);
            named.map_or(SCSI_TARGETS, Controller::targets)
        }
    }
}

/// Whether a device of the host has a slot of the root bus.
pub(super) fn has_gpu(machine: &Machine) -> bool {
    places(machine).any(|place| matches!(place, GuestPlace::Root { .. }))
}

/// The places for devices of the host up to the last one that is taken.
fn own_end(machine: &Machine) -> usize {
    let ends = places(machine).filter_map(|place| match place {
        GuestPlace::Own { index, .. } => Some(usize::from(index) + 1),
        GuestPlace::Root { .. } => None,
    });
    ends.max().unwrap_or(0)
}

/// Whether the board has places for all devices.
pub(in crate::machine) fn check(machine: &Machine) -> Result<(), SlotError> {
    let board = machine.board.kind;
    let fits = |count, what, max| {
        if count <= max {
            Ok(())
        } else {
            Err(SlotError {
                count,
                what,
                max,
                board,
            })
        }
    };
    let nics = cards(machine).count();
    let disks = machine.disks.iter().filter(|disk| has_place(disk)).count();
    let shares = machine.shares.len();
    let controllers = machine.controllers.iter();
    let controllers = controllers.filter(|one| one.address.is_none()).count();
    let all = nics + disks + shares + controllers;
    let own = own_end(machine);
    // Those that the profile gives to others.
    let (asked, _) = asked_numbers(machine);
    let asked = asked
        .iter()
        .filter(|at| usize::from(**at) < row_max(machine));
    let row_max = row_max(machine).saturating_sub(match board.bus() {
        Bus::Pci => asked.count(),
        Bus::Pcie | Bus::Mmio => 0,
    });
    match board.bus() {
        Bus::Pcie => {
            fits(nics, "network cards", PORTS[0].max())?;
            match controllers {
                0 => fits(disks, "virtio and NVMe disks", PORTS[1].max())?,
                // One of the ports of their slot is the one that the others hide behind.
                _ => {
                    fits(controllers, "controllers", CONTROLLERS)?;
                    let both = "virtio and NVMe disks and controllers";
                    fits(disks + controllers, both, PORTS[1].max())?;
                }
            }
            fits(shares, "shares", PORTS[2].max())?;
            let free = machine.hotplug_ports.into();
            fits(free, "free ports", PORTS[FREE].max())?;
            fits(own.saturating_sub(1), OF_HOST, PORTS[OWN].max() - 1)?;
        }
        Bus::Pci if own > 0 || has_gpu(machine) => fits(
            all + own,
            "network cards, virtio and NVMe disks, shares, controllers and PCI devices of the host",
            row_max,
        )?,
        Bus::Pci => fits(
            all,
            "network cards, virtio and NVMe disks, shares and controllers",
            row_max,
        )?,
        Bus::Mmio => fits(
            all,
            "network cards, virtio disks, shares and controllers",
            row_max,
        )?,
    }
    for (ids, what) in machine.desktop.behind().iter().zip(BEHIND) {
        fits(ids.len(), what, BEHIND_MAX)?;
    }
    for (bus, what, max) in [
        (DiskBus::Sata, "SATA disks and drives", SATA_PORTS),
        (DiskBus::Ide, "IDE disks and drives", IDE_UNITS),
        (DiskBus::Floppy, "floppy drives", FLOPPY_UNITS),
        (
            DiskBus::Usb,
            "USB devices",
            machine.desktop.usb.ports.into(),
        ),
        (DiskBus::Scsi, "SCSI disks and drives", SCSI_TARGETS),
    ] {
        let on_it = machine.disks.iter();
        let on_it = on_it.filter(|disk| disk.bus == bus && disk.options.controller.is_none());
        let mut count = on_it.count();
        if bus == DiskBus::Usb {
            count += usb_hosts(machine) + machine.desktop.on_usb();
        }
        fits(count, what, max)?;
    }
    for controller in &machine.controllers {
        let disks = machine.disks.iter();
        let on_it = disks.filter(|disk| disk.options.controller.as_ref() == Some(&controller.id));
        let what = "disks and drives of one controller";
        fits(on_it.count(), what, controller.targets())?;
    }
    Ok(())
}
