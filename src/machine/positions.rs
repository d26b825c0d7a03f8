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
use rows::{Kind, behind, hosts, kinds, names, unit_row, units, videos, wanted};

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

/// Takes the highest number of one that has gone, if it fits.
fn gone(
    places: &mut BTreeMap<String, u8>,
    is_there: impl Fn(&String) -> bool,
    fits: impl Fn(&u8) -> bool,
) -> Option<u8> {
    let left = places
        .iter()
        .filter(|(name, at)| !is_there(name) && fits(at));
    let (name, at) = left.max_by_key(|(_, at)| **at)?;
    let (name, at) = (name.clone(), *at);
    places.remove(&name);
    Some(at)
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
        let read: Result<Self, _> = serde_json::from_str(&text);
        let checked = read.map_err(std::io::Error::from).and_then(|read| {
            let wrong = read.wrong().map(std::io::Error::other);
            wrong.map_or(Ok(read), Err)
        });
        checked.map_err(|source| PositionsError { path, source })
    }

    /// What mvm cannot have written, if there is such a thing.
    fn wrong(&self) -> Option<String> {
        let row = |row: &str| self.0.get(row).into_iter().flatten();
        let pcie = |name: &str| matches!(name, PORTS | CARDS);
        let others = self.0.keys().filter(|name| !pcie(name));
        let together = others.map(|name| row(name).collect());
        let together = together.chain([row(PORTS).chain(row(CARDS)).collect::<Vec<_>>()]);
        for places in together {
            let mut owners: BTreeMap<u8, &String> = BTreeMap::new();
            for (name, at) in places {
                if let Some(other) = owners.insert(*at, name) {
                    return Some(format!("`{other}` and `{name}` have the same place"));
                }
            }
        }
        let mut ports = row(PORTS).chain(row(CARDS));
        let (name, at) = ports.find(|(_, at)| !slots::is_port(at))?;
        Some(format!("`{name}` has the place {at}, which no board has"))
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
        self.lay_all(machine).0
    }

    /// The same, and whether a device that has a place sits elsewhere now, as there is no room behind it for another.
    pub(super) fn lay_all(&self, machine: &Machine) -> (Self, bool) {
        let mut all = self.clone();
        let kinds = kinds(machine);
        let mut moved = match machine.board.kind.bus() {
            Bus::Pcie => all.lay_ports(machine, &kinds),
            Bus::Pci => all.lay_pci(machine, &kinds),
            Bus::Mmio => all.lay(
                MMIO,
                &names(&kinds),
                slots::row_max(machine),
                &BTreeSet::new(),
            ),
        };
        let mut lay = |row: &str, names: &[String], max| {
            moved |= all.lay(row, names, max, &BTreeSet::new());
        };
        for (row, names) in units(machine) {
            lay(&row, &names, slots::units(machine, &row));
        }
        for (row, names) in behind(machine) {
            lay(row, &names, slots::BEHIND_MAX);
        }
        moved |= all.lay_videos(&videos(machine));
        (all, moved)
    }

    /// Numbers of a row for those that have none: the lowest free ones, and where there are none, those of devices
    /// that have gone. `asked` are not to be had. Tells whether others had to move.
    fn lay(&mut self, row: &str, names: &[String], max: usize, asked: &BTreeSet<u8>) -> bool {
        if names.is_empty() {
            return false;
        }
        let places = self.0.entry(row.to_owned()).or_default();
        // What has gone waits for no number that is another's by now, and that the profile gives to others.
        places.retain(|name, at| names.contains(name) || !asked.contains(at));
        let fits = |at: &u8| usize::from(*at) < max && !asked.contains(at);
        for name in names
            .iter()
            .filter(|name| !places.contains_key(*name))
            .collect::<Vec<_>>()
        {
            let free = (0..=u8::MAX)
                .filter(fits)
                .find(|at| places.values().all(|taken| taken != at));
            let at = free.or_else(|| gone(places, |name| names.contains(name), fits));
            if let Some(at) = at {
                places.insert(name.clone(), at);
            }
        }
        let placed = |name: &String| places.get(name).is_some_and(|at| usize::from(*at) < max);
        if names.iter().all(placed) {
            return false;
        }
        // In order, as at a first start; where that is not enough either, `slots::check` tells.
        places.clear();
        let free = (0..u8::MAX).filter(|at| usize::from(*at) < max && !asked.contains(at));
        places.extend(names.iter().cloned().zip(free));
        true
    }

    /// Functions of a slot are seen only where the first is there: it is not kept for one that has gone.
    fn lay_videos(&mut self, names: &[String]) -> bool {
        let places = self.0.entry(VIDEO.to_owned()).or_default();
        let mut moved = false;
        let has_first = |name: &String| places.get(name) == Some(&0);
        if !names.iter().any(has_first) {
            places.retain(|_, at| *at != 0);
            // Rather one that is new than one that would move.
            let new = names.iter().find(|name| !places.contains_key(*name));
            moved = new.is_none() && !names.is_empty();
            if let Some(first) = new.or(names.first()) {
                places.insert(first.clone(), 0);
            }
        }
        if places.is_empty() {
            self.0.remove(VIDEO);
        }
        moved | self.lay(VIDEO, names, slots::VIDEO_MAX, &BTreeSet::new())
    }

    /// Conventional PCI: devices of the host have numbers of their own, from the top.
    fn lay_pci(&mut self, machine: &Machine, kinds: &[Kind; 4]) -> bool {
        let names = names(kinds);
        let (asked, asked_of_hosts) = slots::asked_numbers(machine);
        let max = slots::row_max(machine);
        let before = self.0.get(PCI_HOST).cloned();
        let mut hosts_have = self.lay_hosts(machine, &asked_of_hosts);
        let ends = names.iter().filter_map(|name| self.get(PCI, name));
        let end = ends.map(|at| usize::from(at) + 1).max().unwrap_or(0);
        if end.max(names.len()) + hosts_have > max {
            // Without what is kept for those that have gone.
            let present: BTreeSet<String> = hosts(machine).map(|(_, name)| name).collect();
            let mut kept = before.unwrap_or_default();
            kept.retain(|name, _| present.contains(name));
            self.0.insert(PCI_HOST.to_owned(), kept);
            hosts_have = self.lay_hosts(machine, &asked_of_hosts);
        }
        self.lay(PCI, &names, max.saturating_sub(hosts_have), &asked)
    }

    /// How many slots they take.
    fn lay_hosts(&mut self, machine: &Machine, asked: &BTreeSet<u8>) -> usize {
        let mut end = 0;
        for (index, name) in hosts(machine) {
            let places = self.0.entry(PCI_HOST.to_owned()).or_default();
            // The first is the GPU's.
            let mut numbers = (index.min(1)..=u8::MAX).filter(|at| !asked.contains(at));
            let free = || numbers.find(|at| places.values().all(|taken| taken != at));
            let at = places.get(&name).copied().or_else(free).unwrap_or(u8::MAX);
            places.insert(name, at);
            end = end.max(usize::from(at) + 1);
        }
        end
    }

    /// PCI Express: a root port each, behind all others where there are some already.
    fn lay_ports(&mut self, machine: &Machine, kinds: &[Kind; 4]) -> bool {
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
        let wanted = wanted(machine, kinds, &old);
        // Slots that the profile gives to others are not kept for what has gone.
        let asked = slots::asked_slots(machine);
        let there: BTreeSet<&String> = wanted.iter().map(|(_, _, name)| name).collect();
        let board = machine.board.kind;
        for row in [&mut ports, &mut cards] {
            row.retain(|name, at| {
                there.contains(name) || !asked.contains(&slots::port_slot(*at, board))
            });
        }

        let (mut fits, mut moved) = (true, false);
        for (kind, index, name) in &wanted {
            if ports.contains_key(name) || cards.contains_key(name) {
                continue;
            }
            let taken: Vec<u8> = ports.values().chain(cards.values()).copied().collect();
            let row = match kind {
                PortKind::OldCard => &mut cards,
                _ => &mut ports,
            };
            let mut at = None;
            if !first {
                let late = slots::late_port(*kind, &taken, &asked);
                // A port is there for one that has gone, and takes another as well: no bus gets another number.
                at = late.or_else(|| {
                    gone(
                        row,
                        |name| there.contains(name),
                        |at| *at != slots::BRIDGE_PORT,
                    )
                });
            }
            if at.is_none() {
                moved |= !first;
                at = slots::first_port(*kind, *index, &taken, &asked);
            }
            match at {
                Some(at) => {
                    row.insert(name.clone(), at);
                }
                None => fits = false,
            }
        }
        if !fits && !first {
            // In order, as at a first start; where that is not enough either, `slots::check` tells.
            self.lay_ports(machine, kinds);
            return true;
        }
        for (row, places) in [(PORTS, ports), (CARDS, cards)] {
            if !places.is_empty() {
                self.0.insert(row.to_owned(), places);
            }
        }
        moved
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
