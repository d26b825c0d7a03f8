//! Which places the devices of a guest have kept from start to start.
//!
//! At its first start a guest's devices follow in order (see [`super::slots`]). From then on each keeps what it has:
//! one that comes later takes a place behind all others, so that no bridge of an earlier one gets another bus number,
//! and the place of one that goes is kept for it. What is kept is a file in the guest's state directory.

mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::slots::{self, PortKind};
use super::{Bus, Machine};
use crate::error::{ExitCode, Hint};
use rows::{Kind, behind, hosts, kinds, unit_row, units, videos};

/// The file in the guest's state directory.
const FILE: &str = "places.json";

/// The row of the root ports of PCI Express.
const PORTS: &str = "pcie";
/// The row of what sits on PCI Express' root bus where the port would be.
const CARDS: &str = "pcie-cards";
/// The row of conventional PCI.
const PCI: &str = "pci";
/// The row of conventional PCI that counts from the top: devices of the host.
const PCI_HOST: &str = "pci-host";
/// The row of virtio-mmio.
const MMIO: &str = "mmio";
/// The row of video devices: functions of one slot.
const VIDEO: &str = "video";
/// The bridge, among the ports.
const BRIDGE: &str = "bridge";

/// The number of each device's place: by row and by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Positions(BTreeMap<String, BTreeMap<String, u8>>);

/// What is kept cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}, which says where the devices of the guest sit, cannot be read", path.display())]
pub struct PositionsError {
    path: PathBuf,
    source: std::io::Error,
}

impl Hint for PositionsError {
    fn hints(&self) -> Vec<String> {
        vec![
            "remove it: the devices are placed anew, and the guest may see some of them as new ones"
                .to_owned(),
        ]
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Failed
    }
}

/// The lowest number from that one on that no place of the row has.
fn lowest(from: u8, places: &BTreeMap<String, u8>) -> Option<u8> {
    (from..=u8::MAX).find(|at| places.values().all(|taken| taken != at))
}

impl Positions {
    /// The file of the guest with that state directory.
    pub fn file(state_dir: &Path) -> PathBuf {
        state_dir.join(FILE)
    }

