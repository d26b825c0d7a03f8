//! The guests that a command is for: some by name, or all that run.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::guests::{self, Seen};
use super::{Context, Failure, block_on, output};

/// The longest that a guest's own time for something is waited for.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// `NAME…` or `--all`.
#[derive(Debug, Args)]
#[command(about = None, long_about = None)]
#[group(required = true, multiple = false)]
pub(super) struct Targets {
    /// The guests
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Every guest that runs
    #[arg(long)]
    all: bool,
}

impl Targets {
    /// Does something with each guest, all at the same time, and collects what failed.
    pub(super) async fn each<F, R>(&self, context: &Context, action: F) -> Result<(), Failure>
    where
        F: Fn(Seen) -> R,
        R: Future<Output = Result<(), Failure>>,
    {
        let mut failures = Vec::new();
        let mut running = Vec::new();
        if self.all {
            running = guests::running(&context.dirs)?;
        } else {
            for name in unique(&self.names) {
                match guests::find(&context.dirs, name) {
                    Ok(seen) => running.push(seen),
                    Err(failure) => failures.push(failure),
                }
            }
        }
        let actions = running.into_iter().map(action).map(Box::pin).collect();
        let results = join_all(actions).await;
        failures.extend(results.into_iter().filter_map(Result::err));
        Failure::collect(failures)
    }
}

impl Targets {
    /// Asks the supervisor of each guest for the same thing.
    pub(super) fn ask(
        &self,
        context: &Context,
        request: &Value,
        within: Duration,
    ) -> Result<(), Failure> {
        self.ask_those(context, request, within, |_| true)
    }

    /// The same; with `--all` those alone that are meant.
    pub(super) fn ask_those(
        &self,
        context: &Context,
        request: &Value,
        within: Duration,
        meant: impl Fn(&Seen) -> bool,
    ) -> Result<(), Failure> {
        block_on(self.each(context, |seen| {
            let passed_over = self.all && !meant(&seen);
            async move {
                if passed_over {
                    return Ok(());
                }
                guests::supervised(&seen)?;
                let done = seen.control().await?.ask(request, within).await?;
                if let Some(note) = done["note"].as_str() {
                    output::note(&format!("note: {}: {note}", seen.name));
                }
                Ok(())
            }
        }))
    }
}

/// The names in their order, each once.
pub(super) fn unique(names: &[String]) -> Vec<&str> {
    let mut found: Vec<&str> = Vec::new();
    for name in names {
        if !found.contains(&name.as_str()) {
            found.push(name);
        }
    }
    found
}

/// Waits for all of them on this thread.
pub(super) async fn join_all<F: Future + Unpin>(mut futures: Vec<F>) -> Vec<F::Output> {
    let mut done: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|task| {
        let mut pending = false;
        for (future, slot) in futures.iter_mut().zip(&mut done) {
            if slot.is_none() {
                match std::pin::Pin::new(future).poll(task) {
                    std::task::Poll::Ready(value) => *slot = Some(value),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_are_waited_for_and_stay_in_order() {
        let wait = |ms: u64| {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                ms
            })
        };
        assert_eq!(
            join_all(vec![wait(20), wait(0), wait(10)]).await,
            [20, 0, 10]
        );
    }

    #[test]
    fn a_name_given_twice_is_one_guest() {
        let names = ["a", "b", "a"].map(String::from);
        assert_eq!(unique(&names), ["a", "b"]);
    }
}
