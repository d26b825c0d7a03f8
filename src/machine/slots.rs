//! Where each device sits, so that a guest finds it at the same place at every start.
//!
//! A device that a guest has at most one of has a fixed slot. Named ones (cards, disks, shares) follow
//! in order. On PCI Express each of those sits behind a root port of its own, because only there it can
//! be unplugged; the others are on the root bus, which costs the guest nothing to look at. Ports of
//! cards come before those of disks, so that another disk does not rename the cards. The first ports of
//! a kind have slots of their own, because a guest's IOMMU may group the functions of one slot.
//!
//! ```text
//!            q35, virt (pcie.0)          pc (pci.0)         microvm (virtio-mmio-bus.N)
//! 00         host bridge                 host bridge        0 serial  1 rng  2 balloon
//! 01, 02     displays, GPU               PIIX3, displays    3 vsock   4 scsi  5 GPU
//! 03 - 0b    one of a kind               one of a kind
//! 0c - 1f    0c-0f ports of cards        cards, disks,      23 down to 5 cards, disks, shares
//!            10-17 ports of disks, and   shares,            (Linux looks at the highest first)
//!            down from 17.7 those of     controllers;
//!            named controllers           down from
//!            18-1b ports of shares       1f devices of the
//!            1c-1d ports of the host's   host (1e where a
//!            devices, 1c the GPU's       GPU is at 02 or 04)
//!            1e ports that are kept free
//!            1f ICH9 (q35), the panic
//!            device (virt)
//! ```
//!
//! Video devices are functions of one slot. Sound, shared memory and virtio keyboards and pointers, on PCI
//! Express conventional devices in part, sit behind a bridge: at 0b on q35, at 02 on virt, at 01.4 on pc; on
//! microvm keyboards and pointers are at 6 and on.
//!
//! Intel's integrated GPU is at 02 as on the host, or at 04 beside another display; then the controller of
//! consoles, which is there otherwise, is at 02, on pc at 1f.
//!
//! A device of which the profile names the slot (`address`) sits there, on the root bus, and takes no other place.
//!
//! That is a guest's first start. Which numbers its devices have is kept from then on ([`super::positions`]): on PCI
//! Express those that come later get root ports behind all others, of which there are eight to a slot from 0c.0 to
//! 1d.7, on pc and microvm the next place of their row.

mod asked;
mod check;
mod numbers;
mod ports;
mod usb;

use super::host_devices::GuestPlace;
use super::positions::Positions;
use super::{BoardKind, Bus, Machine};
use crate::ids::PciSlot;
use crate::profile::schema::DiskBus;
#[cfg(test)]
pub(crate) use asked::taken;
pub use asked::{AddressError, shares_slot};
pub(super) use asked::{asked_numbers, asked_slots, check_asked};
pub use check::SlotError;
pub(super) use check::{check, row_max, units};
use numbers::Numbers;
pub(super) use ports::{BRIDGE_PORT, PortKind, first_port, is_port, late_port, port_slot};
use ports::{FREE, PORTS};
pub use ports::{RootPort, is_free_port};
use usb::usb_hosts;
pub use usb::{desktop_ports, has_usb, usb_port};

/// Devices that a guest has at most one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Single {
    /// The virtio-iommu.
    Iommu,
    /// The controller of virtio consoles and channels.
    Serial,
    /// The random number generator.
    Rng,
    /// The balloon.
    Balloon,
    /// The watchdog.
    Watchdog,
    /// The panic device of virt; that of the others is on their ISA bus.
    Panic,
    /// The virtual socket.
    Vsock,
    /// The SCSI controller.
    Scsi,
    /// The USB controller.
    Usb,
    /// The AHCI controller.
    Ahci,
    /// The display: a virtual GPU.
    Display,
}

/// Devices that have names; each is the index of its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    Nic,
    Disk,
    Share,
    Controller,
}

