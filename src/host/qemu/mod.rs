//! QEMU is asked what it can do, not assumed to be able to.

pub mod caps;
mod names;
pub mod since;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use caps::{
    CpuModel, Lacks, MachineType, PROBED_DEVICES, PROBED_MACHINES, Properties, PropertyKind,
    QemuCaps, Version,
};
pub use names::Names;
pub use since::known_since;

/// The QEMU of one architecture, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QemuFacts {
    /// It was found and it answered.
    Found(Box<QemuCaps>),
    /// There is none where mvm looked.
    Missing {
        /// Every place that was looked at.
        looked: Vec<PathBuf>,
    },
    /// It is there and could not be asked.
    Failed {
        /// The binary.
        binary: PathBuf,
        /// What happened, with the tail of what it printed.
        why: String,
    },
}

impl QemuFacts {
    /// The capabilities, where QEMU is there and answered.
    pub fn caps(&self) -> Option<&QemuCaps> {
        match self {
            Self::Found(caps) => Some(caps),
            _ => None,
        }
    }
}
