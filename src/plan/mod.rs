//! What will be done, as data: the steps, their inverses, and the command line.

pub mod apply;
mod attachment;
pub mod build;
#[cfg(test)]
mod effects_tests;
#[cfg(test)]
mod group_tests;
pub mod journal;
pub mod render;
pub mod step;
mod takeback;
#[cfg(test)]
mod tests;

pub use attachment::{Attachment, is_for};

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::qemu::command::CommandLine;
use step::Step;

/// All that a start will do, in order. `--dry-run` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The machine that it starts.
    pub machine: Machine,
    /// The changes to the host.
    pub steps: Vec<Step>,
    /// QEMU's command line.
    pub command: CommandLine,
}
