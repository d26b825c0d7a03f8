//! Slots that the profile names (`address`): whether they are free.

use std::collections::BTreeSet;

use super::check::has_gpu;
use super::{PCI_FIRST_NAMED, PCI_LAST, Place, Single, Slots, has_place, has_usb, places};
use crate::error::{ExitCode, Hint};
use crate::ids::PciSlot;
use crate::machine::desktop::Video;
use crate::machine::{BoardKind, Bus, Machine};
use crate::profile::schema::DiskBus;

/// A slot that a device cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Something is there.
    #[error("{what}: the slot {slot} of the guest's PCI bus is taken by {by}")]
    Taken {
        /// The device.
        what: String,
        /// The slot.
        slot: PciSlot,
        /// What is there.
        by: String,
    },
    /// A guest looks at function 0 first, and at no other where that is missing.
    #[error(
        "{what}: nothing has function 0 of the slot {slot:#x}, without which a guest sees no other"
    )]
    NoFirst {
        /// The device.
        what: String,
        /// The slot.
        slot: u8,
    },
}

impl Hint for AddressError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Taken { .. } => vec!["leave `address` out: mvm finds a slot".to_owned()],
            Self::NoFirst { .. } => vec!["leave the function out of `address`".to_owned()],
        }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Profile
    }
}

impl Single {
    /// Every one.
    const ALL: [Self; 11] = [
        Self::Iommu,
        Self::Serial,
        Self::Rng,
        Self::Balloon,
        Self::Watchdog,
        Self::Panic,
        Self::Vsock,
        Self::Scsi,
        Self::Usb,
        Self::Ahci,
        Self::Display,
    ];

    /// Whether the machine has it, as a device of the root bus.
    fn is_in(self, machine: &Machine) -> bool {
        let disk = |bus| {
            let mut disks = machine.disks.iter();
            disks.any(|disk| disk.bus == bus && disk.options.controller.is_none())
        };
        let board = machine.board.kind;
        match self {
            Self::Iommu => machine.board.virtio_iommu,
            Self::Serial => machine.has_serial_controller(),
            Self::Rng => machine.rng.is_some(),
            Self::Balloon => machine.balloon,
            Self::Watchdog => machine.watchdog.is_some(),
            Self::Panic => machine.panic && board == BoardKind::Virt,
            Self::Vsock => machine.vsock.is_some(),
            Self::Scsi => disk(DiskBus::Scsi),
            Self::Usb => has_usb(machine),
            Self::Ahci => disk(DiskBus::Sata) && board != BoardKind::Q35,
            Self::Display => machine.desktop.video.iter().any(Video::has_place),
        }
    }

    /// In words.
    const fn words(self) -> &'static str {
        match self {
            Self::Iommu => "the guest's IOMMU",
            Self::Serial => "the controller of virtio consoles",
            Self::Rng => "`[rng]`",
            Self::Balloon => "`[balloon]`",
            Self::Watchdog => "`[watchdog]`",
            Self::Panic => "`[panic]`",
            Self::Vsock => "`[vsock]`",
            Self::Scsi => "mvm's SCSI controller",
            Self::Usb => "the USB controller",
            Self::Ahci => "the AHCI controller",
            Self::Display => "the display",
        }
    }
}

/// The devices whose slots the profile names.
fn asked(machine: &Machine) -> Vec<(String, PciSlot)> {
    let disks = machine.disks.iter();
    let disks = disks.map(|disk| (format!("disk `{}`", disk.id), disk.options.address));
    let controllers = machine.controllers.iter();
    let controllers = controllers.map(|one| (format!("controller `{}`", one.id), one.address));
    let cards = machine.nics.iter();
    let cards = cards.map(|nic| (format!("network `{}`", nic.id), nic.options.address));
    disks
        .chain(controllers)
        .chain(cards)
        .filter_map(|(what, slot)| Some((what, slot?)))
        .collect()
}

/// The slots that the profile gives to devices.
pub(in crate::machine) fn asked_slots(machine: &Machine) -> BTreeSet<u8> {
    asked(machine).iter().map(|(_, slot)| slot.slot).collect()
}

/// The same on conventional PCI, as numbers of the devices that count from the first slot, and of those of the host,
/// which count from the last.
pub(in crate::machine) fn asked_numbers(machine: &Machine) -> (BTreeSet<u8>, BTreeSet<u8>) {
    let top = if has_gpu(machine) {
        PCI_LAST - 1
    } else {
        PCI_LAST
    };
    let asked = asked_slots(machine);
    let from_first = asked
        .iter()
        .filter_map(|slot| slot.checked_sub(PCI_FIRST_NAMED));
    let from_last = asked.iter().filter_map(|slot| top.checked_sub(*slot));
    (from_first.collect(), from_last.collect())
}

/// Where on the root bus that place is.
fn on_root(slots: Slots, place: &Place) -> Option<PciSlot> {
    let addr = place
        .addr
        .as_deref()
        .filter(|_| place.bus == slots.root())?;
    addr.parse().ok()
}

