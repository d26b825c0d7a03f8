//! `mvm internal`: what mvm starts itself for, in a process of its own. Not for people.

use std::path::PathBuf;

use clap::Subcommand;

use super::{Failure, output};
use crate::error::{ExitCode, Report};
use crate::host::{devices, kvm};
use crate::ops;

/// What mvm starts itself for
#[derive(Debug, Subcommand)]
pub(super) enum InternalCommand {
    /// Measure KVM and print the result as one line of JSON
    KvmProbe,
    /// Print the files of /sys that stdin names, each as a line of JSON
    ReadAttributes,
    /// Open devices through VFIO and print what refuses as one line of JSON
    ConfirmVfio {
        /// Their directories in sysfs
        #[arg(required = true)]
        devices: Vec<PathBuf>,
    },
}

pub(super) fn run(command: &InternalCommand) -> Result<(), Failure> {
    match command {
        InternalCommand::KvmProbe => output::print(&format!("{}\n", kvm::probe_child()))?,
        InternalCommand::ReadAttributes => {
            let (input, output) = (std::io::stdin().lock(), std::io::stdout().lock());
            devices::read_attributes(input, output)
                .map_err(|error| Report::new(ExitCode::Failed, error.to_string()))?;
        }
        InternalCommand::ConfirmVfio { devices } => output::print_json(&ops::try_vfio(devices))?,
    }
    Ok(())
}
