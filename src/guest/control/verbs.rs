//! What each verb does, and how it knows that it is done.

use std::sync::Arc;
use std::time::Duration;

use mvm_qmp::{Agent, AgentError, QmpError};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::super::goal::Goal;
use super::super::hotplug::HotplugError;
use super::super::lifecycle::Input;
use super::super::state::{Condition, Ended};
use super::{Links, Progress, Request, Shared, View, inside, save, sleep};
use crate::error::{ExitCode, Report};

/// For QEMU to do what takes it no time.
pub(super) const SOON: Duration = Duration::from_secs(5);
/// For QEMU to end after it was told to, SIGKILL included, and for the cleaning up.
pub(super) const END: Duration = Duration::from_secs(15);
/// For an agent's command.
pub(super) const AGENT: Duration = Duration::from_secs(10);
/// For a guest to let a device go.
const DETACH: Duration = Duration::from_secs(30);
/// For `wait`.
const WAIT: Duration = Duration::from_secs(300);

pub(super) async fn run(
    request: &Request,
    shared: &mut Shared,
    out: &Progress,
) -> Result<Value, Report> {
    save::leave_alone(&request.r#do, shared)?;
    match request.r#do.as_str() {
        "status" => Ok(json!(shared.view.borrow().state)),
        "stop" => stop(request, shared, out).await,
        "kill" => kill(shared).await,
        "reboot" => reboot(request, shared).await,
        "reset" => reset(shared).await,
        "pause" => pause(shared).await,
        "resume" => resume(shared).await,
        "suspend" => sleep::suspend(request, shared, out).await,
        "hibernate" => sleep::hibernate(request, shared, out).await,
        "save" => save::save(request, shared, out).await,
        "wakeup" => sleep::wakeup(shared).await,
        "sleep-with-host" => sleep::with_host(request, shared, out).await,
        "agent" => inside::agent(request, shared).await,
        "thaw-after" => inside::thaw_after(request, shared),
        "wait" => wait(request, shared).await,
        "watch" => super::follow::watch(shared, out).await,
        "attach" => attach(request, shared).await,
        "detach" => detach(request, shared).await,
        other => Err(Report::new(
            ExitCode::Usage,
            format!("the supervisor knows no `{other}`"),
        )
        .hint("it may be an older mvm than the one that asks: restart the guest to renew it")),
    }
}

impl Shared {
    pub(super) fn name(&self) -> String {
        self.view.borrow().state.name.to_string()
    }

    pub(super) fn condition(&self) -> Condition {
        self.view.borrow().state.state
    }

    /// Waits for something to be seen; `None` at the deadline.
    pub(super) async fn see(
        &mut self,
        limit: Duration,
        seen: impl FnMut(&View) -> bool,
    ) -> Option<View> {
        match timeout(limit, self.view.wait_for(seen)).await {
            Ok(Ok(view)) => return Some(view.clone()),
            Ok(Err(_)) => {}
            Err(_) => return None,
        }
        // The supervisor gave up its view: it has ended, and with it the guest.
        Some(self.view.borrow().clone())
    }

    pub(super) async fn tell(&self, input: Input) -> Result<(), Report> {
        self.inputs
            .send(input)
            .await
            .map_err(|_| gone(&self.name()))
    }

    /// The connections to QEMU; a guest that is still being started has none.
    pub(super) fn links(&self) -> Result<&Links, Report> {
        self.links.get().ok_or_else(|| {
            let name = self.name();
            if self.condition() == Condition::Restarting {
                return Report::new(
                    ExitCode::NotRunning,
                    format!("guest `{name}` has ended and is about to be started anew"),
                )
                .hint(format!("`mvm stop {name}` leaves it stopped"));
            }
            Report::new(
                ExitCode::Failed,
                format!("guest `{name}` is still being started"),
            )
            .hint(format!("`mvm wait {name} --for running` waits for it"))
        })
    }

    pub(super) async fn qmp(&self, command: &str) -> Result<Value, Report> {
        self.links()?
            .qmp
            .call_within(command, None, SOON)
            .await
            .map_err(|error| qmp_failed(&self.name(), &error))
    }
}

pub(super) fn gone(name: &str) -> Report {
    Report::new(ExitCode::NotRunning, format!("guest `{name}` has ended"))
}

pub(super) fn qmp_failed(name: &str, error: &QmpError) -> Report {
    if error.is_closed() {
        return gone(name);
    }
    Report::new(ExitCode::Failed, error.to_string())
}

pub(super) fn ended(end: &Ended, then: Condition) -> Value {
    json!({ "state": then, "reason": end.reason, "message": end.message })
}