/// What is on the root bus beside the devices whose slots the profile names.
pub(crate) fn taken(machine: &Machine) -> Vec<(String, PciSlot)> {
    let slots = Slots::of(machine);
    let board: &[u8] = match machine.board.kind {
        BoardKind::Q35 => &[0, 0x1f],
        BoardKind::Pc => &[0, 1],
        BoardKind::Virt | BoardKind::Microvm => &[0],
    };
    let mut all: Vec<(String, PciSlot)> = board
        .iter()
        .map(|slot| {
            let slot = PciSlot {
                slot: *slot,
                function: 0,
            };
            ("the board".to_owned(), slot)
        })
        .collect();
    let mut add = |what: String, place: &Place| {
        all.extend(on_root(slots, place).map(|slot| (what, slot)));
    };
    for single in Single::ALL.into_iter().filter(|one| one.is_in(machine)) {
        add(single.words().to_owned(), &slots.single(single));
    }
    if (machine.desktop.has_bridge() || slots.keeps_bridge()) && slots.bus != Bus::Mmio {
        let bridge = slots.bridge(machine.board.kind);
        add("the bridge to conventional PCI".to_owned(), &bridge);
    }
    for (index, nic) in super::cards(machine).enumerate() {
        add(format!("network `{}`", nic.id), &slots.nic(index));
    }
    let disks = machine.disks.iter().filter(|disk| has_place(disk));
    for (index, disk) in disks.enumerate() {
        add(format!("disk `{}`", disk.id), &slots.disk(index));
    }
    for (index, share) in machine.shares.iter().enumerate() {
        add(format!("share `{}`", share.id), &slots.share(index));
    }
    let controllers = machine.controllers.iter();
    let controllers = controllers.filter(|controller| controller.address.is_none());
    for (index, controller) in controllers.enumerate() {
        let what = format!("controller `{}`", controller.id);
        add(what, &slots.controller(index));
    }
    for place in places(machine) {
        add("a device of the host".to_owned(), &slots.host(place));
    }
    for port in slots.root_ports() {
        let what = "a port of PCI Express devices".to_owned();
        let place = Place {
            bus: slots.root().to_owned(),
            addr: Some(port.addr()),
        };
        add(what, &place);
    }
    all
}

/// Whether the slots that the profile names are free.
pub(in crate::machine) fn check_asked(machine: &Machine) -> Result<(), AddressError> {
    let asked = asked(machine);
    if asked.is_empty() || machine.board.kind.bus() == Bus::Mmio {
        return Ok(());
    }
    let taken = taken(machine);
    for (at, (what, slot)) in asked.iter().enumerate() {
        let others = taken.iter().filter(|(_, other)| other.slot == slot.slot);
        let same = asked[..at].iter().filter(|(_, other)| other == slot);
        if let Some((by, _)) = others.chain(same).next() {
            return Err(AddressError::Taken {
                what: what.clone(),
                slot: *slot,
                by: by.clone(),
            });
        }
        let first = |other: &PciSlot| other.slot == slot.slot && other.function == 0;
        if !asked.iter().any(|(_, other)| first(other)) {
            return Err(AddressError::NoFirst {
                what: what.clone(),
                slot: slot.slot,
            });
        }
    }
    Ok(())
}

/// Whether other functions of that slot are devices too, of which its function 0 has to tell.
pub fn shares_slot(machine: &Machine, slot: PciSlot) -> bool {
    let asked = asked(machine);
    let mut others = asked.iter().map(|(_, other)| other);
    slot.function == 0 && others.any(|other| other.slot == slot.slot && *other != slot)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use crate::machine::testing::machine;

    fn refused(text: &str) -> String {
        machine(text).unwrap_err().to_string()
    }

    #[test]
    fn a_slot_is_one_devices() {
        let disk = |name: &str, address: &str| {
            format!("[disk.{name}]\nfile.path = \"{name}\"\naddress = \"{address}\"\n")
        };
        assert!(machine(&format!("[rng]\n{}", disk("a", "0x06"))).is_ok());
        let error = refused(&format!("[rng]\n{}", disk("a", "0x05")));
        assert_eq!(
            error,
            "disk `a`: the slot 0x5 of the guest's PCI bus is taken by `[rng]`"
        );
        assert!(refused(&disk("a", "1f")).contains("the board"));
        assert!(refused(&disk("a", "1e")).contains("a port"));
        let pc = |rest: &str| format!("machine.type = \"pc\"\n{rest}[disk.z]\nfile.path = \"z\"\n");
        // What has no place yet makes way.
        assert!(machine(&pc(&disk("a", "0xc"))).is_ok());
        assert!(machine(&pc(&disk("a", "0xd"))).is_ok());
        let two = |one: &str, two: &str| format!("{}{}", disk("a", one), disk("b", two));
        assert!(refused(&two("0x6", "0x6")).contains("taken by disk `a`"));
        assert!(machine(&two("0x6", "0x6.1")).is_ok());
        assert!(refused(&two("0x6.2", "0x6.1")).contains("function 0"));
        let small = format!("machine.type = \"microvm\"\n{}", disk("a", "5"));
        assert!(refused(&small).contains("no") && refused(&small).contains("slot"));
    }
}
