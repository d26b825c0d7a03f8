//! Sleep and waking. What QEMU's events say is done; an agent that was asked proves nothing.

use std::sync::Arc;
use std::time::Duration;

use mvm_qmp::{Agent, AgentError, Events, QmpError};
use serde_json::{Value, json};
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

use super::super::lifecycle::Input;
use super::super::state::{Condition, Ended, Reason};
use super::verbs::{AGENT, END, SOON, ended, gone, pause, qmp_failed, reached, stop};
use super::{Progress, Request, Shared, parking, save};
use crate::error::{ExitCode, Report};
use crate::profile::WAKES_ONCE;
use crate::profile::schema::{HostSleep, Sleep};

/// For a guest to heed its sleep key: one that has nobody for it does not say so.
const KEY: Duration = Duration::from_secs(30);
/// For a guest to be woken.
const WAKE: Duration = Duration::from_secs(30);

/// For an agent to answer that did not so far: in a guest that has just woken it is about to.
const ANSWER: Duration = Duration::from_secs(10);

/// Why a guest is not asleep.
pub(super) enum Awake {
    /// It is not able to, and nothing was changed: something else may be tried.
    Unable { why: String, hint: Option<String> },
    /// It failed, or nobody knows how it is.
    Failed(Report),
}

impl From<Report> for Awake {
    fn from(report: Report) -> Self {
        Self::Failed(report)
    }
}

pub(super) fn unable(why: impl Into<String>, hint: impl Into<Option<String>>) -> Awake {
    Awake::Unable {
        why: why.into(),
        hint: hint.into(),
    }
}

/// Puts the guest to sleep as its profile says: the first way that it is able to.
pub(super) async fn suspend(
    request: &Request,
    shared: &mut Shared,
    out: &Progress,
) -> Result<Value, Report> {
    let _one = one_at_a_time(shared)?;
    if shared.condition() == Condition::Suspended {
        return Ok(json!({ "state": Condition::Suspended }));
    }
    runs(shared, "suspended")?;
    let power = &shared.sleeper.power;
    let ways = power.suspend.clone();
    let (ram, disk) = (power.suspend_timeout, power.hibernate_timeout);
    let mut reasons: Vec<String> = Vec::new();
    let mut hints = Vec::new();
    for way in ways {
        let done = match way {
            Sleep::Ram => to_ram(shared, out, request.timeout(ram.duration())).await,
            Sleep::Disk => to_disk(shared, out, request.timeout(disk.duration())).await,
            Sleep::Save => {
                save::to_file(shared, out, request.timeout(disk.duration()), false).await
            }
            Sleep::Pause => hold_instead(shared).await,
        };
        match done {
            Ok(mut value) => {
                if !reasons.is_empty() {
                    let state = value["state"].as_str().unwrap_or_default();
                    value["note"] = json!(format!("{state} instead: {}", reasons.join("; ")));
                }
                return Ok(value);
            }
            Err(Awake::Failed(report)) => return Err(report),
            Err(Awake::Unable { why, hint }) => {
                reasons.push(format!("{}: {why}", in_words(way)));
                hints.extend(hint);
            }
        }
    }
    let name = shared.name();
    let mut report = Report::new(
        ExitCode::Failed,
        format!("guest `{name}` cannot be suspended: {}", reasons.join("; ")),
    );
    hints.dedup();
    report.hints = hints;
    Err(report.hint(
        "`power.suspend` in its profile says what else may be tried, as in `[\"ram\", \"pause\"]`",
    ))
}