pub(super) async fn stop(
    request: &Request,
    shared: &mut Shared,
    out: &Progress,
) -> Result<Value, Report> {
    let limit = request.timeout(shared.stop_timeout);
    let (failures, how) = {
        let view = shared.view.borrow();
        let how = match (view.state.state, view.state.agent) {
            (Condition::Starting, _) => "its start is broken off",
            (Condition::Restarting, _) => "it is not started anew",
            (Condition::Suspended, _) => "it sleeps: it is woken, then asked to shut down",
            (Condition::Paused, _) => "it is paused: it is continued and asked to shut down",
            (_, true) => "the guest agent is asked to shut it down",
            (_, false) => "its power button is pressed",
        };
        (view.stop_failures, how)
    };
    out.tell(how).await;
    shared
        .tell(Input::Stop {
            timeout: limit,
            force: request.force,
        })
        .await?;
    let seen = shared
        .see(limit + END, |view| {
            view.ended.is_some() || view.stop_failures > failures
        })
        .await;
    match seen {
        Some(View {
            ended: Some(end),
            state,
            ..
        }) => Ok(ended(&end, state.state)),
        _ => Err(still_there(shared, limit)),
    }
}

fn still_there(shared: &Shared, limit: Duration) -> Report {
    let name = shared.name();
    let agent = shared.view.borrow().state.agent;
    let report = Report::new(
        ExitCode::Failed,
        format!("guest `{name}` has not shut down within {limit:.0?} and is still running"),
    )
    .hint(format!(
        "end it without its consent: `mvm stop {name} --force`, or `mvm kill {name}`"
    ));
    if agent {
        return report;
    }
    report.hint("a guest without agent must handle its power button: install qemu-guest-agent or acpid in it")
}

async fn kill(shared: &mut Shared) -> Result<Value, Report> {
    shared.tell(Input::Kill).await?;
    match shared.see(END, |view| view.ended.is_some()).await {
        Some(View { ended: Some(end), state, .. }) => Ok(ended(&end, state.state)),
        _ => Err(Report::new(
            ExitCode::Failed,
            format!("QEMU of guest `{}` does not end, not even by SIGKILL", shared.name()),
        )
        .hint("it hangs in the kernel, mostly on a disk or a device that does not answer: see `dmesg`")),
    }
}

async fn reset(shared: &mut Shared) -> Result<Value, Report> {
    let mut events = shared.links()?.qmp.subscribe();
    shared.qmp("system_reset").await?;
    match events.wait_for("RESET", SOON).await {
        Ok(_) => Ok(was_reset(shared).await),
        Err(error) => reset_or_end(shared, &error, SOON).await,
    }
}

async fn reboot(request: &Request, shared: &mut Shared) -> Result<Value, Report> {
    let name = shared.name();
    let limit = request.timeout(shared.stop_timeout);
    let agent = ready_agent(shared)?;
    if agent.is_none() && !shared.sleeper.has_keys() {
        return Err(Report::new(
            ExitCode::Failed,
            format!(
                "guest `{name}` cannot be asked to reboot: its agent does not answer, and it has no keyboard"
            ),
        )
        .hint("install qemu-guest-agent in the guest")
        .hint(format!("reset it without its consent: `mvm reset {name}`")));
    }
    let qmp = &shared.links()?.qmp;
    let mut events = qmp.subscribe();
    match agent {
        Some(agent) => agent
            .fire("guest-shutdown", Some(json!({ "mode": "reboot" })), AGENT)
            .await
            .map_err(|error| agent_failed(&name, &error))?,
        None => {
            let keys = ["ctrl", "alt", "delete"];
            let keys = keys.map(|key| json!({ "type": "qcode", "data": key }));
            qmp.call_within("send-key", Some(json!({ "keys": keys })), SOON)
                .await
                .map_err(|error| qmp_failed(&name, &error))?;
        }
    }
    match events.wait_for("RESET", limit).await {
        Ok(_) => Ok(was_reset(shared).await),
        Err(error) => reset_or_end(shared, &error, limit).await,
    }
}

/// The supervisor has seen the reset too: who waits for the agent now waits for the new one.
async fn was_reset(shared: &mut Shared) -> Value {
    // At the deadline the reset has been seen all the same.
    let _ = shared.see(SOON, |view| !view.state.agent).await;
    json!({ "state": shared.condition() })
}

/// No reset was seen: with `-no-reboot` it is the guest's end, else it was not done.
async fn reset_or_end(
    shared: &mut Shared,
    error: &QmpError,
    limit: Duration,
) -> Result<Value, Report> {
    let name = shared.name();
    if error.is_closed() {
        return match shared.see(END, |view| view.ended.is_some()).await {
            Some(View {
                ended: Some(end),
                state,
                ..
            }) => Ok(ended(&end, state.state)),
            _ => Err(gone(&name)),
        };
    }
    Err(Report::new(
        ExitCode::Failed,
        format!("guest `{name}` has not been reset within {limit:.0?}"),
    )
    .hint(format!("reset it without its consent: `mvm reset {name}`")))
}