/// What sits behind the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// Sound cards.
    Audio,
    /// Shared memory.
    Shmem,
    /// Virtio keyboards and pointers.
    Input,
}

/// Where a device sits: QEMU's `bus` and `addr`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The bus.
    pub bus: String,
    /// Slot and function on it; none on virtio-mmio, where a bus holds one device.
    pub addr: Option<String>,
}

const PCI_LAST: u8 = 0x1f;
/// Where a GPU beside another display is.
const UPT_SLOT: u8 = 0x04;

/// The bridge to what is conventional PCI.
pub const BRIDGE: &str = "mvm-pci";
/// The first slots behind the bridge of sound, shared memory, virtio keyboards and pointers.
const BEHIND: [u8; 3] = [0x01, 0x08, 0x10];
/// How many of each there can be.
pub(super) const BEHIND_MAX: usize = 8;
/// How many video devices there can be: functions of a slot.
pub(in crate::machine) const VIDEO_MAX: usize = 8;
/// The first transport of virtio keyboards and pointers.
const MMIO_FIRST_INPUT: u8 = MMIO_FIRST_NAMED + 1;

const PCI_FIRST_NAMED: u8 = 0x0c;
const MMIO_FIRST_NAMED: u8 = 5;
const MMIO_LAST: u8 = 23;
/// Stands for the root port of a device that a running guest gets, followed by a word and `}`: which of
/// the free ones it is, is decided when it is plugged in.
pub const FREE_PORT: &str = "{port:";

/// The index of the numbers of devices of the host.
const OWN_ROW: usize = 4;
/// More than any kind of device can have on any board.
const ROW: usize = 24;

/// The places of a machine's devices.
#[derive(Debug, Clone, Copy)]
pub struct Slots {
    bus: Bus,
    /// The numbers of cards, disks with a function of their own, shares, named controllers, devices of the host.
    numbers: [[u8; ROW]; 5],
    /// The numbers of what is behind the bridge: sound, shared memory, virtio keyboards and pointers.
    behind: [[u8; ROW]; 3],
    /// The functions of video devices.
    videos: [u8; ROW],
    /// The root ports.
    ports: Numbers,
    /// Those of them that devices of the host have.
    of_host: Numbers,
    /// The cards that sit on the root bus of PCI Express, where their port would be.
    old_cards: Numbers,
    /// The number of the bridge to conventional PCI, on PCI Express; it may be kept for what comes again.
    bridge: Option<u8>,
    /// The slot of the root bus where the host's GPU is.
    gpu: Option<u8>,
    /// The devices come to a machine that runs: free places, rather than those that stay.
    hot: bool,
}

impl Slots {
    /// The places of that machine's devices.
    pub fn of(machine: &Machine) -> Self {
        // Those that are placed already stay.
        let positions = machine.positions.laid(machine);
        let bus = machine.board.kind.bus();
        let mut slots = Self {
            bus,
            numbers: positions.numbers(machine).map(row),
            behind: positions.behind(machine).map(row),
            videos: row(positions.videos(machine)),
            ports: Numbers::default(),
            of_host: Numbers::default(),
            old_cards: Numbers::default(),
            bridge: positions.bridge().filter(|_| bus == Bus::Pcie),
            gpu: places(machine).find_map(|place| match place {
                GuestPlace::Root { slot, .. } => Some(slot),
                GuestPlace::Own { .. } => None,
            }),
            hot: false,
        };
        if bus == Bus::Pcie {
            slots.add_ports(&positions, machine);
        }
        slots
    }

