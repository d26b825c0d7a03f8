//! `mvm pause`

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::targets::Targets;
use super::{Context, Failure};

/// Stop a guest's processors, until `mvm resume`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm pause web
  mvm pause --all")]
pub(super) struct PauseArgs {
    #[command(flatten)]
    targets: Targets,
}

pub(super) fn run(args: &PauseArgs, context: &Context) -> Result<(), Failure> {
    let request = json!({ "do": "pause" });
    args.targets.ask(context, &request, Duration::from_secs(30))
}
