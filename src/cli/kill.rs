//! `mvm kill`

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::targets::Targets;
use super::{Context, Failure};

/// End a guest's QEMU at once
///
/// Like pulling the plug; the host is given back what the guest had.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm kill web
  mvm kill --all")]
pub(super) struct KillArgs {
    #[command(flatten)]
    targets: Targets,
}

pub(super) fn run(args: &KillArgs, context: &Context) -> Result<(), Failure> {
    let request = json!({ "do": "kill" });
    args.targets.ask(context, &request, Duration::from_secs(30))
}
