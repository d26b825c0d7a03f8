//! What the guest's memory is made of on the host.

mod error;
mod numa;

pub(in crate::machine) use numa::cut_cluster;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::BoardKind;
use super::error::ResolveError;
use super::files::{FileError, find};
use crate::host::HostFacts;
use crate::host::images::{FileKind, Images};
use crate::ids::Id;
use crate::profile::schema::{Backing, Layer, MemoryTable, NumaPolicy};
use crate::units::Size;
pub use error::MemoryError;

/// The memory beside its size.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Ram {
    /// What the guest has of it at the start, where that is not all.
    pub current: Option<Size>,
    /// What it is made of, where QEMU's own plain memory will not do.
    pub backend: Option<RamBackend>,
    /// Where it comes from, of a guest without nodes of its own.
    pub place: HostNodes,
    /// The guest's own NUMA nodes.
    pub numa: Vec<NumaNode>,
    /// It is never swapped out.
    pub locked: bool,
    /// The kernel leaves it alone when it looks for pages that are alike.
    pub no_merge: bool,
    /// It is a part of QEMU's core file.
    pub dump: bool,
    /// `memory.size` and nothing else: how many threads ask for memory at the start.
    pub prealloc_threads: Option<u32>,
}

/// What memory is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RamBackend {
    /// The kind.
    pub kind: RamKind,
    /// The size of its huge pages.
    pub hugepages: Option<Size>,
    /// Whether other processes can map it.
    pub share: bool,
    /// Whether all of it is asked for at the start.
    pub prealloc: bool,
}

/// The kinds of memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RamKind {
    /// Private memory of QEMU's.
    Anonymous,
    /// A file without a name in memory.
    Memfd,
    /// A file.
    File {
        /// It, or the folder it is made in.
        path: PathBuf,
        /// Whether what is in it may be thrown away at the end.
        discard: bool,
    },
}

impl RamKind {
    /// QEMU's type of object.
    pub const fn object(&self) -> &'static str {
        match self {
            Self::Anonymous => "memory-backend-ram",
            Self::Memfd => "memory-backend-memfd",
            Self::File { .. } => "memory-backend-file",
        }
    }
}

/// NUMA nodes of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct HostNodes {
    /// Which; none for the kernel's choice.
    pub nodes: Vec<u32>,
    /// How memory is spread over them.
    pub policy: Option<NumaPolicy>,
}

impl HostNodes {
    /// The one node that memory must come from.
    pub fn only(&self) -> Option<u32> {
        match (self.nodes.as_slice(), self.policy) {
            ([node], Some(NumaPolicy::Bind)) => Some(*node),
            _ => None,
        }
    }
}

/// A NUMA node of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NumaNode {
    /// Its name.
    pub id: Id,
    /// Its processors, as ranges with both ends.
    pub cpus: Vec<(u32, u32)>,
    /// Its memory.
    pub memory: Size,
    /// Where that comes from.
    #[serde(default)]
    pub place: HostNodes,
    /// How far it is from other nodes, by their numbers.
    #[serde(default)]
    pub distances: Vec<(u32, u32)>,
}

/// Huge pages that the guest needs of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hugepages {
    /// The size of each.
    pub size: Size,
    /// The host's node that they must be of.
    pub node: Option<u32>,
    /// How many.
    pub pages: u64,
}

impl Ram {
    /// The huge pages that memory of that size needs, by page size and node.
    pub fn hugepages(&self, memory: Size) -> Vec<Hugepages> {
        let Some(size) = self.backend.as_ref().and_then(|backend| backend.hugepages) else {
            return Vec::new();
        };
        let need = |memory: Size, place: &HostNodes| Hugepages {
            size,
            node: place.only(),
            pages: memory.as_bytes() / size.as_bytes(),
        };
        if self.numa.is_empty() {
            return vec![need(memory, &self.place)];
        }
        let mut all: Vec<Hugepages> = Vec::new();
        for one in self.numa.iter().map(|node| need(node.memory, &node.place)) {
            match all.iter_mut().find(|other| other.node == one.node) {
                Some(other) => other.pages += one.pages,
                None => all.push(one),
            }
        }
        all
    }
}

/// What there is around the memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around<'a> {
    /// How much there is.
    pub(super) size: Size,
    /// The number of processors.
    pub(super) cpus: u32,
    /// The board.
    pub(super) board: BoardKind,
    /// The host.
    pub(super) facts: &'a HostFacts,
    /// The files that the profile names.
    pub(super) images: &'a Images,
    /// What of the profile maps the guest's memory from another process.
    pub(super) mapped_by: Option<&'a str>,
}

/// The memory.
pub(super) fn ram(layer: &Layer, around: &Around<'_>) -> Result<Ram, ResolveError> {
    let table = layer.memory.clone().unwrap_or_default();
    let numa = numa::nodes(layer, around)?;
    let place = host_nodes(table.host_nodes.as_deref(), table.policy, "memory")?;
    if !numa.is_empty() && !place.nodes.is_empty() {
        return Err(MemoryError::NodesTwice.into());
    }
    let placed = !place.nodes.is_empty() || numa.iter().any(|node| !node.place.nodes.is_empty());
    let backend = backend(&table, around, placed || !numa.is_empty())?;
    let current = match table.current {
        Some(current) if current > around.size => {
            let size = around.size;
            return Err(MemoryError::CurrentIsMore { current, size }.into());
        }
        Some(_) if layer.balloon.as_ref().and_then(|b| b.enabled) == Some(false) => {
            return Err(MemoryError::CurrentNeedsBalloon.into());
        }
        current => current.filter(|current| *current < around.size),
    };
    let asks_at_once = backend.as_ref().is_some_and(|backend| backend.prealloc);
    let ram = Ram {
        current,
        place,
        numa,
        locked: table.locked.unwrap_or(false),
        no_merge: table.merge == Some(false),
        dump: table.dump.unwrap_or(false),
        prealloc_threads: asks_at_once.then(|| around.cpus.min(MOST_THREADS)),
        backend,
    };
    pools(&ram, around)?;
    Ok(ram)
}

