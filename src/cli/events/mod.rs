//! `mvm events`

mod follow;
mod line;
mod news;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::output::{self, Format, FormatArg};
use super::{Context, Failure, block_on};
use crate::error::{ExitCode, Report};
use crate::guest::{self, Goal};
use crate::ids::GuestName;
use crate::units::Span;
use line::{Line, STATES};
use news::News;

/// Follow what happens to guests
///
/// A line for each change of state, each event of QEMU and each end, as they come, of all guests or of those
/// named, and of those that are started meanwhile. It begins with the state that each of them is in. What a
/// guest does whose supervisor is gone is looked for once a second, as nobody tells.
///
/// With `--format json` a line is one object with `time` (seconds since 1970), `guest` and `kind`: `state` (with
/// `state`, `agent`, `message`), `event` (with `event` and `data`, QEMU's own), `ended` (with `reason`,
/// `message`, and in `state` what follows: `stopped` or `restarting`) or `lost` (with `count`: so many were not taken
/// in time; the state follows).
///
/// It ends when its reader goes away, with `--until` or `--timeout`, and otherwise not. Exit code 1 when the time
/// was over and what `--until` names was not seen.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm events
  mvm events web db --format json | jq -r 'select(.kind == \"ended\") | .reason'
  mvm events web --until GUEST_PANICKED --timeout 1h
  mvm events --until stopped")]
pub(super) struct EventsArgs {
    /// The guests; all by default
    #[arg(value_name = "NAME")]
    names: Vec<GuestName>,
    /// End with the first line of that state, or of that event of QEMU
    #[arg(long, value_name = "STATE|EVENT")]
    until: Option<String>,
    /// End after that time
    #[arg(long, value_name = "SPAN")]
    timeout: Option<Span>,
    #[command(flatten)]
    format: FormatArg,
}

/// Lines that wait to be printed: whoever stops reading stops us, and the supervisors count what we miss.
const AHEAD: usize = 256;

pub(super) fn run(args: &EventsArgs, context: &Context) -> Result<(), Failure> {
    if let Some(word) = &args.until {
        expect_word(word)?;
    }
    block_on(follow(args, context))
}

/// Refuses what no line will ever have.
fn expect_word(word: &str) -> Result<(), Report> {
    let event = !word.is_empty()
        && word
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    if event || word == Goal::Agent.as_str() || STATES.contains(&word) {
        return Ok(());
    }
    Err(Report::new(
        ExitCode::Usage,
        format!("`{word}` is neither a state nor an event of QEMU"),
    )
    .hint(format!("states are {}, agent", STATES.join(", ")))
    .hint("events are in capitals, as in SHUTDOWN"))
}

async fn follow(args: &EventsArgs, context: &Context) -> Result<(), Failure> {
    let (tell, mut told) = mpsc::channel::<Line>(AHEAD);
    let mut news = News::new(&context.dirs)?;
    let mut followed: BTreeMap<GuestName, JoinHandle<()>> = BTreeMap::new();
    let end = args.timeout.map(|span| Instant::now() + span.duration());
    let mut look = true;
    loop {
        let guests = if std::mem::take(&mut look) {
            there(args, context)?
        } else {
            Vec::new()
        };
        for name in guests {
            news.watch(&name);
            let running = followed.get(&name).is_some_and(|task| !task.is_finished());
            if !running {
                let one = follow::one(
                    context.dirs.clone(),
                    name.clone(),
                    tell.clone(),
                    news.subscribe(),
                );
                followed.insert(name, tokio::spawn(one));
            }
        }
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        tokio::select! {
            Some(line) = told.recv() => {
                if !print(args, &line)? || args.until.as_deref().is_some_and(|word| line.is(word)) {
                    return Ok(());
                }
            }
            () = news.next() => {
                look = true;
                if output::reader_is_gone() {
                    return Ok(());
                }
            }
            () = tokio::time::sleep(left.unwrap_or(Duration::MAX)), if left.is_some() => {
                return too_late(args);
            }
        }
    }
}

fn too_late(args: &EventsArgs) -> Result<(), Failure> {
    match (&args.until, args.timeout) {
        (Some(word), Some(within)) => Err(Failure::message(
            ExitCode::Failed,
            format!("`{word}` was not seen within {within}"),
        )),
        _ => Ok(()),
    }
}

/// The guests to follow that are there now.
fn there(args: &EventsArgs, context: &Context) -> Result<Vec<GuestName>, Failure> {
    let found = guest::list(&context.dirs)?.into_iter();
    Ok(found
        .map(|(name, _)| name)
        .filter(|name| args.names.is_empty() || args.names.contains(name))
        .collect())
}

/// Whether anybody is still there to read more.
fn print(args: &EventsArgs, line: &Line) -> Result<bool, Report> {
    let text = match args.format.format {
        Format::Json => line.json(),
        Format::Table => line.text(),
    };
    output::stream(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_come_is_waited_for() {
        for word in ["stopped", "agent", "crashed", "GUEST_PANICKED", "X_NEW2"] {
            assert!(expect_word(word).is_ok(), "{word}");
        }
        for word in ["", "shutdown", "Stopped", "a b"] {
            assert!(expect_word(word).is_err(), "{word}");
        }
    }
}
