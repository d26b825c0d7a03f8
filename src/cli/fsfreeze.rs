//! `mvm fsfreeze`

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::inside::AgentLink;
use super::output::{self, Format, FormatArg};
use super::{Context, Failure, block_on};
use crate::error::{ExitCode, Report};
use crate::guest::inside::{CallError, Inside as _};
use crate::units::Span;

/// Freeze a guest's file systems for a backup, or thaw them
///
/// Frozen, they are consistent on their disks, and what writes to them waits. They stay frozen until they
/// are thawed, which everything else that its agent does waits for as well; `--thaw-after` lets the
/// guest's supervisor do it should nobody else.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm fsfreeze web freeze --thaw-after 1m
  mvm fsfreeze web status
  mvm fsfreeze web thaw")]
pub(super) struct FsfreezeArgs {
    /// The guest
    name: String,
    /// What is to be done
    #[arg(value_enum)]
    action: Action,
    /// Thaw them after that long if they are frozen still
    #[arg(long, value_name = "SPAN")]
    thaw_after: Option<Span>,
    /// Freeze only what is mounted there; can be given several times
    #[arg(long, value_name = "PATH")]
    mountpoint: Vec<String>,
    /// How long the agent may take: it runs the guest's freeze hooks
    #[arg(long, default_value = "60s", value_name = "SPAN")]
    timeout: Span,
    #[command(flatten)]
    format: FormatArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Write everything out and let nothing more be written
    Freeze,
    /// Let them go on
    Thaw,
    /// Say which of both they are
    Status,
}

pub(super) fn run(args: &FsfreezeArgs, context: &Context) -> Result<(), Failure> {
    let of_freeze = args.thaw_after.is_some() || !args.mountpoint.is_empty();
    if args.action != Action::Freeze && of_freeze {
        return Err(Failure::message(
            ExitCode::Usage,
            "--thaw-after and --mountpoint belong to `freeze`",
        ));
    }
    block_on(async {
        let mut link = AgentLink::find(context, &args.name)?;
        let (state, count) = match args.action {
            Action::Freeze => ("frozen", Some(freeze(&mut link, args).await?)),
            Action::Thaw => ("thawed", Some(thaw(&mut link, args).await?)),
            Action::Status => (status(&mut link, args).await?, None),
        };
        match (args.format.format, count) {
            (Format::Json, count) => output::print_json(&json!({
                "name": args.name,
                "state": state,
                "file-systems": count,
            }))?,
            (Format::Table, None) => output::print(&format!("{state}\n"))?,
            (Format::Table, Some(count)) => {
                let systems = if count == 1 { "system" } else { "systems" };
                output::print(&format!("{state}: {count} file {systems}\n"))?;
            }
        }
        Ok(())
    })
}

async fn freeze(link: &mut AgentLink, args: &FsfreezeArgs) -> Result<u64, Failure> {
    if status(link, args).await? == "frozen" {
        let name = &args.name;
        return Err(
            Report::new(ExitCode::Failed, format!("{name} is frozen already"))
                .hint(format!("`mvm fsfreeze {name} thaw` thaws it"))
                .into(),
        );
    }
    // First: should this command die, they are thawed all the same.
    arm(link, args.thaw_after).await?;
    let within = args.timeout.duration();
    let (command, arguments) = match args.mountpoint.as_slice() {
        [] => ("guest-fsfreeze-freeze", Value::Null),
        points => (
            "guest-fsfreeze-freeze-list",
            json!({ "mountpoints": points }),
        ),
    };
    let count = match link.call(command, arguments, within).await {
        Ok(count) => count.as_u64().unwrap_or_default(),
        Err(error) => return Err(not_frozen(link, args, error).await),
    };
    if status(link, args).await? != "frozen" {
        arm(link, None).await?;
        return Err(nothing(args));
    }
    if count == 0 {
        // Thawed again: a guest that is frozen for nothing only makes its agent useless.
        thaw(link, args).await?;
        return Err(nothing(args));
    }
    match args.thaw_after {
        Some(span) => output::note(&format!(
            "{} stays frozen until `mvm fsfreeze {} thaw`, or for {span}",
            args.name, args.name
        )),
        None => output::note(&format!(
            "{} stays frozen until `mvm fsfreeze {} thaw`",
            args.name, args.name
        )),
    }
    Ok(count)
}

fn nothing(args: &FsfreezeArgs) -> Failure {
    let name = &args.name;
    Report::new(
        ExitCode::Failed,
        format!("{name} has no file system that can be frozen"),
    )
    .hint(format!("`mvm info {name}` shows what it has mounted"))
    .into()
}

/// It failed. Where the agent just does not answer, what it still may do is not left to itself: the thaw
/// comes.
async fn not_frozen(link: &mut AgentLink, args: &FsfreezeArgs, error: CallError) -> Failure {
    let sent = matches!(error, CallError::Silent { sent: true, .. });
    if !sent {
        // The supervisor that is gone thaws nothing either.
        let _ = arm(link, None).await;
        return error.into();
    }
    let name = &args.name;
    let hint = match args.thaw_after {
        Some(span) => format!("should they be frozen yet, they are thawed {span} after the start"),
        None => format!("should they be frozen yet, they stay so until `mvm fsfreeze {name} thaw`"),
    };
    Report::from(error).hint(hint).into()
}

async fn thaw(link: &mut AgentLink, args: &FsfreezeArgs) -> Result<u64, Failure> {
    let before = status(link, args).await?;
    let within = args.timeout.duration();
    let count = link
        .call("guest-fsfreeze-thaw", Value::Null, within)
        .await?
        .as_u64()
        .unwrap_or_default();
    if status(link, args).await? != "thawed" {
        return Err(Failure::message(
            ExitCode::Failed,
            format!("{} is still frozen", args.name),
        ));
    }
    arm(link, None).await?;
    if before == "thawed" {
        output::note(&format!("{} was not frozen", args.name));
    }
    Ok(count)
}

async fn status(link: &mut AgentLink, args: &FsfreezeArgs) -> Result<&'static str, Failure> {
    let within = args.timeout.duration();
    let state = link
        .call("guest-fsfreeze-status", Value::Null, within)
        .await?;
    Ok(if state == "frozen" {
        "frozen"
    } else {
        "thawed"
    })
}

/// The thaw that comes by itself; `None`: it does not.
async fn arm(link: &mut AgentLink, after: Option<Span>) -> Result<(), Failure> {
    let mut request = json!({ "do": "thaw-after" });
    if let Some(span) = after {
        let ms = u64::try_from(span.duration().as_millis()).unwrap_or(u64::MAX);
        request["timeout-ms"] = json!(ms);
    }
    link.ask(&request, Duration::from_secs(10)).await?;
    Ok(())
}