    fn add_ports(&mut self, positions: &Positions, machine: &Machine) {
        let cards: Vec<String> = old_cards(machine)
            .map(|nic| format!("network.{}", nic.id))
            .collect();
        for (name, number) in positions.ports(true) {
            // One that has gone needs nothing: there is no bus behind it.
            if cards.iter().any(|card| card == name) {
                self.old_cards.insert(number);
            }
        }
        let free = 0..machine.hotplug_ports;
        let free = free.map(|index| ("", PORTS[FREE].get(index).number));
        let ports = positions.ports(false).chain(free);
        for (name, number) in ports.filter(|(_, number)| Some(*number) != self.bridge) {
            self.ports.insert(number);
            if name.starts_with("host.") {
                self.of_host.insert(number);
            }
        }
        // What hides behind the first of its slot is seen only where that is there.
        let there = self.ports.iter().chain(self.old_cards.iter());
        let there: Vec<u8> = there.chain(self.bridge).collect();
        let cards = positions.ports(true).map(|(_, number)| number);
        let hidden: Vec<u8> = cards.filter(|number| !ports::is_first(*number)).collect();
        for number in there.iter().chain(&hidden) {
            let first = |other: &u8| ports::share_slot(*other, *number) && ports::is_first(*other);
            if !there.iter().any(first) {
                self.ports.insert(ports::first_of_slot(*number));
            }
        }
    }

    /// Places for devices that a running guest gets: `machine` is made of those alone.
    pub fn hot(machine: &Machine) -> Self {
        Self {
            hot: true,
            ..Self::of(machine)
        }
    }

    /// Whether the devices come to a machine that runs.
    pub fn is_hot(self) -> bool {
        self.hot
    }

    /// A free place; devices of one word are functions of one slot.
    fn free(self, word: &str) -> Place {
        match self.bus {
            Bus::Pcie => Place {
                bus: format!("{FREE_PORT}{word}}}"),
                addr: Some("0x0".to_owned()),
            },
            // QEMU finds a slot itself; virtio-mmio takes nothing at run time, which `addition` says.
            Bus::Pci | Bus::Mmio => Place {
                bus: self.root().to_owned(),
                addr: None,
            },
        }
    }

    /// The place of a device that a guest has at most one of.
    pub fn single(self, single: Single) -> Place {
        if self.hot {
            return self.free(&format!("{single:?}").to_lowercase());
        }
        let pci = match single {
            Single::Iommu => 0x03,
            Single::Display if self.bus == Bus::Pci && self.gpu == Some(0x02) => 0x03,
            Single::Display if self.bus == Bus::Pci => 0x02,
            Single::Display => 0x01,
            Single::Serial => match (self.gpu, self.bus) {
                (Some(UPT_SLOT), Bus::Pci) => PCI_LAST,
                (Some(UPT_SLOT), _) => 0x02,
                _ => 0x04,
            },
            Single::Rng => 0x05,
            Single::Balloon => 0x06,
            Single::Watchdog => 0x07,
            Single::Panic => PCI_LAST,
            Single::Vsock => 0x08,
            Single::Scsi => 0x09,
            Single::Usb => 0x0a,
            Single::Ahci => 0x0b,
        };
        // What is no virtio device cannot be on virtio-mmio; `resolve` refuses it.
        let mmio = match single {
            Single::Serial => 0,
            Single::Rng => 1,
            Single::Balloon => 2,
            Single::Vsock => 3,
            Single::Display => MMIO_FIRST_NAMED,
            _ => 4,
        };
        self.place(pci, mmio)
    }

    /// The place of a video device; the index counts those that have one.
    pub fn video(self, index: usize) -> Place {
        let first = self.single(Single::Display);
        match (at(&self.videos, index), self.bus) {
            (0, _) | (_, Bus::Mmio) => first,
            (function, _) => Place {
                addr: first.addr.map(|addr| format!("{addr}.{function:#x}")),
                ..first
            },
        }
    }

    /// Whether the video device with that index has functions of its slot behind it.
    pub fn video_hides_others(self, index: usize, count: usize) -> bool {
        self.bus != Bus::Mmio && count > 1 && at(&self.videos, index) == 0
    }

