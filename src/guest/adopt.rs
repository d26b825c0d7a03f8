//! A QEMU whose supervisor died gets a new one.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, UNIX_EPOCH};

use mvm_qmp::Qmp;
use nix::sys::signal::Signal;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::asleep::Kind;
use super::claim::{self, Claim};
use super::connect::{Connected, Sockets, Wanted, Way, connect};
use super::end::End;
use super::error::StartError;
use super::lifecycle::{Input, News};
use super::lives::Over;
use super::process::{Process, start_ticks};
use super::restart::{Next, Past};
use super::signals::Signals;
use super::sleeper::Sleeper;
use super::start::OnReady;
use super::state::{self, Condition, GuestState};
use super::supervise::{Begin, supervise};
use super::{RunDir, asleep, holders, recover};
use crate::dirs::Dirs;
use crate::machine::Lifecycle;
use crate::ops::lock;
use crate::plan::Plan;
use crate::plan::journal;
use crate::profile::schema::{HookWhen, OnPoweroff};

/// For QEMU's monitor to take a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// For QEMU to be gone after SIGKILL.
const GONE: Duration = Duration::from_secs(5);

/// What became of it.
pub(crate) enum Adopted {
    /// It was supervised to its end.
    Over(Box<Over>),
    /// Its start had not been finished, or it ended meanwhile: all is taken back.
    Unfinished(OnReady),
}

/// Adopts the QEMU of a claimed guest.
///
/// # Errors
/// What is known about it cannot be read, or it does not answer. It is left as it is then.
pub(crate) async fn orphan(
    dirs: &Dirs,
    run: &RunDir,
    claim: Claim,
    on_ready: OnReady,
    follows: impl FnOnce(&Lifecycle, Past) -> Next,
) -> Result<Adopted, StartError> {
    let known: Option<GuestState> =
        state::read(&run.state()).map_err(StartError::io("read", &run.state()))?;
    let plan: Option<Plan> =
        state::read(&run.plan()).map_err(StartError::io("read", &run.plan()))?;
    // As it was before devices came and went.
    let first: Option<Plan> = state::read(&run.first_plan()).unwrap_or_else(|error| {
        tracing::warn!(%error, "the plan that it was started with cannot be read");
        None
    });
    let (Some(state), Some(plan)) = (known, plan) else {
        // Its supervisor died between QEMU's start and the first line about it.
        return unfinished(run, None, claim, on_ready).await;
    };
    let monitor = timeout(CONNECT, mvm_qmp::connect(&run.monitor()))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let monitor = match monitor {
        // It ends just now.
        Err(error) if is_gone(error.kind()) => return ended(run, claim, on_ready),
        monitor => monitor.map_err(StartError::io("connect to", &run.monitor()))?,
    };
    let pid = qemu_pid(run, &state, &monitor)
        .ok_or_else(|| StartError::NothingToAdopt(run.name().to_string()))?;
    let wanted = Wanted::of(&plan.machine);
    let process = Process::adopt(pid).map_err(StartError::Setup)?;
    // A paused guest that is reset says `prelaunch` again.
    let had_run = matches!(
        state.state,
        Condition::Running | Condition::Paused | Condition::Suspended
    );
    let way = match held(run, &state) {
        Held::No => Way::Adopt(monitor),
        Held::ToBeLetGo { ran } => Way::LetGo(monitor, ran),
        // Nothing of it has run since: the image is what counts.
        Held::ToBeLoaded => return unfinished(run, Some(process), claim, on_ready).await,
    };
    let connected = match connect(run, &wanted, pid, way).await {
        Ok(connected) if connected.started() => connected,
        Ok(connected) if had_run => Connected {
            first: vec![Input::Ready, Input::Qemu(News::Stopped)],
            ..connected
        },
        // Its processors were never let go: nothing of the guest has run.
        Ok(_) => {
            return unfinished(run, Some(process), claim, on_ready).await;
        }
        Err(_) if state.state == Condition::Starting => {
            return unfinished(run, Some(process), claim, on_ready).await;
        }
        Err(error) if error.is_closed() => return ended(run, claim, on_ready),
        Err(error) => {
            return Err(StartError::io("talk QMP on", &run.monitor())(
                io::Error::other(error),
            ));
        }
    };
    let undo = journal::read(&run.journal())?;
    let began = state.started;
    let sockets = Sockets::new(run, &wanted, &mut std::collections::BTreeMap::new())?;
    let (done, arriving) = oneshot::channel();
    drop(done.send(Ok(connected)));
    let begin = Begin {
        dirs: dirs.clone(),
        run: run.clone(),
        state: GuestState {
            supervisor: std::process::id(),
            pid: Some(pid),
            qemu_start_ticks: start_ticks(pid),
            agent: false,
            message: None,
            lost: Vec::new(),
            saving: None,
            ..state
        },
        process,
        started: plan.machine.hooks_at(HookWhen::Started),
        sidecars: plan.machine.sidecars(),
        sockets,
        connected: arriving,
        stop_timeout: plan.machine.stop_timeout.duration(),
        sleeper: Sleeper::of(&plan.machine),
        keeps: plan.machine.lifecycle.on_poweroff == OnPoweroff::Preserve,
        on_ready,
    };
    let log_from = std::fs::metadata(run.qemu_log()).map_or(0, |meta| meta.size());
    let started = UNIX_EPOCH + Duration::from_secs(began);
    let plan = first.unwrap_or(plan);
    // Not earlier: until it is supervised, a signal ends this attempt and not the guest.
    let signals = Signals::new().map_err(StartError::Setup)?;
    let outcome = supervise(begin, signals).await;
    let end = End {
        undo,
        lock: None,
        log_from,
    };
    let ran = started.elapsed().unwrap_or_default();
    let next = follows(&plan.machine.lifecycle, outcome.past(ran));
    let gone = end.of(dirs, run, outcome, next).await;
    Ok(Adopted::Over(Box::new(Over { claim, gone, plan })))
}

