//! `mvm autostart`

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::guests::{self, Life};
use super::output::{self, Format, FormatArg, Table};
use super::{Context, Failure, start, unit};
use crate::profile::schema::AutostartTable;
use crate::profile::{self, Choices};
use crate::units::Span;

/// The order of a guest whose machine file names none.
pub(super) const ORDER: u32 = 100;

/// Start the guests that start with the host
///
/// Those whose machine file has `[autostart]`: lower `order` first, each after its `delay`. One that does not
/// start is told, and the next ones are started all the same; one that runs is left alone. What calls this when the
/// host has started is `mvm unit --autostart`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm autostart
  mvm autostart --dry-run")]
pub(super) struct AutostartArgs {
    /// Print which guests are started, in which order, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// How long each guest may take until QEMU runs
    #[arg(long, default_value = "180s", value_name = "SPAN")]
    timeout: Span,
    #[command(flatten)]
    format: FormatArg,
}

/// A guest that starts with the host; a contract with scripts.
#[derive(Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    order: u32,
    name: String,
    /// In milliseconds.
    delay: u64,
    /// Whether it runs now.
    running: bool,
}

pub(super) fn run(args: &AutostartArgs, context: &Context) -> Result<(), Failure> {
    let (rows, mut failures) = rows(context)?;
    if args.dry_run {
        show(&rows, args.format.format)?;
        return Failure::collect(failures);
    }
    let mut started: Vec<Value> = Vec::new();
    for row in rows.iter().filter(|row| !row.running) {
        std::thread::sleep(Duration::from_millis(row.delay));
        match start::plainly(&row.name, context, args.timeout) {
            Ok(state) => started.push(state),
            Err(failure) => failures.push(failure),
        }
    }
    match args.format.format {
        Format::Json => output::print_json(&started)?,
        Format::Table => {
            for state in &started {
                let name = state["name"].as_str().unwrap_or_default();
                output::print(&format!("{name}\n"))?;
            }
        }
    }
    Failure::collect(failures)
}

/// The guests in their order, and what is wrong with machine files: one does not keep the others.
fn rows(context: &Context) -> Result<(Vec<Row>, Vec<Failure>), Failure> {
    let running = guests::all(&context.dirs)?;
    let mut rows = Vec::new();
    let mut failures = Vec::new();
    for name in guests::machines(&context.dirs)? {
        let table = match profile::load(&context.dirs, &name, &Choices::default()) {
            Ok(loaded) if unit::autostarts(&loaded.layer) => loaded.layer.autostart,
            Ok(_) => continue,
            Err(error) => {
                failures.push(error.into());
                continue;
            }
        };
        let table = table.unwrap_or_default();
        // One without supervisor is started, which gives it one.
        let runs =
            |seen: &guests::Seen| seen.name.as_str() == name && seen.life == Life::Supervised;
        rows.push(Row {
            order: order(&table),
            delay: table
                .delay
                .map_or(0, |span| span.duration().as_millis() as u64),
            running: running.iter().any(runs),
            name,
        });
    }
    rows.sort();
    Ok((rows, failures))
}

fn order(table: &AutostartTable) -> u32 {
    table.order.unwrap_or(ORDER)
}

/// The order of a guest that runs, as its machine file has it now.
pub(super) fn order_of(context: &Context, name: &str) -> u32 {
    let loaded = profile::load(&context.dirs, name, &Choices::default());
    let table = loaded.ok().and_then(|loaded| loaded.layer.autostart);
    table.map_or(ORDER, |table| order(&table))
}

fn show(rows: &[Row], format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        output::print_json(&rows)?;
        return Ok(());
    }
    let mut table = Table::new(&["ORDER", "NAME", "DELAY", "STATE"]);
    for row in rows {
        table.row([
            row.order.to_string(),
            row.name.clone(),
            if row.delay == 0 {
                "-".to_owned()
            } else {
                format!("{} ms", row.delay)
            },
            if row.running { "runs" } else { "stopped" }.to_owned(),
        ]);
    }
    table.print()?;
    Ok(())
}
