//! `mvm save`

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::targets::{LONGEST, Targets};
use super::{Context, Failure};
use crate::units::Span;

/// Save a guest's whole state to a file and end its QEMU
///
/// The guest is held, QEMU writes its memory and the state of its devices to a file in its state directory, and
/// ends; devices of the host are given back. The guest knows nothing of it: it needs no agent and no swap. At its
/// next start it goes on where it was, once; one that was paused is paused again. A save that fails or is
/// interrupted leaves the guest as it was before.
///
/// QEMU refuses where a device's state is beyond it: devices of the host, shares that are mounted. What writes to
/// a throw-away disk cannot be saved.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm save web
  mvm start web                  goes on where it was
  mvm save --all --timeout 10m")]
pub(super) struct SaveArgs {
    #[command(flatten)]
    targets: Targets,
    /// How long it may take; by default what its profile says in `power.hibernate-timeout`
    #[arg(long, value_name = "SPAN")]
    timeout: Option<Span>,
    /// Compress the file (LZ4), as `power.compress` in the profile does
    #[arg(long)]
    compress: bool,
}

pub(super) fn run(args: &SaveArgs, context: &Context) -> Result<(), Failure> {
    let mut request = json!({ "do": "save", "compress": args.compress });
    if let Some(span) = args.timeout {
        request["timeout-ms"] = json!(span.duration().as_millis() as u64);
    }
    let within = args.timeout.map_or(LONGEST, Span::duration);
    args.targets
        .ask(context, &request, within + Duration::from_secs(120))
}
