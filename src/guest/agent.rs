//! Whether the guest agent answers.
//!
//! QEMU tells when something in the guest opens the agent's port (`VSERPORT_CHANGE`); until then nothing
//! is sent. From then on it is asked, at growing intervals, until it answers.

use std::path::Path;
use std::time::Duration;

use mvm_qmp::{Agent, Events};
use tokio::sync::mpsc;

use super::lifecycle::Input;

/// How long one question may take.
const PING: Duration = Duration::from_secs(3);
/// The first wait between two questions, doubled each time.
const FIRST: Duration = Duration::from_millis(250);
/// The longest.
const LAST: Duration = Duration::from_secs(30);

/// Connects to the agent's channel. That it works says nothing about the guest.
pub(crate) async fn connect(path: &Path) -> Option<Agent> {
    match Agent::connect(path, Duration::from_secs(5)).await {
        Ok(agent) => Some(agent),
        Err(error) => {
            tracing::warn!(%error, "no agent channel");
            None
        }
    }
}

/// Watches the agent until QEMU is gone. `ask` starts with a question: the port of a guest that
/// is adopted, or goes on from an image, may be open already.
pub(crate) async fn watch(
    agent: Agent,
    mut events: Events,
    inputs: mpsc::Sender<Input>,
    mut ask: bool,
) {
    let mut pause = FIRST;
    loop {
        if ask {
            tokio::select! {
                biased;
                event = events.next() => {
                    let Some(event) = event else { return };
                    if let Some(open) = port_change(&event) {
                        ask = open;
                        pause = FIRST;
                    }
                }
                answers = ping_after(&agent, pause) => {
                    if answers {
                        ask = false;
                        if inputs.send(Input::Agent(true)).await.is_err() {
                            return;
                        }
                    } else {
                        pause = (pause * 2).min(LAST);
                    }
                }
            }
        } else {
            let Some(event) = events.next().await else {
                return;
            };
            if let Some(open) = port_change(&event) {
                ask = open;
                pause = FIRST;
                if !open && inputs.send(Input::Agent(false)).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn ping_after(agent: &Agent, pause: Duration) -> bool {
    tokio::time::sleep(pause).await;
    agent.ping(PING).await.is_ok()
}

/// Whether the agent's port was opened or closed. Its device is called `agent` in what mvm builds;
/// another name is taken for it too, since a needless question does no harm, but not a needless doubt.
fn port_change(event: &mvm_qmp::Event) -> Option<bool> {
    match event.name.as_str() {
        // QEMU may hold back for a second that this closed the port.
        "RESET" => return Some(false),
        "VSERPORT_CHANGE" => {}
        _ => return None,
    }
    let open = event.data.get("open")?.as_bool()?;
    let id = event.data.get("id")?.as_str()?;
    (open || id.contains("agent")).then_some(open)
}
