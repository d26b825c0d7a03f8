//! `mvm agent`

use clap::Args;
use serde_json::Value;

use super::inside::AgentLink;
use super::{Context, Failure, block_on, output, qmp};
use crate::error::{Report, did_you_mean};
use crate::guest::inside::{CallError, Inside as _};
use crate::units::Span;

/// Call a command of a guest's agent
///
/// For what has no verb of its own. Arguments are `key=value`, where a value that is JSON is taken as such
/// and anything else as text, or one JSON object. What the agent returns is printed as JSON. Without a
/// command, those that the agent has are listed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm agent web guest-get-vcpus
  mvm agent web guest-fstrim minimum=1048576
  mvm agent web guest-set-vcpus '{\"vcpus\": [{\"logical-id\": 1, \"online\": false}]}'
  mvm agent web")]
pub(super) struct AgentArgs {
    /// The guest
    name: String,
    /// The command, as in `guest-get-vcpus`
    command: Option<String>,
    /// Its arguments
    #[arg(value_name = "KEY=VALUE|JSON")]
    arguments: Vec<String>,
    /// How long the agent may take to answer
    #[arg(long, default_value = "30s", value_name = "SPAN")]
    timeout: Span,
}

pub(super) fn run(args: &AgentArgs, context: &Context) -> Result<(), Failure> {
    let arguments = qmp::arguments(&args.arguments)?.unwrap_or_default();
    block_on(async {
        let mut link = AgentLink::find(context, &args.name)?;
        let within = args.timeout.duration();
        let Some(command) = &args.command else {
            let info = link.call("guest-info", Value::Null, within).await?;
            for name in commands(&info) {
                output::print(&format!("{name}\n"))?;
            }
            return Ok(());
        };
        match link.call(command, arguments, within).await {
            Ok(value) => Ok(output::print_json(&value)?),
            Err(error) => Err(unknown(&mut link, command, error, args).await.into()),
        }
    })
}

/// The commands that can be called just now, sorted.
fn commands(info: &Value) -> Vec<&str> {
    let all = info["supported_commands"].as_array().into_iter().flatten();
    let usable = all.filter(|entry| entry["enabled"] == true);
    let mut names: Vec<&str> = usable.filter_map(|entry| entry["name"].as_str()).collect();
    names.sort_unstable();
    names
}

/// The error, and where the agent knows no such command, the one that was meant.
async fn unknown(
    link: &mut AgentLink,
    command: &str,
    error: CallError,
    args: &AgentArgs,
) -> Report {
    let near = if error.is_unknown_command() {
        let within = args.timeout.duration();
        let info = link.call("guest-info", Value::Null, within).await;
        let info = info.unwrap_or_default();
        did_you_mean(command, commands(&info)).map(str::to_owned)
    } else {
        None
    };
    let report = Report::from(error);
    match near {
        Some(near) => report.hint(format!("did you mean `{near}`?")),
        None => report,
    }
}
