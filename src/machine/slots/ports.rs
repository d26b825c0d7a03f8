//! The root ports of PCI Express: which kind of device has which, and where they are.

use std::collections::BTreeSet;

use crate::machine::BoardKind;

/// A root port that a device sits behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootPort {
    /// The port's number on this board, 0 first; it makes the id, the chassis and the slot's number.
    pub number: u8,
    slot: u8,
    function: u8,
    of_host: bool,
}

impl RootPort {
    /// The port with that number.
    pub(super) fn new(number: u8) -> Self {
        let (slot, function) = at(number);
        Self {
            number,
            slot,
            function,
            of_host: false,
        }
    }

    /// The same, of a device of the host or not.
    pub(super) fn for_host(self, of_host: bool) -> Self {
        Self { of_host, ..self }
    }

    /// QEMU's id.
    pub fn id(&self) -> String {
        format!("mvm-port-{}", self.number)
    }

    /// Slot and function on the root bus.
    pub fn addr(&self) -> String {
        format!("{:#x}.{:#x}", self.slot, self.function)
    }

    /// Whether what sits behind it is a device of the host, which the guest was started with.
    pub fn is_of_host(&self) -> bool {
        self.of_host
    }

    /// Whether the others of its slot hide behind it.
    pub fn is_first_of_slot(&self) -> bool {
        self.function == 0
    }
}

/// Root ports of one kind of device.
pub(super) struct Ports {
    /// The number of the first.
    number: u8,
    /// Its slot.
    slot: u8,
    /// How many have slots of their own; eight more share the slot after those.
    single: u8,
}

impl Ports {
    /// How many there can be.
    pub(super) const fn max(&self) -> usize {
        self.single as usize + 8
    }

    /// The numbers of all.
    fn numbers(&self) -> std::ops::Range<u8> {
        self.number..self.number + self.single + 8
    }

    /// The port with that index.
    pub(super) fn get(&self, index: u8) -> RootPort {
        RootPort::new(self.number.saturating_add(index))
    }

    fn at(&self, number: u8) -> (u8, u8) {
        let index = number - self.number;
        (
            self.slot + index.min(self.single),
            index.saturating_sub(self.single),
        )
    }
}

/// For cards, disks, shares, for what comes while the guest runs, and for devices of the host.
pub(super) const PORTS: [Ports; 5] = [
    Ports {
        number: 0,
        slot: 0x0c,
        single: 3,
    },
    Ports {
        number: 16,
        slot: 0x10,
        single: 7,
    },
    Ports {
        number: 32,
        slot: 0x18,
        single: 3,
    },
    Ports {
        number: 56,
        slot: 0x1e,
        single: 0,
    },
    Ports {
        number: 72,
        slot: 0x1c,
        single: 1,
    },
];
/// Which of them are kept free.
pub(super) const FREE: usize = 3;
/// Which of them are for devices of the host.
pub(super) const OWN: usize = 4;
/// The number of the bridge to conventional PCI where it was from the start; it is no root port.
pub(in crate::machine) const BRIDGE_PORT: u8 = 95;
/// Where that is, at the latest.
const BRIDGE_SLOT: u8 = 0x0b;
/// And on virt.
const BRIDGE_SLOT_VIRT: u8 = 0x02;
/// The number of the first of those that are for what came after the first start, eight to a slot.
const LATE: u8 = 96;
/// The slots that those can be in; what is kept free comes after them.
const LATE_SLOTS: std::ops::RangeInclusive<u8> = 0x0c..=0x1d;

/// What has a root port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::machine) enum PortKind {
    /// The bridge to conventional PCI.
    Bridge,
    /// A network card.
    Card,
    /// A network card that sits where the port would be. When it goes and others hide behind it, a port would have
    /// to stand in, with a bus of its own: it is not first in a slot that others share.
    OldCard,
    /// A disk.
    Disk,
    /// A share.
    Share,
    /// A named controller.
    Controller,
    /// A device of the host.
    Host,
}

