//! `mvm reset`

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::targets::Targets;
use super::{Context, Failure};

/// Press a guest's reset button
///
/// The guest gets no chance to write back what it holds: `mvm reboot` asks it first.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm reset web")]
pub(super) struct ResetArgs {
    #[command(flatten)]
    targets: Targets,
}

pub(super) fn run(args: &ResetArgs, context: &Context) -> Result<(), Failure> {
    let request = json!({ "do": "reset" });
    args.targets.ask(context, &request, Duration::from_secs(30))
}
