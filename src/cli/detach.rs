//! `mvm detach`

use clap::Args;
use serde_json::json;

use super::output::{self, Format, FormatArg};
use super::{Context, Failure, block_on, guests};
use crate::units::Span;

/// Take a device away from a guest that runs
///
/// The guest is asked to let it go. When it has, what was done for it on the host is taken back. Devices
/// that the guest was started with can be detached too, where their bus lets them: `mvm show` names them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm detach web data
  mvm detach web lan --timeout 2m")]
pub(super) struct DetachArgs {
    /// The guest
    name: String,
    /// The device's name
    id: String,
    /// How long the guest may take to let it go
    #[arg(long, default_value = "30s", value_name = "SPAN")]
    timeout: Span,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) fn run(args: &DetachArgs, context: &Context) -> Result<(), Failure> {
    let seen = guests::find_supervised(context, &args.name)?;
    let within = args.timeout.duration();
    let request = json!({
        "do": "detach",
        "id": args.id,
        "timeout-ms": u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
    });
    block_on(async {
        let mut control = seen.control().await?;
        let done = control.ask(&request, within + super::attach::HOST).await?;
        match args.format.format {
            Format::Json => output::print_json(&done)?,
            Format::Table => {
                output::progress(&format!("{} has left {}", args.id, seen.name));
                let waits = done["waits"].as_array().into_iter().flatten();
                for function in waits.filter_map(|one| one.as_str()) {
                    output::note(&format!(
                        "{function} is given back with the last device of its IOMMU group that {} has",
                        seen.name
                    ));
                }
            }
        }
        Ok(())
    })
}
