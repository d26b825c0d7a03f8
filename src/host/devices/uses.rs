//! What the host itself does with a device.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A use by the host that ends when the device is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostUse {
    /// A file system on it is mounted.
    Mounted {
        /// The block device that is mounted, `nvme0n1p2`, `dm-0`.
        what: String,
        /// Where.
        at: String,
    },
    /// The host swaps to it.
    Swap {
        /// The block device.
        what: String,
    },
    /// A part of it belongs to a volume or array that has nothing mounted.
    Held {
        /// The block device.
        what: String,
        /// What holds it, `dm-0`, `md127`.
        by: String,
    },
    /// The host's way to other networks goes through it.
    DefaultRoute {
        /// The network device.
        link: String,
    },
    /// It is a port of a bridge.
    BridgeMember {
        /// The network device.
        link: String,
        /// The bridge.
        bridge: String,
    },
    /// It is a part of a bond or team.
    BondMember {
        /// The network device.
        link: String,
        /// The bond.
        bond: String,
    },
    /// The host's console is on it.
    ConsoleGpu {
        /// What draws it.
        console: String,
    },
    /// It has virtual functions.
    LiveVfs {
        /// How many.
        count: u32,
    },
}

impl fmt::Display for HostUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mounted { what, at } => write!(f, "{what} is mounted at {at}"),
            Self::Swap { what } => write!(f, "the host swaps to {what}"),
            Self::Held { what, by } => write!(f, "{what} is a part of {by}"),
            Self::DefaultRoute { link } => write!(f, "the host's default route goes over {link}"),
            Self::BridgeMember { link, bridge } => write!(f, "{link} is a port of bridge {bridge}"),
            Self::BondMember { link, bond } => write!(f, "{link} is a part of {bond}"),
            Self::ConsoleGpu { console } => write!(f, "the host's console is on it ({console})"),
            Self::LiveVfs { count: 1 } => f.write_str("it has a virtual function"),
            Self::LiveVfs { count } => write!(f, "it has {count} virtual functions"),
        }
    }
}
