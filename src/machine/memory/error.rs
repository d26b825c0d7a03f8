//! Why there is no such memory.

use std::path::PathBuf;

use crate::error::{ExitCode, Hint};
use crate::ids::Id;
use crate::units::Size;

/// Why there is no such memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// More at the start than there is.
    #[error("`memory.current` is {current}, and the guest has {size} at most")]
    CurrentIsMore {
        /// What it is to start with.
        current: Size,
        /// What there is.
        size: Size,
    },
    /// Nothing that would hold the rest.
    #[error("`memory.current` needs the balloon, which the profile takes away")]
    CurrentNeedsBalloon,
    /// Memory that nobody else can map.
    #[error("{0} maps the guest's memory, which the profile keeps from being shared")]
    MustShare(String),
    /// Huge pages of the wrong kind of memory.
    #[error("`memory.hugepages` goes with `memory.backing = \"memfd\"`, not with \"{0}\"")]
    HugeNeedsMemfd(&'static str),
    /// A key about a file where there is none.
    #[error("`memory.{0}` goes with `memory.backing = \"file\"` only")]
    NeedsFile(&'static str),
    /// `backing = "file"` and no file.
    #[error("`memory.backing` is \"file\" and `memory.path` names none")]
    NoPath,
    /// A file that is there and does not hold the memory.
    #[error("{} has {has}, and the guest's memory is {size}", path.display())]
    SmallFile {
        /// The file.
        path: PathBuf,
        /// Its size.
        has: Size,
        /// The memory.
        size: Size,
    },
    /// A policy for nothing.
    #[error("`{0}.policy` says how memory is spread over `{0}.host-nodes`, which is not set")]
    PolicyAlone(String),
    /// No list of numbers.
    #[error("`{key}` is {text:?}, not a list of numbers as in `0-1,3`")]
    BadList {
        /// The key.
        key: String,
        /// What it says.
        text: String,
    },
    /// The host's nodes for all and for each.
    #[error("the guest has NUMA nodes of its own: each says its `host-nodes`, `[memory]` does not")]
    NodesTwice,
    /// The kernel has no pool of pages of that size.
    #[error("this host has no huge pages of {size}")]
    NoSuchPages {
        /// The size.
        size: Size,
        /// The sizes it has.
        has: Vec<Size>,
    },
    /// The memory is not a whole number of pages.
    #[error("{part} of memory are not a whole number of huge pages of {size}")]
    NotWholePages {
        /// The memory.
        part: Size,
        /// The page.
        size: Size,
    },
    /// Too few pages, and no right to add any.
    #[error(
        "the guest needs {pages} huge pages of {size}, of which {free} are free, and only root can add some"
    )]
    OnlyRootAddsPages {
        /// The page.
        size: Size,
        /// How many it needs.
        pages: u64,
        /// How many there are.
        free: u64,
    },
    /// A board without a way to tell of nodes.
    #[error("the board {0} has no NUMA nodes")]
    NoNuma(String),
    /// Parts that are not the whole.
    #[error("the NUMA nodes have {sum} of memory together, and the guest has {size}")]
    NotTheWhole {
        /// All parts.
        sum: Size,
        /// The whole.
        size: Size,
    },
    /// What is left cannot be shared evenly.
    #[error("{left} of memory cannot be spread evenly over {count} NUMA nodes")]
    Uneven {
        /// What is left.
        left: Size,
        /// How many nodes say nothing.
        count: u32,
    },
    /// Nothing is left for a node.
    #[error("no memory is left for the NUMA node `{0}`")]
    NothingLeft(Id),
    /// Some nodes name processors and some do not.
    #[error("the NUMA node `{0}` names no processors, and others do")]
    NoCpus(Id),
    /// Processors that the guest does not have.
    #[error("the NUMA node `{id}` has the processor {cpu}, and the guest has 0 to {last}")]
    NoSuchCpu {
        /// The node.
        id: Id,
        /// The processor.
        cpu: u32,
        /// The guest's last.
        last: u32,
    },
    /// One processor, two nodes.
    #[error("the processor {cpu} is in the NUMA nodes `{first}` and `{second}`")]
    CpuTwice {
        /// The processor.
        cpu: u32,
        /// The one.
        first: Id,
        /// The other.
        second: Id,
    },
    /// A processor in no node.
    #[error("the processor {0} is in no NUMA node")]
    CpuNowhere(u32),
    /// A distance to nowhere.
    #[error("`numa.{id}.distance` names `{to}`, which is none of the guest's NUMA nodes")]
    DistanceNowhere {
        /// The node.
        id: Id,
        /// The other.
        to: Id,
    },
    /// A distance that ACPI does not have.
    #[error("`numa.{id}.distance.{to}` is {distance}; it is 11 to 254, and 10 to the node itself")]
    BadDistance {
        /// The node.
        id: Id,
        /// The other.
        to: Id,
        /// What it says.
        distance: u32,
    },
}

impl Hint for MemoryError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::NoSuchPages { has, .. } if has.is_empty() => {
                vec!["its kernel has none at all (CONFIG_HUGETLBFS)".to_owned()]
            }
            Self::NoSuchPages { has, .. } => {
                let has: Vec<String> = has.iter().map(ToString::to_string).collect();
                vec![format!("it has those of {}", has.join(", "))]
            }
            Self::OnlyRootAddsPages { size, pages, .. } => vec![format!(
                "as root: `echo {pages} > /sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages`, or run mvm as root",
                size.as_bytes() >> 10
            )],
            Self::MustShare(_) => vec![
                "leave `memory.share` and `memory.backing` out, or set `memory.backing = \"memfd\"` and `memory.share = true`"
                    .to_owned(),
            ],
            Self::HugeNeedsMemfd(_) => vec!["leave `memory.backing` out".to_owned()],
            Self::SmallFile { path, size, .. } => {
                let file = shlex::try_quote(&path.to_string_lossy()).map_or_else(|_| String::new(), |text| text.into_owned());
                vec![format!("`truncate -s {size} {file}`, or name a folder")]
            }
            Self::CurrentNeedsBalloon => {
                vec!["set `balloon.enabled = true`, or leave `memory.current` out".to_owned()]
            }
            _ => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoSuchPages { .. } | Self::OnlyRootAddsPages { .. } => ExitCode::Host,
            _ => ExitCode::Profile,
        }
    }
}
