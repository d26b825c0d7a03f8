//! Firmware images, found through descriptors in QEMU's interop schema (`docs/interop/firmware.json`).
//!
//! As that document asks: the user's folder goes before `/etc`, `/etc` before `/usr/share`; a file of the
//! same name in an earlier folder stands for the later one, an empty one hides it; the names, sorted,
//! are the order of preference. mvm's own descriptors, for hosts whose packages bring none, come last.

mod read;
mod select;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use select::{FirmwareWant, NoFirmware, select};

/// The descriptors of this host, best first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirmwareFacts {
    /// Those that can be used, in the order in which they are tried.
    pub descriptors: Vec<Descriptor>,
    /// What was skipped and why, one sentence each.
    pub notes: Vec<String>,
}

/// One descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// The file it is from, or `built-in:NAME` for mvm's own.
    pub origin: String,
    /// For people.
    pub description: String,
    /// What the guest sees.
    pub interfaces: Vec<Interface>,
    /// The files, and how QEMU takes them.
    pub mapping: Mapping,
    /// The machines it is for.
    pub targets: Vec<Target>,
    /// What it can and what it needs, in the schema's words (`secure-boot`, `requires-smm`, …).
    pub features: Vec<String>,
}

/// What the guest's first software finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interface {
    /// Traditional x86.
    Bios,
    /// UEFI.
    Uefi,
    /// Open Firmware.
    Openfirmware,
    /// U-Boot.
    Uboot,
}

/// How QEMU takes the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mapping {
    /// In flash: code and, for each guest, a copy of the variables.
    Flash {
        /// The code; with the variables in it where `nvram_template` is `None` and `mode` is `Combined`.
        executable: FlashFile,
        /// What each guest's variables start as.
        nvram_template: Option<FlashFile>,
        /// Whether there are variables, and where.
        mode: FlashMode,
    },
    /// As `-kernel`.
    Kernel {
        /// The image.
        filename: PathBuf,
    },
    /// As `-bios`.
    Memory {
        /// The image.
        filename: PathBuf,
    },
}

/// Where a flash image keeps its variables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlashMode {
    /// In a file of their own, made from the template.
    #[default]
    Split,
    /// In the same file: each guest has a copy of the whole.
    Combined,
    /// Nowhere.
    Stateless,
}

/// A flash image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlashFile {
    /// The file.
    pub filename: PathBuf,
    /// Its format: `raw` or `qcow2`.
    pub format: String,
}

/// Machines that a firmware is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// QEMU's architecture name.
    pub architecture: String,
    /// Glob patterns of machine types by their real names, as in `pc-q35-*`.
    pub machines: Vec<String>,
}