    /// What the guest with that state directory has kept; nothing before its first start.
    ///
    /// # Errors
    /// There is a file, and it cannot be read.
    pub fn read(state_dir: &Path) -> Result<Self, PositionsError> {
        let path = Self::file(state_dir);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(source) => return Err(PositionsError { path, source }),
        };
        serde_json::from_str(&text).map_err(|error| PositionsError {
            path,
            source: error.into(),
        })
    }

    /// The file's text.
    pub fn text(&self) -> String {
        // Maps of numbers by text.
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        text + "\n"
    }

    /// The number of that device.
    pub(super) fn get(&self, row: &str, name: &str) -> Option<u8> {
        self.0.get(row)?.get(name).copied()
    }

    /// The unit of a disk on a bus that is not PCI; `None` where it has none of its own.
    pub fn unit(&self, disk: &super::Disk) -> Option<u8> {
        let row = unit_row(disk)?;
        self.get(&row, &format!("disk.{}", disk.id))
    }

    /// The devices that have another place there than here.
    pub fn moved<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a str> {
        let rows = self.0.iter().flat_map(|(row, places)| {
            let all = places.iter();
            all.map(move |(name, at)| (row, name, at))
        });
        rows.filter_map(|(row, name, at)| {
            let there = other.get(row, name)?;
            (there != *at).then_some(name.as_str())
        })
    }

    /// The same with a place for each device of the machine: those that have one keep it.
    #[must_use]
    pub(crate) fn laid(&self, machine: &Machine) -> Self {
        // What has gone keeps its place as long as there is room for all that is there.
        for kept in [self.clone(), self.of_present(machine)] {
            let (laid, fits) = kept.lay_all(machine);
            if fits {
                return laid;
            }
        }
        // Where that is not enough either, `slots::check` tells.
        Self::default().lay_all(machine).0
    }

    /// Without those that the machine has not.
    fn of_present(&self, machine: &Machine) -> Self {
        let present = Self::default().lay_all(machine).0;
        let rows = self.0.iter().filter_map(|(row, places)| {
            let present = present.0.get(row)?;
            let mut places = places.clone();
            places.retain(|name, _| present.contains_key(name));
            Some((row.clone(), places))
        });
        Self(rows.collect())
    }

    /// Lays every row, and tells whether all devices found places.
    fn lay_all(mut self, machine: &Machine) -> (Self, bool) {
        let kinds = kinds(machine);
        let mut fits = match machine.board.kind.bus() {
            Bus::Pcie => self.lay_ports(machine, kinds),
            bus @ (Bus::Pci | Bus::Mmio) => {
                let row = if bus == Bus::Pci { PCI } else { MMIO };
                let names = kinds.into_iter().flat_map(|kind| kind.names).collect();
                let hosts = if bus == Bus::Pci {
                    self.lay_hosts(machine)
                } else {
                    0
                };
                let max = slots::row_max(machine).saturating_sub(hosts);
                self.lay(row, names, max)
            }
        };
        for (row, names) in units(machine) {
            let max = slots::units(machine, &row);
            fits &= self.lay(&row, names, max);
        }
        for (row, names) in behind(machine) {
            fits &= self.lay(row, names, slots::BEHIND_MAX);
        }
        fits &= self.lay_videos(videos(machine));
        (self, fits)
    }

    /// The lowest free numbers of a row for those that have none; whether there was room.
    fn lay(&mut self, row: &str, names: Vec<String>, max: usize) -> bool {
        if names.is_empty() {
            return true;
        }
        let places = self.0.entry(row.to_owned()).or_default();
        let mut fits = true;
        for name in names {
            let at = places.get(&name).copied().or_else(|| lowest(0, places));
            match at.filter(|at| usize::from(*at) < max) {
                Some(at) => {
                    places.insert(name, at);
                }
                None => fits = false,
            }
        }
        fits
    }

    /// Functions of a slot are seen only where the first is there: it is not kept for one that has gone.
    fn lay_videos(&mut self, names: Vec<String>) -> bool {
        let places = self.0.entry(VIDEO.to_owned()).or_default();
        let has_first = |name: &String| places.get(name) == Some(&0);
        if !names.iter().any(has_first) {
            places.retain(|_, at| *at != 0);
            // Rather one that is new than one that would move.
            let new = names.iter().find(|name| !places.contains_key(*name));
            if let Some(first) = new.or(names.first()) {
                places.insert(first.clone(), 0);
            }
        }
        if places.is_empty() {
            self.0.remove(VIDEO);
        }
        self.lay(VIDEO, names, slots::VIDEO_MAX)
    }

    /// Devices of the host on conventional PCI have numbers of their own, from the top; how many slots they take.
    fn lay_hosts(&mut self, machine: &Machine) -> usize {
        let mut end = 0;
        for (index, name) in hosts(machine) {
            let places = self.0.entry(PCI_HOST.to_owned()).or_default();
            // The first is the GPU's.
            let free = || lowest(index.min(1), places);
            let at = places.get(&name).copied().or_else(free).unwrap_or(u8::MAX);
            places.insert(name, at);
            end = end.max(usize::from(at) + 1);
        }
        end
    }

    fn lay_ports(&mut self, machine: &Machine, kinds: [Kind; 4]) -> bool {
        let old: BTreeSet<String> = slots::old_cards(machine)
            .map(|nic| format!("network.{}", nic.id))
            .collect();
        let mut ports = self.0.remove(PORTS).unwrap_or_default();
        let mut cards = self.0.remove(CARDS).unwrap_or_default();
        let first = ports.is_empty() && cards.is_empty();
        // A card that is another model now sits there differently, at the same address.
        for name in kinds.iter().flat_map(|kind| &kind.names) {
            let (from, to) = match old.contains(name) {
                true => (&mut ports, &mut cards),
                false => (&mut cards, &mut ports),
            };
            if let Some(at) = from.remove(name) {
                to.insert(name.clone(), at);
            }
        }
        let hosts: Vec<(u8, String)> = hosts(machine).collect();
        let bridge = machine.desktop.has_bridge().then(|| BRIDGE.to_owned());
        let wanted = bridge.into_iter().map(|name| (PortKind::Bridge, 0, name));
        let hosts = hosts.into_iter();
        let hosts = hosts.map(|(index, name)| (PortKind::Host, index, name));
        let kinds = kinds.into_iter().flat_map(|kind| {
            let names = kind.names.into_iter();
            names.map(move |name| (kind.port, 0, name))
        });
        let wanted: Vec<(PortKind, u8, String)> = wanted.chain(kinds).chain(hosts).collect();
        // Slots that the profile gives to others are not kept for what has gone.
        let asked = slots::asked_slots(machine);
        let there: BTreeSet<&String> = wanted.iter().map(|(_, _, name)| name).collect();
        for row in [&mut ports, &mut cards] {
            row.retain(|name, at| there.contains(name) || !asked.contains(&slots::port_slot(*at)));
        }

        let mut fits = true;
        for (kind, index, name) in wanted {
            let kind = if old.contains(&name) {
                PortKind::OldCard
            } else {
                kind
            };
            if ports.contains_key(&name) || cards.contains_key(&name) {
                continue;
            }
            let taken: Vec<u8> = ports.values().chain(cards.values()).copied().collect();
            let late = if first {
                None
            } else {
                slots::late_port(kind, &taken, &asked)
            };
            match late.or_else(|| slots::first_port(kind, index, &taken)) {
                Some(at) if kind == PortKind::OldCard => cards.insert(name, at),
                Some(at) => ports.insert(name, at),
                None => {
                    fits = false;
                    None
                }
            };
        }
        for (row, places) in [(PORTS, ports), (CARDS, cards)] {
            if !places.is_empty() {
                self.0.insert(row.to_owned(), places);
            }
        }
        fits
    }

    /// The ports that there are, with the names of what has them; `old` for what sits there without a port.
    pub(super) fn ports(&self, old: bool) -> impl Iterator<Item = (&str, u8)> {
        let row = self.0.get(if old { CARDS } else { PORTS });
        let all = row.into_iter().flatten();
        all.map(|(name, at)| (name.as_str(), *at))
    }

    /// The numbers of cards, disks, shares and controllers, and of devices of the host by their index.
    pub(super) fn numbers(&self, machine: &Machine) -> [Vec<u8>; 5] {
        let bus = machine.board.kind.bus();
        let number = |name: &String| {
            let found = match bus {
                Bus::Pcie => self.get(PORTS, name).or_else(|| self.get(CARDS, name)),
                Bus::Pci => self.get(PCI, name),
                Bus::Mmio => self.get(MMIO, name),
            };
            found.unwrap_or(u8::MAX)
        };
        let [cards, disks, shares, controllers] =
            kinds(machine).map(|kind| kind.names.iter().map(number).collect());
        let mut own = Vec::new();
        for (index, name) in hosts(machine) {
            let index = usize::from(index);
            if own.len() <= index {
                own.resize(index + 1, u8::MAX);
            }
            let at = match bus {
                Bus::Pcie => self.get(PORTS, &name),
                Bus::Pci | Bus::Mmio => self.get(PCI_HOST, &name),
            };
            own[index] = at.unwrap_or(u8::MAX);
        }
        [cards, disks, shares, controllers, own]
    }

    /// The port of the bridge to conventional PCI, present or kept.
    pub(super) fn bridge(&self) -> Option<u8> {
        self.get(PORTS, BRIDGE)
    }

    /// The functions of video devices.
    pub(super) fn videos(&self, machine: &Machine) -> Vec<u8> {
        let numbers = videos(machine).into_iter();
        let numbers = numbers.map(|name| self.get(VIDEO, &name));
        numbers.map(|at| at.unwrap_or(u8::MAX)).collect()
    }

    /// The number of what sits behind the bridge.
    pub(super) fn behind(&self, machine: &Machine) -> [Vec<u8>; 3] {
        behind(machine).map(|(row, names)| {
            let numbers = names.iter().map(|name| self.get(row, name));
            numbers.map(|at| at.unwrap_or(u8::MAX)).collect()
        })
    }
}