/// Threads that ask for memory at the start: more than that wait for the memory and not for the processors.
const MOST_THREADS: u32 = 16;

fn backend(
    table: &MemoryTable,
    around: &Around<'_>,
    needed: bool,
) -> Result<Option<RamBackend>, ResolveError> {
    let hugepages = table.hugepages.and_then(|size| size.0);
    if let (Some(false), Some(who)) = (table.share, around.mapped_by) {
        return Err(MemoryError::MustShare(who.to_owned()).into());
    }
    let share = table.share.unwrap_or(around.mapped_by.is_some());
    let kind = match table.backing {
        Some(Backing::Anonymous) if hugepages.is_some() => {
            return Err(MemoryError::HugeNeedsMemfd("anonymous").into());
        }
        Some(Backing::File) if hugepages.is_some() => {
            return Err(MemoryError::HugeNeedsMemfd("file").into());
        }
        Some(Backing::Anonymous) if around.mapped_by.is_some() => {
            let who = around.mapped_by.unwrap_or_default().to_owned();
            return Err(MemoryError::MustShare(who).into());
        }
        Some(Backing::File) => file(table, around.size, around.images)?,
        Some(Backing::Memfd) => RamKind::Memfd,
        None if hugepages.is_some() || share => RamKind::Memfd,
        Some(Backing::Anonymous) | None => RamKind::Anonymous,
    };
    if !matches!(kind, RamKind::File { .. }) {
        if table.path.as_deref().is_some_and(|path| !path.is_empty()) {
            return Err(MemoryError::NeedsFile("path").into());
        }
        if table.discard == Some(true) {
            return Err(MemoryError::NeedsFile("discard").into());
        }
    }
    let prealloc = table.prealloc.unwrap_or(hugepages.is_some());
    let plain = kind == RamKind::Anonymous && !share && !prealloc && !needed;
    Ok((!plain).then_some(RamBackend {
        kind,
        hugepages,
        share,
        prealloc,
    }))
}

fn file(table: &MemoryTable, size: Size, images: &Images) -> Result<RamKind, ResolveError> {
    let path = table.path.as_deref().filter(|path| !path.is_empty());
    let Some(text) = path else {
        return Err(MemoryError::NoPath.into());
    };
    let what = "the memory's file";
    let facts = find(images, what, text, || None)?;
    if !matches!(
        facts.kind,
        FileKind::File | FileKind::Dir | FileKind::Char | FileKind::Block
    ) {
        return Err(FileError::WrongKind {
            what: what.to_owned(),
            path: facts.path.clone(),
            expected: "a file, a folder or a device",
        }
        .into());
    }
    // An empty one is made as large as it has to be (`file_ram_alloc`).
    if facts.kind == FileKind::File && facts.size > 0 && facts.size < size.as_bytes() {
        return Err(MemoryError::SmallFile {
            path: facts.path.clone(),
            has: Size::bytes(facts.size),
            size,
        }
        .into());
    }
    Ok(RamKind::File {
        path: facts.path.clone(),
        discard: table.discard.unwrap_or(false),
    })
}

/// Nodes of the host, as `0` or `0-1,3`.
fn host_nodes(
    text: Option<&str>,
    policy: Option<NumaPolicy>,
    table: &str,
) -> Result<HostNodes, MemoryError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return match policy {
            Some(_) => Err(MemoryError::PolicyAlone(table.to_owned())),
            None => Ok(HostNodes::default()),
        };
    };
    let bad = || MemoryError::BadList {
        key: format!("{table}.host-nodes"),
        text: text.chars().take(80).collect(),
    };
    let ranges = numa::ranges(text).ok_or_else(bad)?;
    let nodes: Vec<u32> = ranges.into_iter().flat_map(|(a, b)| a..=b).collect();
    if nodes.iter().any(|node| *node > MOST_NODES) {
        return Err(bad());
    }
    Ok(HostNodes {
        nodes,
        policy: Some(policy.unwrap_or(NumaPolicy::Bind)),
    })
}

/// The highest node that QEMU takes (`MAX_NODES`).
const MOST_NODES: u32 = 127;

/// Whether the host has pools of those pages; whoever is not root has to do with what is free in them.
fn pools(ram: &Ram, around: &Around<'_>) -> Result<(), MemoryError> {
    let Some(size) = ram.backend.as_ref().and_then(|backend| backend.hugepages) else {
        return Ok(());
    };
    let pools = &around.facts.memory.hugepages;
    let Some(pool) = pools.iter().find(|pool| pool.size == size.as_bytes()) else {
        return Err(MemoryError::NoSuchPages {
            size,
            has: pools.iter().map(|pool| Size::bytes(pool.size)).collect(),
        });
    };
    let parts = ram.numa.iter().map(|node| node.memory);
    let parts: Vec<Size> = if ram.numa.is_empty() {
        vec![around.size]
    } else {
        parts.collect()
    };
    let whole = |part: &&Size| part.as_bytes() % size.as_bytes() != 0;
    if let Some(part) = parts.iter().find(whole) {
        return Err(MemoryError::NotWholePages { part: *part, size });
    }
    let pages = around.size.as_bytes() / size.as_bytes();
    if around.facts.users.uid != 0 && pool.free < pages {
        return Err(MemoryError::OnlyRootAddsPages {
            size,
            pages,
            free: pool.free,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
