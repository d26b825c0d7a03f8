//! `mvm wait`

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::guests::{self, Life};
use super::{Context, Failure, block_on};
use crate::error::{ExitCode, Report};
use crate::units::Span;

/// Wait until a guest is in a state
///
/// It may be started meanwhile. Exit code 1 when the time is over, 5 when there was no such guest then.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm wait web --for agent --timeout 2m
  mvm stop web & mvm wait web --for stopped")]
pub(super) struct WaitArgs {
    /// The guest
    name: String,
    /// The state
    #[arg(long = "for", value_enum, value_name = "STATE")]
    state: Goal,
    /// How long
    #[arg(long, default_value = "5m", value_name = "SPAN")]
    timeout: Span,
}

/// What can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Goal {
    /// Its processors run
    Running,
    /// The agent inside it answers
    Agent,
    /// Its processors are stopped by `mvm pause` or by QEMU
    Paused,
    /// It sleeps, its memory kept
    Suspended,
    /// It is gone
    Stopped,
}

/// How often a guest that is not there yet is looked for.
const EVERY: Duration = Duration::from_millis(50);

pub(super) fn run(args: &WaitArgs, context: &Context) -> Result<(), Failure> {
    block_on(wait(args, context))
}

async fn wait(args: &WaitArgs, context: &Context) -> Result<(), Failure> {
    let goal = args
        .state
        .to_possible_value()
        .expect("every goal has a name");
    let deadline = Instant::now() + args.timeout.duration();
    loop {
        let seen = guests::look(&context.dirs, &args.name)?;
        let left = deadline.saturating_duration_since(Instant::now());
        match seen {
            None if args.state == Goal::Stopped => return Ok(()),
            // What it left behind is not the guest.
            Some(seen) if args.state == Goal::Stopped && seen.life == Life::Gone => return Ok(()),
            Some(seen) if seen.life == Life::Supervised && !left.is_zero() => {
                let request = json!({
                    "do": "wait",
                    "for": goal.get_name(),
                    "timeout-ms": left.as_millis() as u64,
                });
                // A supervisor that went away meanwhile may just have finished its work.
                if let Ok(mut control) = seen.control().await {
                    match control.ask(&request, left).await {
                        Ok(_) => return Ok(()),
                        Err(report) if guests::find_supervised(context, &args.name).is_ok() => {
                            return Err(report.into());
                        }
                        Err(_) => {}
                    }
                }
            }
            Some(_) | None if left.is_zero() => {
                return Err(too_late(args, goal.get_name(), context));
            }
            Some(_) | None => {}
        }
        tokio::time::sleep(EVERY.min(left)).await;
    }
}

fn too_late(args: &WaitArgs, goal: &str, context: &Context) -> Failure {
    match guests::find(&context.dirs, &args.name) {
        Err(failure) => failure,
        Ok(seen) => Report::new(
            ExitCode::Failed,
            format!(
                "{} is {} and was not {goal} within {}",
                seen.name,
                seen.state_name(),
                args.timeout
            ),
        )
        .into(),
    }
}
