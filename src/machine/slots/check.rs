//! Whether a board has places for all devices of a machine.

use super::ports::{OWN, PORTS};
use super::{MMIO_FIRST_NAMED, MMIO_LAST, PCI_FIRST_NAMED, Slots, usb_hosts};
use crate::error::{ExitCode, Hint};
use crate::machine::{BoardKind, Bus, Machine};
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

/// Whether the board has places for all devices.
pub(in crate::machine) fn check(machine: &Machine) -> Result<(), SlotError> {
    let board = machine.board.kind;
    let slots = Slots::of(machine);
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
    let [nics, disks, shares, free] = slots.counts;
    let controllers = slots.controllers;
    let all = nics + disks + shares + controllers;
    match slots.bus {
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
            fits(free, "free ports", PORTS[3].max())?;
            let beside_gpu = slots.own_end().saturating_sub(1);
            fits(beside_gpu, OF_HOST, PORTS[OWN].max() - 1)?;
        }
        Bus::Pci if slots.own > 0 || slots.gpu.is_some() => fits(
            all + slots.own_end() + usize::from(slots.gpu.is_some()),
            "network cards, virtio and NVMe disks, shares, controllers and PCI devices of the host",
            PCI_NAMED,
        )?,
        Bus::Pci => fits(
            all,
            "network cards, virtio and NVMe disks, shares and controllers",
            PCI_NAMED,
        )?,
        Bus::Mmio => fits(
            all,
            "network cards, virtio disks, shares and controllers",
            // The inputs come after the GPU.
            MMIO_NAMED
                - match (machine.desktop.inputs.len(), machine.desktop.video.len()) {
                    (0, videos) => videos,
                    (inputs, _) => 1 + inputs,
                },
        )?,
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