/// Slot and function of the port with that number.
fn at(number: u8) -> (u8, u8) {
    if number == BRIDGE_PORT {
        return (BRIDGE_SLOT, 0);
    }
    if let Some(late) = number.checked_sub(LATE) {
        return (LATE_SLOTS.start() + late / 8, late % 8);
    }
    let kind = PORTS.iter().find(|ports| ports.numbers().contains(&number));
    // No other number is ever given.
    kind.map_or((0, 0), |ports| ports.at(number))
}

/// The slot of the port with that number.
pub(in crate::machine) fn port_slot(number: u8, board: BoardKind) -> u8 {
    match board {
        BoardKind::Virt if number == BRIDGE_PORT => BRIDGE_SLOT_VIRT,
        _ => at(number).0,
    }
}

/// Whether a device can have that number.
pub(in crate::machine) fn is_port(number: &u8) -> bool {
    let late = number
        .checked_sub(LATE)
        .map(|late| LATE_SLOTS.start() + late / 8);
    let of = |ports: &Ports| ports.numbers().contains(number);
    let free = of(&PORTS[FREE]);
    *number == BRIDGE_PORT
        || late.is_some_and(|slot| LATE_SLOTS.contains(&slot))
        || (!free && PORTS.iter().any(of))
}

/// The port behind which the others of its slot hide.
pub(super) fn first_of_slot(number: u8) -> u8 {
    let (slot, _) = at(number);
    let mut numbers = PORTS.iter().flat_map(Ports::numbers);
    numbers
        .find(|number| at(*number) == (slot, 0))
        .unwrap_or(number)
}

/// Whether the others of its slot hide behind it.
pub(super) fn is_first(number: u8) -> bool {
    at(number).1 == 0
}

/// Whether two are in one slot.
pub(super) fn share_slot(one: u8, other: u8) -> bool {
    at(one).0 == at(other).0
}

/// Whether the port with that number is one of those that are kept free.
pub fn is_free_port(number: u32) -> bool {
    u8::try_from(number).is_ok_and(|number| PORTS[FREE].numbers().contains(&number))
}

/// A port behind all that are taken, so that the numbers of their buses stay, outside of the slots that the profile
/// gives to others.
pub(in crate::machine) fn late_port(
    kind: PortKind,
    taken: &[u8],
    asked: &BTreeSet<u8>,
) -> Option<u8> {
    let (slot, function) = taken.iter().map(|number| at(*number)).max()?;
    let number = |slot: u8, function: u8| LATE + (slot - LATE_SLOTS.start()) * 8 + function;
    let mut slots = LATE_SLOTS.filter(|next| *next > slot && !asked.contains(next));
    if let Some(next) = slots.next() {
        let shared = slots.next().is_none() && kind == PortKind::OldCard;
        return Some(number(next, u8::from(shared)));
    }
    (LATE_SLOTS.contains(&slot) && function < 7).then(|| number(slot, function + 1))
}

/// The first free one of a kind, if possible outside of the slots that the profile gives to others; the `index` counts
/// devices of the host, of which the GPU is the first.
pub(in crate::machine) fn first_port(
    kind: PortKind,
    index: u8,
    taken: &[u8],
    asked: &BTreeSet<u8>,
) -> Option<u8> {
    let is_free = |number: &u8| taken.iter().all(|other| at(*other) != at(*number));
    let find = |free: &dyn Fn(&u8) -> bool| {
        let of = |ports: &Ports| ports.numbers().find(free);
        match kind {
            PortKind::Bridge => Some(BRIDGE_PORT),
            PortKind::Card => of(&PORTS[0]),
            PortKind::OldCard => {
                let cards = &PORTS[0];
                let mut numbers = cards.numbers();
                numbers.find(|number| free(number) && *number != cards.number + cards.single)
            }
            PortKind::Disk => of(&PORTS[1]),
            PortKind::Share => of(&PORTS[2]),
            // From the end down, behind the first port of their slot, so that neither they nor disks move each other.
            PortKind::Controller => {
                let hidden = PORTS[1].numbers().rev().take(7);
                hidden.into_iter().find(free)
            }
            PortKind::Host => {
                let mut numbers = PORTS[OWN].numbers().skip(index.min(1).into());
                numbers.find(free)
            }
        }
    };
    // Without another the profile is refused, with the name of what is there.
    find(&|number| is_free(number) && !asked.contains(&at(*number).0)).or_else(|| find(&is_free))
}
