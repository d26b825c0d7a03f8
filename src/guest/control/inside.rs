//! The verbs for the agent in the guest: its commands, one at a time, and the thaw that comes by itself.
//!
//! What the agent refuses is an answer here and no failure: its meaning depends on what the client wants. So
//! is a silence, of which the client must know whether the agent may have had the command.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mvm_qmp::{Agent, AgentError};
use serde_json::{Value, json};
use tokio::task::AbortHandle;

use super::super::state::Condition;
use super::verbs::{AGENT, gone};
use super::{Request, Shared};
use crate::error::{ExitCode, Report};

/// For a look at why a command was refused.
const WHY: Duration = Duration::from_secs(3);
/// How often a thaw is tried, and between two tries.
const THAWS: u32 = 30;
const AGAIN: Duration = Duration::from_secs(2);

/// Commands that answer only when they fail.
const WITHOUT_ANSWER: [&str; 4] = [
    "guest-shutdown",
    "guest-suspend-disk",
    "guest-suspend-ram",
    "guest-suspend-hybrid",
];

/// One command of the agent's.
pub(super) async fn agent(request: &Request, shared: &Shared) -> Result<Value, Report> {
    let agent = channel(shared)?;
    let name = shared.name();
    let held = match shared.condition() {
        Condition::Paused => Some(("is paused", "resume")),
        Condition::Suspended => Some(("sleeps", "wakeup")),
        _ => None,
    };
    if let Some((state, verb)) = held {
        return Ok(silence(
            false,
            format!("guest `{name}` {state}, and with it its agent"),
            format!("`mvm {verb} {name}` lets it go on"),
        ));
    }
    let command = request.command.as_str();
    let arguments = request.arguments.clone();
    let within = request.timeout(AGENT);
    let done = if WITHOUT_ANSWER.contains(&command) {
        let fired = agent.fire(command, arguments, within).await;
        fired.map(|()| json!({}))
    } else {
        agent.call(command, arguments, within).await
    };
    match done {
        Ok(value) => Ok(json!({ "return": value })),
        Err(AgentError::Command { class, desc, .. }) => {
            let hints = why_refused(&agent, command, &class, &name).await;
            Ok(json!({ "refused": { "class": class, "desc": desc, "hints": hints } }))
        }
        Err(error @ AgentError::Silent { .. }) => {
            let wait = format!("`mvm wait {name} --for agent` waits for it");
            let hint = format!("is qemu-guest-agent running in the guest? {wait}");
            Ok(silence(false, error.to_string(), hint))
        }
        Err(error @ AgentError::Timeout { .. }) => Ok(silence(
            true,
            error.to_string(),
            "it may still do it; `--timeout` gives it longer".to_owned(),
        )),
        Err(error) if error.is_closed() => Err(gone(&name)),
        Err(error) => Err(Report::new(ExitCode::Failed, error.to_string())),
    }
}

fn channel(shared: &Shared) -> Result<Agent, Report> {
    shared.links()?.agent.clone().ok_or_else(|| {
        Report::new(
            ExitCode::Failed,
            format!("guest `{}` has no agent channel", shared.name()),
        )
        .hint("let its profile have one: `agent.enabled = true`")
    })
}

/// Nothing came back. `sent`: the agent may have had the command.
fn silence(sent: bool, message: String, hint: String) -> Value {
    json!({ "silent": { "sent": sent, "message": message, "hints": [hint] } })
}

/// The agent takes next to no command while file systems are frozen, and none that its administrator
/// has switched off; it says the same of both.
async fn why_refused(agent: &Agent, command: &str, class: &str, name: &str) -> Vec<String> {
    if class != "CommandNotFound" {
        return Vec::new();
    }
    let frozen = agent.call("guest-fsfreeze-status", None, WHY).await;
    if frozen.is_ok_and(|state| state == "frozen") {
        return vec![format!(
            "its file systems are frozen: `mvm fsfreeze {name} thaw`"
        )];
    }
    let known = agent.call("guest-info", None, WHY).await;
    let known = known.unwrap_or_default();
    let mut commands = known["supported_commands"].as_array().into_iter().flatten();
    if commands.any(|entry| entry["name"] == command) {
        return vec![format!(
            "the guest's administrator has switched `{command}` off: see `block-rpcs` and `allow-rpcs` in its \
             /etc/qemu/qemu-ga.conf, /etc/sysconfig/qemu-ga or the service's command line"
        )];
    }
    vec![format!(
        "the guest's agent (version {}) has no `{command}`",
        known["version"].as_str().unwrap_or("unknown")
    )]
}

/// The thaw that comes by itself, if one is to come.
#[derive(Debug, Default)]
pub(crate) struct Thaw(Mutex<Option<AbortHandle>>);

impl Thaw {
    /// Whatever was to come no longer does.
    fn set(&self, task: Option<AbortHandle>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = std::mem::replace(&mut *held, task) {
            old.abort();
        }
    }
}

/// The guest's file systems are thawed after `timeout-ms` unless this is asked for anew before; without a time
/// they are not.
pub(super) fn thaw_after(request: &Request, shared: &Shared) -> Result<Value, Report> {
    let agent = channel(shared)?;
    let Some(_) = request.timeout_ms else {
        shared.thaw.set(None);
        return Ok(json!({}));
    };
    let after = request.timeout(Duration::ZERO);
    let task = tokio::spawn(async move {
        tokio::time::sleep(after).await;
        for _ in 0..THAWS {
            match agent.call("guest-fsfreeze-thaw", None, AGENT).await {
                Ok(count) => {
                    tracing::warn!(
                        "file systems were still frozen after {after:.0?}: {count} thawed"
                    );
                    return;
                }
                Err(error) => tracing::warn!(%error, "the file systems cannot be thawed"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    });
    shared.thaw.set(Some(task.abort_handle()));
    Ok(json!({}))
}
