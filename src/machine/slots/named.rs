//! Places of devices that have names, where they are not in a row.

use super::ports::{PORTS, RootPort};
use super::{Bus, Slots, small};

/// Disks and named controllers share their ports: controllers have the last ones, from the end down, so that neither
/// moves the other. All of those hide behind the first port of their slot.
const FIRST_OF_LAST_SLOT: usize = 7;

/// The root port of a named controller.
pub(super) fn controller(index: usize) -> RootPort {
    let ports = &PORTS[1];
    ports.get(small(ports.max().saturating_sub(index + 1)))
}

impl Slots {
    /// The ports of named controllers, and the one that they hide behind where no disk has it.
    pub(super) fn controller_ports(self, disks: usize) -> impl Iterator<Item = RootPort> {
        let count = if self.bus == Bus::Pcie {
            self.controllers
        } else {
            0
        };
        let first = count > 0 && disks <= FIRST_OF_LAST_SLOT;
        let first = first.then(|| PORTS[1].get(small(FIRST_OF_LAST_SLOT)));
        first.into_iter().chain((0..count).rev().map(controller))
    }
}
