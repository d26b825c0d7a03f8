//! From a plan to a guest's end: claim, check, carry out, launch, supervise, take back.

use std::path::PathBuf;

use nix::sys::stat::{Mode, umask};
use tokio::runtime;
use tokio::sync::oneshot;

use super::adopt::Adopted;
use super::claim::{self, Claimed};
use super::connect::{Sockets, Wanted, Way, connect};
use super::end::End;
use super::error::StartError;
use super::launch;
use super::lives::{Lives, Over};
use super::process::start_ticks;
use super::restart::Renewal;
use super::sleeper::Sleeper;
use super::state::{self, Condition, Ended, GuestState};
use super::supervise::Begin;
use super::{RunDir, asleep, conflicts, devices, leftovers, saved};
use crate::dirs::Dirs;
use crate::ids::GuestName;
use crate::machine::Machine;
use crate::ops::Host;
use crate::plan::Plan;
use crate::plan::apply::apply;
use crate::plan::journal::{self, Entry};
use crate::profile::schema::{HookWhen, OnPoweroff};
use crate::qemu::command::Arg;

/// Told once, when the guest runs.
pub type OnReady = Box<dyn FnOnce(&GuestState) + Send>;

/// How a guest is started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// What guests had open that are hibernated or saved is given up: of this guest, and of others whose disks it wants.
    pub discard_hibernation: bool,
}

/// Starts a guest and supervises it to its end, and anew as its profile says in `[lifecycle]`. Where its QEMU
/// runs without a supervisor, this becomes its supervisor instead; what a dead guest of that name left behind
/// is taken back first.
///
/// Blocks until the guest has ended. SIGTERM, SIGINT and SIGHUP stop the guest in good order.
///
/// # Errors
/// The guest did not start; the host is as it was.
pub fn run(
    dirs: &Dirs,
    plan: Plan,
    options: Options,
    on_ready: OnReady,
    renewal: Renewal<'_>,
) -> Result<Ended, StartError> {
    // What a guest's processes make is for their user alone, unless a step says otherwise.
    umask(Mode::from_bits_truncate(0o077));
    let run = RunDir::new(dirs, &plan.machine.name);
    let mut lives = Lives::new(dirs, &run, renewal)?;
    let (claim, on_ready) = match claim::take(&run)? {
        Claimed::Free(claim) => (claim, on_ready),
        Claimed::Orphan(claim) => match lives.adopt(claim, on_ready)? {
            Adopted::Over(over) => return lives.go_on(*over),
            Adopted::Unfinished(on_ready) => match claim::take(&run)? {
                Claimed::Free(claim) => (claim, on_ready),
                Claimed::Orphan(_) => return Err(StartError::stays(&run)),
            },
        },
    };
    match lives.one(plan.clone(), options, on_ready) {
        Ok(gone) => lives.go_on(Over { claim, gone, plan }),
        Err(error) => {
            claim.abandon(&run);
            Err(error)
        }
    }
}

/// Becomes the supervisor of a guest whose own has died, to the guest's end, and as [`run`] from there.
///
/// # Errors
/// There is none, or its QEMU does not answer.
pub fn adopt(
    dirs: &Dirs,
    name: &GuestName,
    on_ready: OnReady,
    renewal: Renewal<'_>,
) -> Result<Ended, StartError> {
    umask(Mode::from_bits_truncate(0o077));
    let run = RunDir::new(dirs, name);
    let nothing = || StartError::NothingToAdopt(name.to_string());
    if !run.path().exists() {
        return Err(nothing());
    }
    let mut lives = Lives::new(dirs, &run, renewal)?;
    match claim::take(&run)? {
        Claimed::Orphan(claim) => match lives.adopt(claim, on_ready)? {
            Adopted::Over(over) => return lives.go_on(*over),
            Adopted::Unfinished(_) => {}
        },
        Claimed::Free(claim) => claim.abandon(&run),
    }
    Err(nothing())
}

pub(super) fn runtime() -> Result<runtime::Runtime, StartError> {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Setup)
}