/// Does what the profile says for the host's sleep, which `for` names: `suspend` or `hibernate`.
pub(super) async fn with_host(
    request: &Request,
    shared: &mut Shared,
    out: &Progress,
) -> Result<Value, Report> {
    let host = HostSleep::ALL
        .iter()
        .find(|word| word.as_str() == request.r#for);
    match (shared.sleeper.power.host_sleep, host) {
        (HostSleep::None, _) => Ok(json!({ "state": shared.condition() })),
        (HostSleep::Suspend, _) | (HostSleep::Same, Some(HostSleep::Suspend)) => {
            suspend(request, shared, out).await
        }
        (HostSleep::Hibernate, _) | (HostSleep::Same, Some(HostSleep::Hibernate)) => {
            hibernate(request, shared, out).await
        }
        (HostSleep::Pause, _) => pause(shared).await,
        (HostSleep::Shutdown, _) => stop(request, shared, out).await,
        (HostSleep::Same, _) => Err(Report::new(
            ExitCode::Usage,
            format!("a host does not sleep by `{}`", request.r#for),
        )),
    }
}

/// Lets the guest hibernate.
pub(super) async fn hibernate(
    request: &Request,
    shared: &mut Shared,
    out: &Progress,
) -> Result<Value, Report> {
    let _one = one_at_a_time(shared)?;
    runs(shared, "hibernated")?;
    let limit = request.timeout(shared.sleeper.power.hibernate_timeout.duration());
    match to_disk(shared, out, limit).await {
        Ok(value) => Ok(value),
        Err(Awake::Failed(report)) => Err(report),
        Err(Awake::Unable { why, hint }) => {
            let mut report = Report::new(
                ExitCode::Failed,
                format!("guest `{}` cannot hibernate: {why}", shared.name()),
            );
            report.hints.extend(hint);
            Err(report)
        }
    }
}

/// Wakes the guest; one that is awake is left as it is.
pub(super) async fn wakeup(shared: &mut Shared) -> Result<Value, Report> {
    let _one = one_at_a_time(shared)?;
    let name = shared.name();
    match shared.condition() {
        Condition::Suspended => {}
        // What did not come back before may come now.
        Condition::Running => return awake(shared, Condition::Running).await,
        Condition::Paused if shared.view.borrow().state.held => {
            shared.qmp("cont").await?;
            return reached(shared, Condition::Running).await;
        }
        other => {
            let report = Report::new(
                ExitCode::Failed,
                format!("guest `{name}` is {other} and does not sleep"),
            );
            return Err(match other {
                Condition::Paused => report.hint(format!("`mvm resume {name}` lets it go on")),
                _ => report,
            });
        }
    }
    let before = shared.view.borrow().state.wakeups;
    shared.parking.ready().await;
    shared.qmp("system_wakeup").await?;
    let woken = shared
        .see(WAKE, |view| {
            view.ended.is_some() || view.state.wakeups != before
        })
        .await;
    match woken {
        Some(view) if view.ended.is_some() => Err(gone(&name)),
        Some(view) => awake(shared, view.state.state).await,
        None => Err(Report::new(
            ExitCode::Failed,
            format!("guest `{name}` has not woken within {} s", WAKE.as_secs()),
        )
        .hint(format!(
            "`mvm reset {name}` starts it anew, what it had open is lost then"
        ))),
    }
}

/// The guest has woken, and has again what was parked.
async fn awake(shared: &Shared, state: Condition) -> Result<Value, Report> {
    let troubles = shared.parking.back().await;
    if troubles.is_empty() {
        return Ok(json!({ "state": state }));
    }
    let name = shared.name();
    Err(Report::new(
        ExitCode::Failed,
        format!(
            "guest `{name}` is awake, and lacks what was parked: {}",
            troubles.join("; ")
        ),
    )
    .hint(format!(
        "`mvm wakeup {name}` tries again to give it its devices"
    )))
}

/// Two that put a guest to sleep and wake it at once would each see the other's events.
pub(super) fn one_at_a_time(shared: &Shared) -> Result<OwnedMutexGuard<()>, Report> {
    Arc::clone(&shared.transition)
        .try_lock_owned()
        .map_err(|_| {
            Report::new(
                ExitCode::Failed,
                format!(
                    "guest `{}` is just being put to sleep or woken by another command",
                    shared.name()
                ),
            )
            .hint("wait for that one")
        })
}

/// Only a guest whose processors run can do anything.
pub(super) fn runs(shared: &Shared, wanted: &str) -> Result<(), Report> {
    let name = shared.name();
    let report = |how: &str| {
        Report::new(
            ExitCode::Failed,
            format!("guest `{name}` is {how} and cannot be {wanted}"),
        )
    };
    match shared.condition() {
        Condition::Running => Ok(()),
        Condition::Paused => {
            Err(report("paused").hint(format!("let it go on first: `mvm resume {name}`")))
        }
        Condition::Suspended => {
            Err(report("suspended").hint(format!("wake it first: `mvm wakeup {name}`")))
        }
        Condition::Starting => Err(report("still being started")
            .hint(format!("`mvm wait {name} --for running` waits for it"))),
        other => Err(report(other.as_str())),
    }
}

fn in_words(way: Sleep) -> &'static str {
    match way {
        Sleep::Ram => "it cannot sleep",
        Sleep::Disk => "it cannot hibernate",
        Sleep::Save => "it cannot be saved",
        Sleep::Pause => "it cannot be paused",
    }
}

/// Paused in place of a sleep.
async fn hold_instead(shared: &mut Shared) -> Result<Value, Awake> {
    let held = hold(shared).await?;
    shared.tell(Input::Held).await?;
    // What wakes the guest looks at it.
    shared
        .see(SOON, |view| view.state.held || view.ended.is_some())
        .await;
    Ok(held)
}

async fn hold(shared: &mut Shared) -> Result<Value, Awake> {
    shared.qmp("stop").await?;
    Ok(reached(shared, Condition::Paused).await?)
}

/// The agent, if it answers.
async fn agent(shared: &Shared) -> Result<Option<Agent>, Report> {
    let Some(agent) = shared.links()?.agent.clone() else {
        return Ok(None);
    };
    let answers = shared.view.borrow().state.agent || agent.ping(ANSWER).await.is_ok();
    Ok(answers.then_some(agent))
}

/// What the guest did.
enum Heard {
    /// It sleeps.
    Suspended,
    /// It goes off, its memory on its disk or not.
    Leaves,
    /// The agent refused.
    Refused(AgentError),
    /// Nothing within the time.
    Nothing,
    /// QEMU is gone.
    Gone,
}

/// The guest sleeps, without the devices that its profile parks: where it does not, they come back.
async fn to_ram(shared: &mut Shared, out: &Progress, limit: Duration) -> Result<Value, Awake> {
    let wakeups = shared.view.borrow().state.wakeups;
    if let Some(why) = shared.sleeper.no_ram(wakeups) {
        return Err(unable(why, None));
    }
    if let Err(mut report) = parking::leave(shared, out).await {
        report.hints.extend(shared.parking.back().await);
        return Err(Awake::Failed(report));
    }
    let mut done = to_sleep(shared, limit).await;
    // Nothing comes back to a guest that sleeps.
    let told = if done.is_err() {
        shared.parking.back().await
    } else {
        Vec::new()
    };
    match &mut done {
        Err(Awake::Failed(report)) => report.hints.extend(told),
        Err(Awake::Unable { hint, .. }) if !told.is_empty() => {
            hint.replace(told.join("; "));
        }
        _ => {}
    }
    done
}

async fn to_sleep(shared: &mut Shared, limit: Duration) -> Result<Value, Awake> {
    let wakeups = shared.view.borrow().state.wakeups;
    let mut events = shared.links()?.qmp.subscribe();
    let agent = agent(shared).await?;
    let heard = match &agent {
        Some(agent) => listen(&mut events, agent, "guest-suspend-ram", limit).await,
        None => {
            press_sleep(shared).await?;
            hear(&mut events, limit.min(KEY)).await
        }
    };
    let name = shared.name();
    match heard {
        Heard::Suspended => {
            // It may have been woken already.
            let seen = shared
                .see(SOON, |view| {
                    view.ended.is_some()
                        || view.state.state == Condition::Suspended
                        || view.state.wakeups != wakeups
                })
                .await;
            let state = seen.map_or(Condition::Suspended, |view| view.state.state);
            Ok(match shared.sleeper.power.wakes_once {
                true => json!({ "state": state, "note": WAKES_ONCE }),
                false => json!({ "state": state }),
            })
        }
        Heard::Leaves | Heard::Gone => match end_of(shared).await? {
            end if end.reason == Reason::Hibernated => Ok(ended(&end, Condition::Stopped)),
            _ => Err(gone(&name).into()),
        },
        Heard::Refused(error) => Err(refused(&error, "sleep (`mem` in /sys/power/state)")),
        Heard::Nothing if agent.is_some() => Err(Awake::Failed(
            Report::new(
                ExitCode::Failed,
                format!(
                    "guest `{name}` took the request to sleep, and does not sleep after {limit:.0?}"
                ),
            )
            .hint("the guest's own log says what keeps it awake; `--timeout` gives it longer"),
        )),
        Heard::Nothing => Err(unable(
            format!(
                "it has no agent that answers, and did not heed its sleep key within {:.0?}",
                limit.min(KEY)
            ),
            Some("install qemu-guest-agent in the guest".to_owned()),
        )),
    }
}

async fn press_sleep(shared: &Shared) -> Result<(), Awake> {
    if !shared.sleeper.has_keys() {
        return Err(unable(
            "its agent does not answer, and it has no key for it",
            Some("install qemu-guest-agent in the guest".to_owned()),
        ));
    }
    let keys = json!({ "keys": [{ "type": "qcode", "data": "sleep" }] });
    let qmp = &shared.links()?.qmp;
    match qmp.call_within("send-key", Some(keys), SOON).await {
        Ok(_) => Ok(()),
        Err(error) => Err(qmp_failed(&shared.name(), &error).into()),
    }
}

async fn to_disk(shared: &mut Shared, out: &Progress, limit: Duration) -> Result<Value, Awake> {
    let wakeups = shared.view.borrow().state.wakeups;
    if let Some(why) = shared.sleeper.no_disk(wakeups) {
        let hint = "firmware.type = \"uefi\", or the board pc, does not have that fault";
        return Err(unable(why, (wakeups > 0).then(|| hint.to_owned())));
    }
    let Some(agent) = agent(shared).await? else {
        return Err(unable(
            "its agent does not answer, and nothing else can ask for it",
            Some("install qemu-guest-agent in the guest".to_owned()),
        ));
    };
    out.tell("the guest writes its memory to its disk").await;
    let mut events = shared.links()?.qmp.subscribe();
    shared.tell(Input::Hibernate(true)).await?;
    let heard = listen(&mut events, &agent, "guest-suspend-disk", limit).await;
    let name = shared.name();
    match heard {
        Heard::Leaves | Heard::Gone => match end_of(shared).await? {
            end if matches!(
                end.reason,
                Reason::Hibernated | Reason::HibernationRequested
            ) =>
            {
                Ok(ended(&end, Condition::Stopped))
            }
            end => Err(Awake::Failed(Report::new(
                ExitCode::Failed,
                format!(
                    "guest `{name}` has ended without being hibernated: {}",
                    end.reason.as_str()
                ),
            ))),
        },
        // A guest that sleeps instead (hybrid) is not what was asked for, and true.
        Heard::Suspended => {
            shared.tell(Input::Hibernate(false)).await?;
            Err(Awake::Failed(
                Report::new(
                    ExitCode::Failed,
                    format!("guest `{name}` sleeps with its memory kept, rather than hibernate"),
                )
                .hint(format!("`mvm wakeup {name}` wakes it")),
            ))
        }
        Heard::Refused(error) => {
            shared.tell(Input::Hibernate(false)).await?;
            Err(refused(
                &error,
                "hibernate (swap as large as its memory in use, `disk` in /sys/power/state)",
            ))
        }
        Heard::Nothing => {
            // It may still do it: then that is what its end is called.
            Err(Awake::Failed(
                Report::new(
                    ExitCode::Failed,
                    format!("guest `{name}` has not hibernated within {limit:.0?}"),
                )
                .hint("the guest's own log says what it waits for; `--timeout` gives it longer"),
            ))
        }
    }
}

fn refused(error: &AgentError, able: &str) -> Awake {
    match error {
        AgentError::Command { desc, .. } => unable(
            format!("its agent says: {desc}"),
            Some(format!("the guest's kernel must be able to {able}")),
        ),
        other => unable(other.to_string(), None),
    }
}

/// Asks the agent and listens to both, it and QEMU.
async fn listen(events: &mut Events, agent: &Agent, command: &str, limit: Duration) -> Heard {
    let asked = async {
        match agent.fire_and_listen(command, None, AGENT, limit).await {
            Err(error) => error,
            // Success has no answer: QEMU's events are it.
            Ok(()) => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        heard = hear(events, limit) => heard,
        error = asked => Heard::Refused(error),
    }
}

async fn hear(events: &mut Events, limit: Duration) -> Heard {
    let next = async {
        loop {
            match events.next().await {
                None => return Heard::Gone,
                Some(event) => match event.name.as_str() {
                    "SUSPEND" => return Heard::Suspended,
                    "SUSPEND_DISK" | "SHUTDOWN" => return Heard::Leaves,
                    _ => {}
                },
            }
        }
    };
    timeout(limit, next).await.unwrap_or(Heard::Nothing)
}

/// How it ended, once it has and all is given back.
pub(super) async fn end_of(shared: &mut Shared) -> Result<Ended, Report> {
    let name = shared.name();
    let seen = shared.see(LEAVE + END, |view| view.ended.is_some()).await;
    match seen.and_then(|view| view.ended) {
        Some(end) => Ok(end),
        None => Err(qmp_failed(&name, &QmpError::Closed)),
    }
}

/// For QEMU to flush its disks when the guest is off.
const LEAVE: Duration = Duration::from_secs(60);
