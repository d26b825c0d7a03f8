//! `mvm wait`

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser as _};
use serde_json::json;

use super::guests::{self, Life};
use super::{Context, Failure, block_on, output, targets};
use crate::error::{ExitCode, Report};
use crate::guest::Goal;
use crate::units::Span;

/// Wait until guests are in a state
///
/// They may be started meanwhile. Several states are alternatives: `--for stopped,restarting` waits for an end,
/// whatever follows it.
///
/// Exit code 0 when every guest has been seen in one of the states, with `--any` when one has; its name is
/// printed then. 1 when the time is over, 5 when it is over and there is no such guest.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm wait web --for agent --timeout 2m
  mvm wait web db --for running
  mvm wait web db --any --for stopped,restarting
  mvm stop web & mvm wait web --for stopped")]
pub(super) struct WaitArgs {
    /// The guests
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// The state, or several
    #[arg(
        long = "for",
        value_name = "STATE",
        required = true,
        value_delimiter = ',',
        value_parser = goals()
    )]
    states: Vec<Goal>,
    /// One of the guests is enough
    #[arg(long)]
    any: bool,
    /// How long
    #[arg(long, default_value = "5m", value_name = "SPAN")]
    timeout: Span,
}

/// The states as clap knows them: the list is the supervisor's.
fn goals() -> impl clap::builder::TypedValueParser<Value = Goal> {
    let values = Goal::ALL
        .iter()
        .map(|(_, word, help)| PossibleValue::new(*word).help(*help));
    PossibleValuesParser::new(values).map(|word| {
        // The parser lets no other word through.
        Goal::of(&word).unwrap_or(Goal::Running)
    })
}

/// How often a guest that is not there yet is looked for.
const EVERY: Duration = Duration::from_millis(50);

pub(super) fn run(args: &WaitArgs, context: &Context) -> Result<(), Failure> {
    block_on(wait(args, context))
}

async fn wait(args: &WaitArgs, context: &Context) -> Result<(), Failure> {
    let deadline = Instant::now() + args.timeout.duration();
    let names = targets::unique(&args.names);
    let waits = names.iter().map(|name| one(args, name, deadline, context));
    if args.any {
        let first = any(waits.map(Box::pin).collect()).await;
        let index = first?;
        output::print(&format!("{}\n", names[index]))?;
        return Ok(());
    }
    let results = targets::join_all(waits.map(Box::pin).collect()).await;
    Failure::collect(results.into_iter().filter_map(Result::err))
}

/// The index of the first that succeeds; what all of them failed with where none does.
async fn any<F>(mut waits: Vec<Pin<Box<F>>>) -> Result<usize, Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let mut failed: Vec<Option<Failure>> = waits.iter().map(|_| None).collect();
    let first = poll_fn(|task| {
        let mut pending = false;
        for (index, (wait, failed)) in waits.iter_mut().zip(&mut failed).enumerate() {
            if failed.is_some() {
                continue;
            }
            match wait.as_mut().poll(task) {
                Poll::Ready(Ok(())) => return Poll::Ready(Some(index)),
                Poll::Ready(Err(failure)) => *failed = Some(failure),
                Poll::Pending => pending = true,
            }
        }
        if pending {
            Poll::Pending
        } else {
            Poll::Ready(None)
        }
    })
    .await;
    match first {
        Some(index) => Ok(index),
        None => Failure::collect(failed.into_iter().flatten()).map(|()| 0),
    }
}

async fn one(
    args: &WaitArgs,
    name: &str,
    deadline: Instant,
    context: &Context,
) -> Result<(), Failure> {
    let words: Vec<&str> = args.states.iter().map(|goal| goal.as_str()).collect();
    let words = words.join(",");
    let stopped = args.states.contains(&Goal::Stopped);
    loop {
        let seen = guests::look(&context.dirs, name)?;
        let left = deadline.saturating_duration_since(Instant::now());
        match seen {
            None if stopped => return Ok(()),
            // What it left behind is not the guest.
            Some(seen) if stopped && seen.life == Life::Gone => return Ok(()),
            Some(seen) if seen.life == Life::Supervised && !left.is_zero() => {
                let request = json!({
                    "do": "wait",
                    "for": words,
                    "timeout-ms": left.as_millis() as u64,
                });
                // A supervisor that went away meanwhile may just have finished its work, or one life of
                // its guest.
                if let Ok(mut control) = seen.control().await {
                    match control.ask(&request, left).await {
                        Ok(_) => return Ok(()),
                        Err(report)
                            if report.code == ExitCode::Usage || Instant::now() >= deadline =>
                        {
                            return Err(report.into());
                        }
                        Err(_) => {}
                    }
                }
            }
            Some(_) | None if left.is_zero() => {
                return Err(too_late(args, name, &words, context));
            }
            Some(_) | None => {}
        }
        tokio::time::sleep(EVERY.min(left)).await;
    }
}

fn too_late(args: &WaitArgs, name: &str, words: &str, context: &Context) -> Failure {
    match guests::find(&context.dirs, name) {
        Err(failure) => failure,
        Ok(seen) => Report::new(
            ExitCode::Failed,
            format!(
                "{} is {} and was not {} within {}",
                seen.name,
                seen.state_name(),
                words.replace(',', " or "),
                args.timeout
            ),
        )
        .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_is_enough_and_none_is_told_by_all() {
        let wait = |good: bool| {
            Box::pin(async move {
                tokio::task::yield_now().await;
                if good {
                    Ok(())
                } else {
                    Err(Failure::message(ExitCode::NotRunning, "no"))
                }
            })
        };
        assert_eq!(
            any(vec![wait(false), wait(true), wait(true)]).await.ok(),
            Some(1)
        );
        let failed = any(vec![wait(false), wait(false)]).await;
        assert_eq!(failed.expect_err("none has succeeded").reports().len(), 2);
    }
}
