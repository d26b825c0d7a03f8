//! `mvm stop`

use clap::Args;
use serde_json::json;

use super::targets::{LONGEST, Targets};
use super::{Context, Failure, ordered};
use crate::units::Span;

/// Ask a guest to shut down
///
/// Through the guest agent where it answers, else by the power button. Success means that the guest is
/// gone and the host has back what it gave.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm stop web
  mvm stop --all --timeout 30s --force
  mvm stop --all --within 2m --force")]
pub(super) struct StopArgs {
    #[command(flatten)]
    targets: Targets,
    /// How long the guest may take; by default what its profile says in `lifecycle.stop-timeout`
    #[arg(long, value_name = "SPAN")]
    timeout: Option<Span>,
    /// How long all of them together may take; they are stopped in the reverse of the order in which `mvm autostart`
    /// starts them
    #[arg(long, value_name = "SPAN", requires = "all")]
    within: Option<Span>,
    /// End it as `mvm kill` does when the time is over
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: &StopArgs, context: &Context) -> Result<(), Failure> {
    if let Some(within) = args.within {
        return ordered::stop(args.timeout, within, args.force, context);
    }
    let mut request = json!({ "do": "stop", "force": args.force });
    if let Some(span) = args.timeout {
        request["timeout-ms"] = json!(span.duration().as_millis() as u64);
    }
    // Without a span of ours the guest's own `lifecycle.stop-timeout` holds, at the supervisor.
    let within = args.timeout.map_or(LONGEST, Span::duration);
    args.targets.ask(context, &request, within)
}
