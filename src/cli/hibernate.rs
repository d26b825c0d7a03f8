//! `mvm hibernate`

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::targets::{LONGEST, Targets};
use super::{Context, Failure};
use crate::units::Span;

/// Let a guest write its memory to its own disk and go off
///
/// The guest agent asks for it. At its next start the guest goes on where it was; until then nobody else gets its
/// disks. Devices of the host that it had are given back. Boards that do not tell a hibernation from a shutdown
/// (Arm) show `stopped, hibernation requested`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm hibernate web
  mvm start web                  goes on where it was")]
pub(super) struct HibernateArgs {
    #[command(flatten)]
    targets: Targets,
    /// How long the guest may take; by default what its profile says in `power.hibernate-timeout`
    #[arg(long, value_name = "SPAN")]
    timeout: Option<Span>,
}

pub(super) fn run(args: &HibernateArgs, context: &Context) -> Result<(), Failure> {
    let mut request = json!({ "do": "hibernate" });
    if let Some(span) = args.timeout {
        request["timeout-ms"] = json!(span.duration().as_millis() as u64);
    }
    let within = args.timeout.map_or(LONGEST, Span::duration);
    args.targets
        .ask(context, &request, within + Duration::from_secs(90))
}
