//! `mvm reboot`

use clap::Args;
use serde_json::json;

use super::targets::Targets;
use super::{Context, Failure};
use crate::units::Span;

/// Ask a guest to reboot
///
/// Through the guest agent where it answers, else by the keys Ctrl-Alt-Del. Success means that the guest
/// has begun anew.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm reboot web
  mvm reboot web --timeout 5m")]
pub(super) struct RebootArgs {
    #[command(flatten)]
    targets: Targets,
    /// How long the guest may take
    #[arg(long, default_value = "2m", value_name = "SPAN")]
    timeout: Span,
}

pub(super) fn run(args: &RebootArgs, context: &Context) -> Result<(), Failure> {
    let within = args.timeout.duration();
    let request = json!({ "do": "reboot", "timeout-ms": within.as_millis() as u64 });
    args.targets.ask(context, &request, within)
}