    /// The place of the bridge to conventional PCI.
    pub fn bridge(self, board: BoardKind) -> Place {
        let addr = match (board, self.bridge.filter(|number| *number != BRIDGE_PORT)) {
            (BoardKind::Q35 | BoardKind::Virt, Some(number)) => RootPort::new(number).addr(),
            (BoardKind::Q35, None) => "0xb".to_owned(),
            (BoardKind::Virt, None) => "0x2".to_owned(),
            // A function of the PIIX3, which is always there.
            (BoardKind::Pc | BoardKind::Microvm, _) => "0x1.0x4".to_owned(),
        };
        Place {
            bus: self.root().to_owned(),
            addr: Some(addr),
        }
    }

    /// Whether there is a bridge to conventional PCI for nothing, so that the numbers of other buses stay.
    pub fn keeps_bridge(self) -> bool {
        self.bridge.is_some()
    }

    /// Whether the bridge is where others of its slot hide behind it.
    pub fn bridge_hides_others(self) -> bool {
        let number = self.bridge.filter(|number| *number != BRIDGE_PORT);
        number.is_some_and(|number| self.hides_others(number))
    }

    /// Whether what sits where that port would be is the first of a slot with others.
    fn hides_others(self, number: u8) -> bool {
        let others = self.ports.iter().chain(self.old_cards.iter());
        let mut others = others.chain(self.bridge).filter(|other| *other != number);
        ports::is_first(number) && others.any(|other| ports::share_slot(number, other))
    }

    /// The place of a device behind that bridge.
    pub fn behind(self, kind: Behind, index: usize) -> Place {
        let number = at(&self.behind[kind as usize], index);
        if self.bus == Bus::Mmio {
            return self.place(0, MMIO_FIRST_INPUT.saturating_add(small(index)));
        }
        let slot = BEHIND[kind as usize].saturating_add(number);
        Place {
            bus: BRIDGE.to_owned(),
            addr: Some(format!("{slot:#x}")),
        }
    }

    /// The place of the network card with that index.
    pub fn nic(self, index: usize) -> Place {
        let number = at(&self.numbers[Named::Nic as usize], index);
        if self.hot || !self.is_old_card(number) {
            return self.named(Named::Nic, index);
        }
        Place {
            bus: self.root().to_owned(),
            addr: Some(RootPort::new(number).addr()),
        }
    }

    /// Whether the card with that number sits where its port would be.
    fn is_old_card(self, number: u8) -> bool {
        self.bus == Bus::Pcie && self.old_cards.contains(number)
    }

    /// Whether that card is where the port would be that others of its slot hide behind.
    pub fn nic_hides_others(self, index: usize) -> bool {
        let number = at(&self.numbers[Named::Nic as usize], index);
        !self.hot && self.is_old_card(number) && self.hides_others(number)
    }

    /// The place of a disk with a function of its own; the index counts only those.
    pub fn disk(self, index: usize) -> Place {
        self.named(Named::Disk, index)
    }

    /// The place of the named controller with that index.
    pub fn controller(self, index: usize) -> Place {
        self.named(Named::Controller, index)
    }

    /// The slot that the profile names.
    pub fn at(self, slot: PciSlot) -> Place {
        Place {
            bus: self.root().to_owned(),
            addr: Some(addr(slot.slot, slot.function)),
        }
    }

    /// The place of the share with that index.
    pub fn share(self, index: usize) -> Place {
        self.named(Named::Share, index)
    }

    /// The place of a device of the host.
    pub fn host(self, place: GuestPlace) -> Place {
        if self.hot {
            let (word, function) = match place {
                GuestPlace::Root { slot, function, .. } => (slot, function),
                GuestPlace::Own {
                    index, function, ..
                } => (index, function),
            };
            let free = self.free(&format!("host-{word}"));
            return Place {
                addr: free.addr.map(|_| addr(0, function)),
                ..free
            };
        }
        let (slot, function) = match place {
            GuestPlace::Root { slot, function, .. } => (slot, function),
            GuestPlace::Own {
                index, function, ..
            } => {
                let number = at(&self.numbers[OWN_ROW], index.into());
                if self.bus == Bus::Pcie {
                    return Place {
                        bus: RootPort::new(number).id(),
                        addr: Some(addr(0, function)),
                    };
                }
                (self.pci_top().saturating_sub(number), function)
            }
        };
        Place {
            bus: self.root().to_owned(),
            addr: Some(addr(slot, function)),
        }
    }

