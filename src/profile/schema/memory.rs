//! The memory: `[memory]`, `[numa.NAME]`, `[balloon]`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::Id;
use crate::units::{BadSize, Size};

table! {
    /// `[memory]`
    MemoryTable {
        /// The guest's memory, as in `4G`. By default `1G`.
        size: Size,
        /// What the guest has of it when it starts; the balloon holds the rest. By default all of it. As with
        /// `mvm memory`, a guest without a driver for the balloon keeps all.
        current: Size,
        /// The memory is made of the host's huge pages of this size, as in `2M` or `1G`, or `none` (the default). What
        /// the host's pool lacks is added for the guest and taken off again when it is gone.
        hugepages: PageSize,
        /// What the memory is on the host. By default `anonymous`, with huge pages or `share` `memfd`.
        backing: Backing,
        /// With `backing = "file"`: the file, or a folder in which QEMU makes one that has no name.
        path: String,
        /// Other processes can map the memory: a virtiofsd, a vhost-user switch. By default so where the
        /// profile has something that needs it.
        share: bool,
        /// QEMU asks for all of it at the start rather than page by page. By default so with huge pages.
        prealloc: bool,
        /// It stays in the host's memory and is never swapped out.
        locked: bool,
        /// `false`: the kernel does not merge pages that are alike in several guests (KSM).
        merge: bool,
        /// The memory is a part of a core file of QEMU. By default it is not.
        dump: bool,
        /// With `backing = "file"`: what is in it may be thrown away when QEMU ends.
        discard: bool,
        /// The NUMA nodes of the host that it comes from, as in `0` or `0-1,3`. For a guest with nodes of its own
        /// each says this by itself.
        host_nodes: String,
        /// How it is spread over `host-nodes`. By default `bind`.
        policy: NumaPolicy,
    }
}

table! {
    /// `[numa.NAME]`: a NUMA node of the guest; in the order of their names they are node 0, 1, ….
    NumaTable {
        /// Its processors, as in `0-1`. By default all of them are spread evenly, in order.
        cpus: String,
        /// Its part of `memory.size`. By default the same for all.
        memory: Size,
        /// The NUMA nodes of the host that this part comes from.
        host_nodes: String,
        /// How it is spread over `host-nodes`. By default `bind`.
        policy: NumaPolicy,
        /// How far other nodes are, 10 being the node itself: `{ second = 21 }`. By default 20.
        distance: BTreeMap<Id, u32>,
    }
}

table! {
    /// `[balloon]`: virtio-balloon, for `mvm memory`.
    BalloonTable {
        /// Whether the guest has one. By default so where the table is there, and where `memory.current` is.
        enabled: bool,
        /// The guest tells which pages it does not use, and the host has them again.
        free_page_reporting: bool,
        /// The guest takes memory back from the balloon before it runs out.
        deflate_on_oom: bool,
    }
}

words! {
    /// `memory.backing`
    Backing {
        /// Private memory of QEMU's.
        Anonymous = "anonymous",
        /// A file without a name in the host's memory.
        Memfd = "memfd",
        /// The file in `path`, as on persistent memory.
        File = "file",
    }
}

words! {
    /// `memory.policy`, `numa.NAME.policy`
    NumaPolicy {
        /// From these nodes only.
        Bind = "bind",
        /// From these nodes where they have any left.
        Preferred = "preferred",
        /// Page by page from each in turn.
        Interleave = "interleave",
    }
}

/// The size of a huge page, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PageSize(pub Option<Size>);

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("none"),
            Some(size) => size.fmt(f),
        }
    }
}

impl FromStr for PageSize {
    type Err = BadSize;

    fn from_str(text: &str) -> Result<Self, BadSize> {
        match text {
            "none" => Ok(Self(None)),
            size => size.parse().map(|size| Self(Some(size))),
        }
    }
}

impl TryFrom<String> for PageSize {
    type Error = BadSize;

    fn try_from(text: String) -> Result<Self, BadSize> {
        text.parse()
    }
}

impl From<PageSize> for String {
    fn from(size: PageSize) -> Self {
        size.to_string()
    }
}

impl JsonSchema for PageSize {
    fn schema_name() -> Cow<'static, str> {
        "PageSize".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^([0-9]+ ?([KMGTkmgt]([Ii]?[Bb])?)?|none)$",
            "examples": ["2M", "1G", "none"]
        })
    }
}