/// Whether the guest waits for a supervisor that is gone.
enum Held {
    No,
    /// Its start had not come to the end of its image.
    ToBeLoaded,
    /// It was being saved, or was loaded just now.
    ToBeLetGo {
        /// Whether it ran before.
        ran: bool,
    },
}

fn held(run: &RunDir, state: &GuestState) -> Held {
    if let Some(before) = state.saving {
        let ran = before == Condition::Running;
        return Held::ToBeLetGo { ran };
    }
    if state.state != Condition::Starting {
        return Held::No;
    }
    match asleep::read(run) {
        Ok(Some(mark)) if mark.kind == Kind::Saved => Held::ToBeLoaded,
        Ok(Some(mark)) if mark.kind == Kind::UsedUp => Held::ToBeLetGo {
            ran: mark.saved.is_none_or(|saved| !saved.paused),
        },
        _ => Held::No,
    }
}

fn is_gone(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

/// Takes back what a QEMU had that ended before it could be talked to.
fn ended(run: &RunDir, claim: Claim, on_ready: OnReady) -> Result<Adopted, StartError> {
    claim::has_ended(run)?;
    recover::take_back(run)?;
    drop(claim);
    Ok(Adopted::Unfinished(on_ready))
}

/// Ends it and takes its start back, all under the claim.
async fn unfinished(
    run: &RunDir,
    process: Option<Process>,
    claim: Claim,
    on_ready: OnReady,
) -> Result<Adopted, StartError> {
    end_unfinished(run, process).await?;
    recover::take_back(run)?;
    drop(claim);
    Ok(Adopted::Unfinished(on_ready))
}

/// Ends the QEMU of a start whose supervisor died before the guest was let go. Whether it did.
///
/// # Errors
/// It does not end.
pub(crate) fn end_if_unfinished(run: &RunDir) -> Result<bool, StartError> {
    let known: Option<GuestState> =
        state::read(&run.state()).map_err(StartError::io("read", &run.state()))?;
    if known.is_some_and(|state| state.state != Condition::Starting) {
        return Ok(false);
    }
    super::start::runtime()?.block_on(async {
        // The word of QEMU itself, where it has one: the state may be behind.
        let asked = timeout(CONNECT, async {
            let (qmp, _events) = Qmp::connect(&run.monitor(), CONNECT).await.ok()?;
            let status = qmp.call("query-status", None).await.ok()?;
            let word = status.get("status")?.as_str()?;
            Some(matches!(word, "prelaunch" | "inmigrate"))
        });
        if !asleep::is_saved(run) && matches!(asked.await, Ok(Some(false))) {
            return Ok(false);
        }
        end_unfinished(run, None).await?;
        Ok(true)
    })
}

/// QEMU's process: the peer of its monitor, and in any case one that has the guest's lock open. A
/// process id that was written down may be another's by now.
fn qemu_pid(run: &RunDir, state: &GuestState, monitor: &UnixStream) -> Option<u32> {
    let peer = monitor
        .peer_cred()
        .ok()
        .and_then(|peer| u32::try_from(peer.pid()?).ok());
    let lock = run.lock();
    peer.into_iter()
        .chain(state.pid)
        .find(|pid| holders::has_open(*pid, &lock))
        .or_else(|| holders::of(&lock).first().map(|holder| holder.pid))
}

/// Ends a QEMU in which no guest has run yet.
async fn end_unfinished(run: &RunDir, process: Option<Process>) -> Result<(), StartError> {
    let processes: Vec<Process> = match process {
        Some(process) => vec![process],
        None => holders::of(&run.lock())
            .iter()
            .filter_map(|holder| Process::adopt(holder.pid).ok())
            .collect(),
    };
    for process in &processes {
        tracing::info!(
            pid = process.pid(),
            "ending the QEMU of an unfinished start"
        );
        process.signal(Signal::SIGKILL);
    }
    let gone = async {
        while lock::is_held(&run.lock())? {
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    };
    match timeout(GONE, gone).await {
        Ok(done) => done,
        Err(_) => Err(StartError::stays(run)),
    }
}
