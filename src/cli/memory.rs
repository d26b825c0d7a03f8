//! `mvm memory`

use std::time::{Duration, Instant};

use clap::Args;
use mvm_qmp::{Qmp, QmpError};
use serde_json::json;

use super::output::{self, Format, FormatArg};
use super::{Context, Failure, block_on, monitor};
use crate::error::{ExitCode, Report};
use crate::units::{Size, Span};

/// Change how much of its memory a guest may use
///
/// The balloon in the guest takes memory away or gives it back, up to what the guest was started with.
/// Success means that the guest has done it. Without a size, what it has is printed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm memory web
  mvm memory web 512M
  mvm memory web 2G --timeout 2m")]
pub(super) struct MemoryArgs {
    /// The guest
    name: String,
    /// What it may use
    size: Option<Size>,
    /// How long the guest may take
    #[arg(long, default_value = "30s", value_name = "SPAN")]
    timeout: Span,
    #[command(flatten)]
    format: FormatArg,
}

/// How long one QMP call may take.
const CALL: Duration = Duration::from_secs(10);
/// How often the guest is looked at.
const EVERY: Duration = Duration::from_millis(100);

pub(super) fn run(args: &MemoryArgs, context: &Context) -> Result<(), Failure> {
    block_on(async {
        let (qmp, _events) = monitor::connect(&args.name, context, CALL).await?;
        let before = actual(&qmp, args).await?;
        let now = match args.size {
            Some(size) => change(&qmp, args, size, before).await?,
            None => before,
        };
        match args.format.format {
            Format::Json => {
                output::print_json(&json!({ "name": args.name, "actual": now.as_bytes() }))?;
            }
            Format::Table => output::print(&format!("{now}\n"))?,
        }
        Ok(())
    })
}

/// What the guest has now, by QEMU's count.
async fn actual(qmp: &Qmp, args: &MemoryArgs) -> Result<Size, Failure> {
    let answer = qmp.call("query-balloon", None).await;
    let error = match answer {
        Ok(value) => {
            return value["actual"].as_u64().map(Size::bytes).ok_or_else(|| {
                Failure::message(ExitCode::Failed, "QEMU did not tell the balloon's size")
            });
        }
        Err(error) => error,
    };
    let report = monitor::report(&error);
    Err(match error.class() {
        Some("DeviceNotActive") => {
            Report::new(ExitCode::Failed, format!("{} has no balloon", args.name))
                .hint("set `balloon.enabled = true` in its profile, and start it again")
        }
        Some("KVMMissingCap") => report.hint("the host's kernel cannot take memory from a guest"),
        _ => report,
    }
    .into())
}

async fn change(qmp: &Qmp, args: &MemoryArgs, size: Size, before: Size) -> Result<Size, Failure> {
    let most = qmp
        .call("query-memory-size-summary", None)
        .await
        .map_err(monitor::failure)?["base-memory"]
        .as_u64();
    if let Some(most) = most.filter(|most| size.as_bytes() > *most) {
        return Err(Report::new(
            ExitCode::Usage,
            format!(
                "{} was started with {} and cannot have {size}",
                args.name,
                Size::bytes(most)
            ),
        )
        .hint("`memory.size` in its profile says how much it starts with")
        .into());
    }
    // Below this Linux kills processes and hangs; QEMU itself takes any number.
    let least = Size::mib(16);
    if size < least {
        return Err(Failure::message(
            ExitCode::Usage,
            format!("no guest lives with less than {least}"),
        ));
    }
    // QEMU answers at once, whether or not anything in the guest listens.
    qmp.call("balloon", Some(json!({ "value": size.as_bytes() })))
        .await
        .map_err(monitor::failure)?;
    let deadline = Instant::now() + args.timeout.duration();
    let mut now = before;
    while Instant::now() < deadline {
        now = actual(qmp, args).await?;
        // The balloon counts in pages of 4 KiB.
        if now.as_bytes().abs_diff(size.as_bytes()) < 4096 {
            return Ok(now);
        }
        tokio::time::sleep(EVERY).await;
    }
    Err(not_reached(qmp, args, size, before, now).await.into())
}

async fn not_reached(qmp: &Qmp, args: &MemoryArgs, size: Size, before: Size, now: Size) -> Report {
    if now == before {
        // A driver that came later would act on a wish that nobody has any more.
        let back: Result<_, QmpError> = qmp
            .call("balloon", Some(json!({ "value": before.as_bytes() })))
            .await;
        if let Err(error) = back {
            tracing::warn!("the balloon's target stays at {size}: {error}");
        }
        let held = qmp.call("query-status", None).await;
        if held.is_ok_and(|status| status["running"] == false) {
            return Report::new(
                ExitCode::Failed,
                format!("{} still has {now}: its processors are held", args.name),
            )
            .hint(format!("`mvm resume {}` lets it go on", args.name));
        }
        return Report::new(
            ExitCode::Failed,
            format!(
                "{} still has {now} after {}: nothing in the guest drives the balloon",
                args.name, args.timeout
            ),
        )
        .hint(
            "the guest needs its virtio_balloon driver, and to have booted; `mvm console` shows",
        );
    }
    Report::new(
        ExitCode::Failed,
        format!(
            "{} came from {before} to {now} within {}, and not to {size}",
            args.name, args.timeout
        ),
    )
    .hint("the guest may still be at it, or need the memory itself; `--timeout` gives it longer")
}
