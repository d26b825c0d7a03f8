//! The root ports of PCI Express: which kind of device has which, and where they are.

/// A root port that a device sits behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootPort {
    /// The port's number on this board, 0 first; it makes the id, the chassis and the slot's number.
    pub number: u8,
    slot: u8,
    function: u8,
}

impl RootPort {
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
        self.number >= PORTS[OWN].number
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

    /// The port with that index.
    pub(super) fn get(&self, index: u8) -> RootPort {
        RootPort {
            number: self.number.saturating_add(index),
            slot: self.slot + index.min(self.single),
            function: index.saturating_sub(self.single),
        }
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
/// Which of them are for devices of the host.
pub(super) const OWN: usize = 4;
