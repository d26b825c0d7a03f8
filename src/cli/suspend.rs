//! `mvm suspend`

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::targets::{LONGEST, Targets};
use super::{Context, Failure};
use crate::units::Span;

/// Put a guest to sleep, its memory kept
///
/// Through the guest agent where it answers, else by the sleep key of the guest's keyboard. What is done is what
/// the profile says in `power.suspend`: sleep (S3) by default, and what it falls back to. Success means that the
/// guest was seen to sleep.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm suspend web
  mvm suspend --all
  mvm wakeup web")]
pub(super) struct SuspendArgs {
    #[command(flatten)]
    targets: Targets,
    /// How long the guest may take; by default what its profile says in `power.suspend-timeout`
    #[arg(long, value_name = "SPAN")]
    timeout: Option<Span>,
}

pub(super) fn run(args: &SuspendArgs, context: &Context) -> Result<(), Failure> {
    let mut request = json!({ "do": "suspend" });
    if let Some(span) = args.timeout {
        request["timeout-ms"] = json!(span.duration().as_millis() as u64);
    }
    let within = args.timeout.map_or(LONGEST, Span::duration);
    args.targets
        .ask(context, &request, within + Duration::from_secs(90))
}
