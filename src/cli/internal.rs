//! `mvm internal`: what mvm starts itself for, in a process of its own. Not for people.

use clap::Subcommand;

use super::{Failure, output};
use crate::host::kvm;

/// What mvm starts itself for
#[derive(Debug, Subcommand)]
pub(super) enum InternalCommand {
    /// Measure KVM and print the result as one line of JSON
    KvmProbe,
}

pub(super) fn run(command: &InternalCommand) -> Result<(), Failure> {
    match command {
        InternalCommand::KvmProbe => output::print(&format!("{}\n", kvm::probe_child()))?,
    }
    Ok(())
}
