//! `mvm wakeup`

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::targets::Targets;
use super::{Context, Failure, guests};
use crate::guest::state::Condition;

/// Wake a guest that sleeps
///
/// Its clock is set afterwards, where it has an agent. A guest that is awake is left as it is; one that is
/// hibernated goes on by `mvm start`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm wakeup web
  mvm wakeup --all")]
pub(super) struct WakeupArgs {
    #[command(flatten)]
    targets: Targets,
}

pub(super) fn run(args: &WakeupArgs, context: &Context) -> Result<(), Failure> {
    let request = json!({ "do": "wakeup" });
    let sleeps = |seen: &guests::Seen| {
        let state = seen.state.as_ref().map(|state| state.state);
        state == Some(Condition::Suspended)
    };
    args.targets
        .ask_those(context, &request, Duration::from_secs(40), sleeps)
}