/// Everything up to a QEMU that has not been talked to yet.
pub(super) fn prepare(
    dirs: &Dirs,
    run: &RunDir,
    mut plan: Plan,
    options: Options,
    on_ready: OnReady,
) -> Result<(Begin, End), StartError> {
    let host = Host::new(dirs).with_qemu(&plan.command.program);
    leftovers::take_back_before(dirs, run.path(), &plan.steps);
    let gate = conflicts::gate(dirs)?;
    saved::sweep(run);
    let resumes = if options.discard_hibernation {
        for name in conflicts::check_discarding(dirs, &plan)? {
            tracing::warn!("what {name} had open when it went to sleep is given up");
            asleep::forget(&RunDir::new(dirs, &name))?;
        }
        asleep::forget(run)?;
        None
    } else {
        conflicts::check(dirs, &plan)?;
        asleep::check(run, &plan)?
    };
    devices::allow_memory(&plan.machine)?;
    // From here on others see what this guest uses. They do not wait for its devices, which may take
    // long; should its start fail, the plan goes with the directory, or with the claim.
    state::write(&run.plan(), &plan).map_err(StartError::io("write", &run.plan()))?;
    if plan.machine.lifecycle.restarts() {
        // For a supervisor that adopts it: by then the plan may say what came to the guest.
        let first = run.first_plan();
        state::write(&first, &plan).map_err(StartError::io("write", &first))?;
    }
    drop(gate);
    let mut prepared = apply(&host, &plan.steps, &run.journal())?;
    let mut rolling = RollBack {
        host: &host,
        undo: std::mem::take(&mut prepared.undo),
        journal: run.journal(),
    };
    // Virtual functions that were made just now may be elsewhere than was thought.
    devices::settle(&host, &mut plan);
    let way = match resumes.clone().and_then(Way::load) {
        Some(way) => {
            // It waits for the image, and nothing of the guest runs before.
            let words = ["-incoming", "defer"];
            let words = words.map(|word| Arg::Real(word.to_owned()));
            plan.command.args.extend(words);
            way
        }
        None => Way::New,
    };
    state::write(&run.plan(), &plan).map_err(StartError::io("write", &run.plan()))?;
    let mut state = first_state(run, &plan.machine, resumes.is_some());
    write_state(run, &state)?;
    let wanted = Wanted::of(&plan.machine);
    let sockets = Sockets::new(run, &wanted, &mut prepared.listeners)?;
    let launched = launch::spawn(&plan.command, &plan.machine, &mut prepared, &run.qemu_log())?;
    // QEMU lives: nothing below may fail, and the plan is taken back when it has ended.
    let undo = std::mem::take(&mut rolling.undo);
    state.pid = Some(launched.process.pid());
    state.qemu_start_ticks = start_ticks(launched.process.pid());
    if let Err(error) = write_state(run, &state) {
        tracing::warn!(%error, "the guest's state cannot be told");
    }
    let (done, connected) = oneshot::channel();
    let (paths, process) = (run.clone(), launched.process.pid());
    tokio::spawn(async move {
        // A supervisor that has ended meanwhile needs no connections.
        drop(done.send(connect(&paths, &wanted, process, way).await));
    });
    let begin = Begin {
        dirs: dirs.clone(),
        run: run.clone(),
        state,
        process: launched.process,
        started: plan.machine.hooks_at(HookWhen::Started),
        sidecars: plan.machine.sidecars(),
        sockets,
        connected,
        stop_timeout: plan.machine.stop_timeout.duration(),
        sleeper: Sleeper::of(&plan.machine),
        keeps: plan.machine.lifecycle.on_poweroff == OnPoweroff::Preserve,
        on_ready,
    };
    let end = End {
        undo,
        lock: Some(prepared.lock),
        log_from: launched.log_from,
    };
    Ok((begin, end))
}

fn write_state(run: &RunDir, state: &GuestState) -> Result<(), StartError> {
    state::write(&run.state(), state).map_err(StartError::io("write", &run.state()))
}

fn first_state(run: &RunDir, machine: &Machine, resumed: bool) -> GuestState {
    GuestState {
        name: machine.name.clone(),
        profile: machine.profile.clone(),
        state: Condition::Starting,
        since: state::now(),
        started: state::now(),
        supervisor: std::process::id(),
        pid: None,
        qemu_start_ticks: None,
        accel: machine.accel.chosen,
        agent: false,
        arch: machine.arch,
        sockets: Sockets::names(run, machine),
        displays: std::collections::BTreeMap::new(),
        message: None,
        lost: Vec::new(),
        wakeups: 0,
        hibernating: false,
        held: false,
        saving: None,
        resumed,
        next_start: None,
    }
}

/// Takes the plan back when the start fails between the plan and QEMU, a panic included.
struct RollBack<'a> {
    host: &'a Host,
    undo: Vec<Entry>,
    journal: PathBuf,
}

impl Drop for RollBack<'_> {
    fn drop(&mut self) {
        journal::roll_back(self.host, &self.undo, Some(&self.journal));
    }
}
