//! What the machine, the steps and the host's own files say about devices that change hands: plain data.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::MacAddr;
use crate::units::Size;

/// A console of the host that holds a GPU and is let go before the GPU is taken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConsoleRef {
    /// A console of `/sys/class/vtconsole` that is bound: `vtcon1`.
    Vt(String),
    /// A device of the platform bus with a frame buffer that the firmware set up.
    Platform {
        /// The device: `efi-framebuffer.0`.
        device: String,
        /// The driver that holds it: `efi-framebuffer`, `simple-framebuffer`.
        driver: String,
    },
}

impl ConsoleRef {
    /// The kernel's name of it.
    pub fn name(&self) -> &str {
        match self {
            Self::Vt(name) | Self::Platform { device: name, .. } => name,
        }
    }
}

impl fmt::Display for ConsoleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What each virtual function of a GPU gets of it. What is not said the driver's own provisioning decides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Provision {
    /// The time slice of each virtual function, in milliseconds.
    pub exec_quantum_ms: Option<u32>,
    /// How long work that is to make room may go on, in microseconds.
    pub preempt_timeout_us: Option<u32>,
    /// The GPU's address space of each.
    pub ggtt_quota: Option<Size>,
    /// The GPU's own memory of each.
    pub lmem_quota: Option<Size>,
    /// The contexts of each.
    pub contexts_quota: Option<u32>,
    /// The doorbells of each.
    pub doorbells_quota: Option<u32>,
    /// What stays with the physical function of its address space.
    pub ggtt_spare: Option<Size>,
    /// What stays of its contexts.
    pub contexts_spare: Option<u32>,
    /// What stays of its doorbells.
    pub doorbells_spare: Option<u32>,
}

/// The network side of a virtual function of a network card.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VfNet {
    /// The virtual function, 1 first.
    pub index: u32,
    /// Its address.
    pub mac: Option<MacAddr>,
    /// Its VLAN, 1 to 4094.
    pub vlan: Option<u16>,
}
