//! The guest's NUMA nodes.

use super::error::MemoryError;
use super::{Around, NumaNode, host_nodes};
use crate::ids::Id;
use crate::machine::{BoardKind, Cpu};
use crate::profile::schema::{Layer, NumaTable};
use crate::units::Size;

/// A list of numbers and ranges, `0-1,3`, as ranges with both ends.
pub(super) fn ranges(text: &str) -> Option<Vec<(u32, u32)>> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u32>().ok().filter(|_| digits)
    };
    let range = |part: &str| {
        let part = part.trim();
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        (first <= last && last - first < 4096).then_some((first, last))
    };
    text.split(',').map(range).collect()
}

/// The nodes, in the order of their names.
pub(super) fn nodes(layer: &Layer, around: &Around<'_>) -> Result<Vec<NumaNode>, MemoryError> {
    let tables: Vec<(&Id, &NumaTable)> = layer.numa.iter().flatten().collect();
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    if around.board == BoardKind::Microvm {
        return Err(MemoryError::NoNuma(around.board.to_string()));
    }
    let memory = memory(&tables, around.size)?;
    let cpus = cpus(&tables, around.cpus)?;
    let mut nodes = Vec::new();
    for (((id, table), memory), cpus) in tables.iter().zip(memory).zip(cpus) {
        let name = format!("numa.{id}");
        nodes.push(NumaNode {
            id: (*id).clone(),
            cpus,
            memory,
            place: host_nodes(table.host_nodes.as_deref(), table.policy, &name)?,
            distances: distances(id, table, &tables)?,
        });
    }
    Ok(nodes)
}

fn memory(tables: &[(&Id, &NumaTable)], size: Size) -> Result<Vec<Size>, MemoryError> {
    let said = tables.iter().filter_map(|(_, table)| table.memory);
    let sum = said.fold(0_u64, |sum, part| sum.saturating_add(part.as_bytes()));
    let silent: Vec<&Id> = tables
        .iter()
        .filter(|(_, table)| table.memory.is_none())
        .map(|(id, _)| *id)
        .collect();
    let wrong = MemoryError::NotTheWhole {
        sum: Size::bytes(sum),
        size,
    };
    let left = size.as_bytes().checked_sub(sum).ok_or(wrong.clone())?;
    let [first, ..] = silent.as_slice() else {
        return match left {
            0 => Ok(tables
                .iter()
                .filter_map(|(_, table)| table.memory)
                .collect()),
            _ => Err(wrong),
        };
    };
    let count = u32::try_from(silent.len()).unwrap_or(u32::MAX);
    let each = left / u64::from(count);
    if each == 0 {
        return Err(MemoryError::NothingLeft((*first).clone()));
    }
    if each * u64::from(count) != left || each % Size::mib(1).as_bytes() != 0 {
        let left = Size::bytes(left);
        return Err(MemoryError::Uneven { left, count });
    }
    let of = |table: &NumaTable| table.memory.unwrap_or(Size::bytes(each));
    Ok(tables.iter().map(|(_, table)| of(table)).collect())
}

fn cpus(tables: &[(&Id, &NumaTable)], count: u32) -> Result<Vec<Vec<(u32, u32)>>, MemoryError> {
    let text = |table: &NumaTable| table.cpus.clone().filter(|text| !text.is_empty());
    if tables.iter().all(|(_, table)| text(table).is_none()) {
        let nodes = u32::try_from(tables.len()).unwrap_or(u32::MAX);
        let part = |index: u32| {
            let (from, to) = (count * index / nodes, count * (index + 1) / nodes);
            (from < to).then(|| (from, to - 1)).into_iter().collect()
        };
        return Ok((0..nodes).map(part).collect());
    }
    let mut owner: Vec<Option<&Id>> = vec![None; count as usize];
    let mut all = Vec::new();
    for (id, table) in tables {
        let text = text(table).ok_or_else(|| MemoryError::NoCpus((*id).clone()))?;
        let found = ranges(&text).ok_or_else(|| MemoryError::BadList {
            key: format!("numa.{id}.cpus"),
            text: text.chars().take(80).collect(),
        })?;
        for cpu in found.iter().flat_map(|(first, last)| *first..=*last) {
            match owner.get_mut(cpu as usize) {
                None => {
                    let last = count.saturating_sub(1);
                    let id = (*id).clone();
                    return Err(MemoryError::NoSuchCpu { id, cpu, last });
                }
                Some(Some(first)) => {
                    return Err(MemoryError::CpuTwice {
                        cpu,
                        first: (*first).clone(),
                        second: (*id).clone(),
                    });
                }
                Some(free) => *free = Some(id),
            }
        }
        all.push(found);
    }
    match (0..).zip(&owner).find(|(_, owner)| owner.is_none()) {
        Some((cpu, _)) => Err(MemoryError::CpuNowhere(cpu)),
        None => Ok(all),
    }
}

/// A note where nodes share a cluster. Boards of Arm have Linux read caches and clusters in ACPI's PPTT: it then
/// finds a scheduling domain that is in two nodes. QEMU 10 warns of it, and 7.2 does not.
pub(in crate::machine) fn cut_cluster(
    nodes: &[NumaNode],
    cpu: &Cpu,
    board: BoardKind,
) -> Option<String> {
    let size = cpu.cores.saturating_mul(cpu.threads).max(1);
    let owner = |cpu: u32| {
        let has = |node: &&NumaNode| node.cpus.iter().any(|(a, b)| (*a..=*b).contains(&cpu));
        nodes.iter().find(has).map(|node| &node.id)
    };
    let across = |first: &u32| {
        let one = owner(*first)?;
        let other = (*first..first.saturating_add(size)).filter_map(owner);
        Some((one, other.into_iter().find(|id| *id != one)?))
    };
    let starts = (0..cpu.count).step_by(size as usize);
    let (one, other) = (board == BoardKind::Virt)
        .then(|| starts.into_iter().find_map(|first| across(&first)))
        .flatten()?;
    Some(format!(
        "the NUMA nodes `{one}` and `{other}` have processors of one cluster: Linux expects that a cluster is in \
         one node (give each node its own with `cpu.sockets` or `cpu.clusters`)"
    ))
}

fn distances(
    id: &Id,
    table: &NumaTable,
    tables: &[(&Id, &NumaTable)],
) -> Result<Vec<(u32, u32)>, MemoryError> {
    let mut found = Vec::new();
    for (to, distance) in table.distance.iter().flatten() {
        let number = (0..).zip(tables).find(|(_, (other, _))| *other == to);
        let Some((number, _)) = number else {
            let (id, to) = (id.clone(), to.clone());
            return Err(MemoryError::DistanceNowhere { id, to });
        };
        // `NUMA_DISTANCE_MIN`, and 255 for unreachable, of ACPI's SLIT.
        let fits = if to == id {
            *distance == 10
        } else {
            (11..=254).contains(distance)
        };
        if !fits {
            return Err(MemoryError::BadDistance {
                id: id.clone(),
                to: to.clone(),
                distance: *distance,
            });
        }
        found.push((number, *distance));
    }
    Ok(found)
}
