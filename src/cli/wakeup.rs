//! `mvm wakeup`

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::targets::Targets;
use super::{Context, Failure, guests};
use crate::guest::state::Condition;

/// Wake a guest that sleeps
///
/// Its clock is set afterwards, where it has an agent. A guest that `mvm suspend` paused, as its
/// profile says, goes on; one that is awake is left as it is; one that is hibernated goes on by `mvm start`.
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
        let state = seen.state.as_ref();
        state.is_some_and(|state| state.state == Condition::Suspended || state.held)
    };
    args.targets
        .ask_those(context, &request, Duration::from_secs(40), sleeps)
}
