//! `mvm set-time`

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::inside::AgentLink;
use super::output::{self, Format, FormatArg, human_duration};
use super::{Context, Failure, block_on};
use crate::guest::inside::clock::{self, Set};

/// Set a guest's clock, through its agent
///
/// To this host's time unless another is given. Success means that the guest shows it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm set-time web
  mvm set-time web 2026-11-28T20:15:00Z
  mvm set-time web @1700000000")]
pub(super) struct SetTimeArgs {
    /// The guest
    name: String,
    /// The time: `2026-11-28T20:15:00Z`, with a zone `+01:00`, or seconds since 1970 behind @
    #[arg(value_parser = read)]
    time: Option<i64>,
    #[command(flatten)]
    format: FormatArg,
}

fn read(text: &str) -> Result<i64, String> {
    clock::read(text)
        .ok_or_else(|| "expected a time as 2026-11-28T20:15:00Z or @1700000000".to_owned())
}

pub(super) fn run(args: &SetTimeArgs, context: &Context) -> Result<(), Failure> {
    block_on(async {
        let mut link = AgentLink::find(context, &args.name)?;
        let set = clock::set(&mut link, args.time).await?;
        if let Some(but) = &set.but {
            output::note(&format!(
                "the clock is set; its hardware clock is not: {but}"
            ));
        }
        match args.format.format {
            Format::Json => output::print_json(&json!({
                "name": args.name,
                "time": clock::write(set.now),
                "time-ns": set.now,
                "was-ahead-ns": set.was_ahead,
                "hardware-clock": set.but.is_none(),
            }))?,
            Format::Table => {
                output::print(&format!("{} ({})\n", clock::write(set.now), was(&set)))?;
            }
        }
        Ok(())
    })
}

/// How wrong it was, to the tenth of a second.
fn was(set: &Set) -> String {
    let off = Duration::from_nanos(set.was_ahead.unsigned_abs());
    let span = match off.as_secs() {
        0..60 => format!("{:.1}s", off.as_secs_f64()),
        _ => human_duration(off),
    };
    match set.was_ahead {
        _ if off < Duration::from_millis(50) => "it was right".to_owned(),
        0.. => format!("it was {span} ahead"),
        _ => format!("it was {span} behind"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_wrong_it_was_is_told() {
        let was = |was_ahead| {
            was(&Set {
                was_ahead,
                now: 0,
                but: None,
            })
        };
        assert_eq!(was(1_250_000_000), "it was 1.2s ahead");
        assert_eq!(was(-7_500_000_000_000), "it was 2h 5m behind");
        assert_eq!(was(-1000), "it was right");
        assert_eq!(was(i64::MIN), "it was 106751d 23h behind");
    }
}
