//! `mvm resume`

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::targets::Targets;
use super::{Context, Failure};

/// Let a paused guest go on
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm resume web
  mvm resume --all")]
pub(super) struct ResumeArgs {
    #[command(flatten)]
    targets: Targets,
}

pub(super) fn run(args: &ResumeArgs, context: &Context) -> Result<(), Failure> {
    let request = json!({ "do": "resume" });
    args.targets.ask(context, &request, Duration::from_secs(30))
}
