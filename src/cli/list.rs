//! `mvm list`

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde::Serialize;

use super::guests::{self, Seen};
use super::output::{self, Format, FormatArg, Table};
use super::show::{self, OfHost};
use super::{Context, Failure};
use crate::guest::asleep;

/// List the guests that run or sleep
///
/// Nothing is asked of a guest or of its supervisor, so that a stuck one delays nothing.
///
/// STATE is running, paused, suspended, starting, stopping and the like as the supervisor last wrote it;
/// `hibernated` where the guest's memory is on its disk (`mvm start` lets it go on);
/// `unsupervised` where QEMU runs and its supervisor is gone (`mvm recover` gives it a new one);
/// `crashed` where both are gone and left things behind (`mvm recover` cleans up); `stopped`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm list
  mvm list --all
  mvm list --format json | jq -r '.[] | select(.state == \"running\") | .name'")]
pub(super) struct ListArgs {
    /// Also the machine files whose guests do not run
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    format: FormatArg,
}

/// A line of the list; a contract with scripts.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    state: &'static str,
    /// QEMU's.
    pid: Option<u32>,
    profile: Option<String>,
    /// Seconds since 1970, when it came into this state.
    since: Option<u64>,
    /// The devices of the host that it has.
    devices: Vec<OfHost>,
}

impl From<Seen> for Row {
    fn from(seen: Seen) -> Self {
        Self {
            name: seen.name.to_string(),
            state: seen.state_name(),
            pid: seen.pid(),
            devices: show::plan(&seen).map_or_else(Vec::new, |plan| show::of_host(&plan.machine)),
            since: seen.state.as_ref().map(|state| state.since),
            profile: seen.state.map(|state| state.profile),
        }
    }
}

pub(super) fn run(args: &ListArgs, context: &Context) -> Result<(), Failure> {
    let mut rows: Vec<Row> = guests::all(&context.dirs)?
        .into_iter()
        .map(Row::from)
        .collect();
    for (name, asleep) in asleep::list(&context.dirs) {
        if !rows.iter().any(|row| row.name == name.as_str()) {
            rows.push(Row {
                name: name.to_string(),
                state: asleep.kind.as_str(),
                pid: None,
                profile: Some(asleep.machine.profile),
                since: Some(asleep.at),
                devices: Vec::new(),
            });
        }
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    if args.all {
        for name in guests::machines(&context.dirs)? {
            if !rows.iter().any(|row| row.name == name) {
                rows.push(Row {
                    profile: Some(name.clone()),
                    name,
                    state: "stopped",
                    pid: None,
                    since: None,
                    devices: Vec::new(),
                });
            }
        }
        rows.sort_by(|a, b| a.name.cmp(&b.name));
    }
    if args.format.format == Format::Json {
        output::print_json(&rows)?;
        return Ok(());
    }
    let mut table = Table::new(&["NAME", "STATE", "PID", "PROFILE", "SINCE"]);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    for row in rows {
        let dash = || "-".to_owned();
        table.row([
            row.name,
            row.state.to_owned(),
            row.pid.map_or_else(dash, |pid| pid.to_string()),
            row.profile.unwrap_or_else(dash),
            row.since.map_or_else(dash, |since| {
                output::human_duration(now.saturating_sub(Duration::from_secs(since)))
            }),
        ]);
    }
    table.print()?;
    Ok(())
}
