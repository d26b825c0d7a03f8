//! `mvm unbind`

use clap::Args;

use super::{Context, Failure, output};
use crate::error::{ExitCode, Report};
use crate::host::devices::find;
use crate::host::{DeviceFacts, Roots};
use crate::ids::PciRef;
use crate::ops::{Host, byhand};

/// Give PCI functions back that were taken with `mvm bind`
///
/// The driver, its override and the power control are put back as they were. What a guest has is given
/// back when the guest ends.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm unbind 03:00.0
  mvm unbind --all")]
pub(super) struct UnbindArgs {
    /// The functions: addresses, ids or words
    #[arg(required_unless_present = "all", value_name = "DEVICE")]
    devices: Vec<String>,
    /// Everything that was taken by hand
    #[arg(long, conflicts_with = "devices")]
    all: bool,
}

pub(super) fn run(args: &UnbindArgs, context: &Context) -> Result<(), Failure> {
    let host = Host::new(&context.dirs);
    let devices = if args.all {
        let mut all: Vec<PciRef> = Vec::new();
        for record in host.place().host.by_hand()? {
            all.push(record.content.device.parse()?);
        }
        all
    } else {
        let facts = DeviceFacts::read(&Roots::host(Some(context.dirs.cache.clone())));
        let named = args.devices.iter().map(|text| find::pci(&facts, text));
        let named = named.map(|found| found.map(|device| device.reference()));
        named.collect::<Result<_, _>>()?
    };
    let mut failures = Vec::new();
    for device in devices {
        match byhand::unbind(host.place(), device) {
            Ok(true) => output::progress(&format!("{device} is as it was")),
            Ok(false) => failures.push(
                Report::new(
                    ExitCode::Failed,
                    format!("{device} was not taken with `mvm bind`"),
                )
                .hint("`mvm devices pci` shows who has it")
                .into(),
            ),
            Err(error) => failures.push(Report::from(error).into()),
        }
    }
    Failure::collect(failures)
}