pub(super) async fn pause(shared: &mut Shared) -> Result<Value, Report> {
    match shared.condition() {
        Condition::Paused => return Ok(json!({ "state": Condition::Paused })),
        Condition::Suspended => {
            return Err(Report::new(
                ExitCode::Failed,
                format!(
                    "guest `{}` sleeps: there is nothing to pause",
                    shared.name()
                ),
            ));
        }
        _ => {}
    }
    shared.qmp("stop").await?;
    reached(shared, Condition::Paused).await
}

async fn resume(shared: &mut Shared) -> Result<Value, Report> {
    match shared.condition() {
        Condition::Running => return Ok(json!({ "state": Condition::Running })),
        Condition::Suspended => return sleep::wakeup(shared).await,
        _ => shared
            .qmp("cont")
            .await
            .map_err(|report| begun_anew(&shared.name(), report))?,
    };
    reached(shared, Condition::Running).await
}

/// QEMU goes on with no guest that has shut down.
fn begun_anew(name: &str, report: Report) -> Report {
    let needs = report.chain.iter().any(|text| text.contains("Resetting"));
    if needs {
        report.hint(format!(
            "it has ended: `mvm reset {name}` makes it ready to begin anew, `mvm stop {name}` ends it"
        ))
    } else {
        report
    }
}

/// Waits for the state, and tells it only when QEMU says the same.
pub(super) async fn reached(shared: &mut Shared, wanted: Condition) -> Result<Value, Report> {
    let seen = shared
        .see(SOON, |view| {
            view.ended.is_some() || view.state.state == wanted
        })
        .await;
    let name = shared.name();
    match seen {
        Some(View { ended: Some(_), .. }) => Err(gone(&name)),
        Some(_) => Ok(json!({ "state": wanted })),
        None => Err(Report::new(
            ExitCode::Failed,
            format!(
                "guest `{name}` is {}, not {wanted}, {} s after QEMU was told",
                shared.condition(),
                SOON.as_secs()
            ),
        )),
    }
}

fn ready_agent(shared: &Shared) -> Result<Option<Agent>, Report> {
    let agent = shared.links()?.agent.clone();
    Ok(agent.filter(|_| shared.view.borrow().state.agent))
}

fn agent_failed(name: &str, error: &AgentError) -> Report {
    let report = Report::new(ExitCode::Failed, error.to_string());
    match error {
        AgentError::Silent { .. } => report.hint(format!(
            "is qemu-guest-agent running in the guest? `mvm wait {name} --for agent` waits for it"
        )),
        _ => report,
    }
}

async fn attach(request: &Request, shared: &Shared) -> Result<Value, Report> {
    shared.links()?;
    let attachment = request
        .attachment
        .clone()
        .ok_or_else(|| Report::new(ExitCode::Usage, "nothing is said of what is to be attached"))?;
    to_its_end(Arc::clone(&shared.hotplug).attach(attachment)).await
}

async fn detach(request: &Request, shared: &Shared) -> Result<Value, Report> {
    shared.links()?;
    let within = request.timeout(DETACH);
    to_its_end(Arc::clone(&shared.hotplug).detach(request.id.clone(), within)).await
}

/// Waits for work that goes on when the client does not wait.
async fn to_its_end(
    work: impl Future<Output = Result<Value, HotplugError>> + Send + 'static,
) -> Result<Value, Report> {
    match tokio::spawn(work).await {
        Ok(done) => Ok(done?),
        Err(error) => Err(Report::new(
            ExitCode::Failed,
            format!("the supervisor failed: {error}"),
        )),
    }
}

async fn wait(request: &Request, shared: &mut Shared) -> Result<Value, Report> {
    let mut goals = Vec::new();
    for word in request.r#for.split(',') {
        let goal = Goal::of(word).ok_or_else(|| {
            Report::new(
                ExitCode::Usage,
                format!("a guest cannot be waited for to be `{word}`"),
            )
            .hint(format!("one of {}", Goal::words().join(", ")))
        })?;
        goals.push(goal);
    }
    let wanted = |view: &View| {
        goals
            .iter()
            .any(|goal| goal.is_met(&view.state, view.ended.is_some()))
    };
    let limit = request.timeout(WAIT);
    let name = shared.name();
    match shared
        .see(limit, |view| wanted(view) || view.ended.is_some())
        .await
    {
        Some(view) if wanted(&view) => Ok(json!(view.state)),
        Some(_) => Err(gone(&name)),
        None => Err(Report::new(
            ExitCode::Failed,
            format!(
                "guest `{name}` is {} and not `{}` after {limit:.0?}",
                shared.condition(),
                request.r#for
            ),
        )),
    }
}
