//! QEMU is asked what it can do, not assumed to be able to.

mod ask;
mod cache;
pub mod caps;
pub(crate) mod find;
mod modules;
mod names;
mod probe;
mod schema;
pub mod since;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::cpu::CpuFacts;
use super::facts::{Needs, Roots};
use crate::ids::Arch;

pub use caps::{
    CpuModel, Lacks, MachineType, PROBED_DEVICES, PROBED_MACHINES, Properties, PropertyKind,
    QemuCaps, Version,
};
pub use find::variable;
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
    /// Finds the QEMU for `arch` and takes what it answered earlier, or asks it.
    pub fn read(roots: &Roots, needs: &Needs, arch: Arch, kernel: &str, cpu: &CpuFacts) -> Self {
        let binary = match find::find(roots, needs, arch) {
            Ok(binary) => binary,
            Err(looked) => return Self::Missing { looked },
        };
        let key = cache::Key::of(&binary, kernel, cpu.microcode.as_deref());
        let place = roots.cache.as_deref().zip(key);
        let kept = place
            .as_ref()
            .filter(|_| !needs.fresh)
            .and_then(|(dir, key)| cache::load(dir, arch, key));
        let caps = match kept {
            Some(mut caps) => {
                let more: Vec<&str> = needs.device_properties.iter().map(String::as_str).collect();
                match probe::add_missing(&mut caps, &more) {
                    Ok(false) => return Self::Found(Box::new(caps)),
                    Ok(true) => Ok(caps),
                    Err(e) => Err(e),
                }
            }
            None => probe::probe(&binary, arch, &needs.device_properties),
        };
        match caps {
            Ok(caps) => {
                if let Some((dir, key)) = place {
                    cache::store(dir, arch, key, &caps);
                }
                Self::Found(Box::new(caps))
            }
            Err(e) => Self::Failed {
                binary,
                why: e.to_string(),
            },
        }
    }

    /// The capabilities, where QEMU is there and answered.
    pub fn caps(&self) -> Option<&QemuCaps> {
        match self {
            Self::Found(caps) => Some(caps),
            _ => None,
        }
    }
}