    /// The root ports that the machine needs.
    pub fn root_ports(self) -> impl Iterator<Item = RootPort> {
        let numbers = self.ports.iter();
        numbers.map(move |number| RootPort::new(number).for_host(self.of_host.contains(number)))
    }

    /// The first slot of pc for devices of the host. The last one is left to the bridge that QEMU makes for Intel's
    /// GPUs there, and to the controller that such a GPU displaces.
    const fn pci_top(self) -> u8 {
        if self.gpu.is_some() {
            PCI_LAST - 1
        } else {
            PCI_LAST
        }
    }

    fn named(self, named: Named, index: usize) -> Place {
        if self.hot {
            return self.free(&format!("{named:?}-{index}").to_lowercase());
        }
        let number = at(&self.numbers[named as usize], index);
        match self.bus {
            Bus::Pcie => Place {
                bus: RootPort::new(number).id(),
                addr: Some("0x0".to_owned()),
            },
            Bus::Pci | Bus::Mmio => self.place(
                PCI_FIRST_NAMED.saturating_add(number),
                MMIO_LAST.saturating_sub(number),
            ),
        }
    }

    fn place(self, pci: u8, mmio: u8) -> Place {
        match self.bus {
            Bus::Pcie | Bus::Pci => Place {
                bus: self.root().to_owned(),
                addr: Some(format!("{pci:#x}")),
            },
            Bus::Mmio => Place {
                bus: format!("virtio-mmio-bus.{mmio}"),
                addr: None,
            },
        }
    }

    /// The bus that the root ports are on.
    pub fn root(self) -> &'static str {
        match self.bus {
            Bus::Pcie => "pcie.0",
            Bus::Pci | Bus::Mmio => "pci.0",
        }
    }
}

/// The numbers in their order; there are no more than that, or `check` tells.
fn row(numbers: Vec<u8>) -> [u8; ROW] {
    let mut row = [u8::MAX; ROW];
    for (to, number) in row.iter_mut().zip(numbers) {
        *to = number;
    }
    row
}

fn at(row: &[u8; ROW], index: usize) -> u8 {
    row.get(index).copied().unwrap_or(u8::MAX)
}

/// QEMU's `addr`.
fn addr(slot: u8, function: u8) -> String {
    match function {
        0 => format!("{slot:#x}"),
        function => format!("{slot:#x}.{function:#x}"),
    }
}

/// The places of the devices of the host.
fn places(machine: &Machine) -> impl Iterator<Item = GuestPlace> {
    let devices = machine.host_devices.iter();
    devices.filter_map(|device| device.guest.place)
}

/// Whether a disk on that bus is a PCI function (or virtio-mmio device) of its own.
pub fn own(bus: DiskBus) -> bool {
    matches!(bus, DiskBus::Virtio | DiskBus::Nvme)
}

/// The cards that have places that mvm chooses.
pub(super) fn cards(machine: &Machine) -> impl Iterator<Item = &super::Nic> {
    let cards = machine.nics.iter();
    cards.filter(|nic| nic.options.address.is_none())
}

/// Those of them that sit on PCI Express' root bus, where their port would be.
pub(super) fn old_cards(machine: &Machine) -> impl Iterator<Item = &super::Nic> {
    let pcie = machine.board.kind.bus() == Bus::Pcie;
    cards(machine).filter(move |nic| pcie && nic.model.is_conventional())
}

/// Whether a disk has a place that mvm chooses.
pub fn has_place(disk: &super::Disk) -> bool {
    own(disk.bus) && disk.options.address.is_none()
}

/// `check` keeps numbers far below 255.
fn small(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests;
