//! The supervisor: one thread that carries what happens into [`Life`] and what is to be done out of it.

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mvm_qmp::{Event, Events};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::connect::{ConnectError, Connected, Later, Sockets};
use super::control::parking::Parking;
use super::control::{self, Links, Shared, View};
use super::farewell::Farewell;
use super::feed::Feed;
use super::hotplug::Hotplug;
use super::lifecycle::{Action, Before, Input, Life, Timer};
use super::news::{self, disk_trouble, news};
use super::process::{Exit, Process};
use super::restart::Past;
use super::shrink::shrink;
use super::signals::Signals;
use super::sleeper::Sleeper;
use super::start::OnReady;
use super::state::{self, Condition, GuestState, Reason};
use super::{RunDir, agent, asleep, clock, notify, sidecar};
use crate::dirs::Dirs;
use crate::hook::Hook;
use crate::ops::{self, OpsError};
use crate::sidecar::Sidecar;

/// Events between two looks at the event log.
const EVENTS: u32 = 1000;
/// For QEMU to take `quit`, `cont` or the power button.
const COMMAND: Duration = Duration::from_secs(5);
/// For the last events of a QEMU that is gone.
const LAST_EVENTS: Duration = Duration::from_millis(500);

/// What a supervisor begins with.
pub(crate) struct Begin {
    /// Where mvm keeps things.
    pub(crate) dirs: Dirs,
    /// The guest's paths.
    pub(crate) run: RunDir,
    /// Its state so far: `starting`, or what an earlier supervisor wrote.
    pub(crate) state: GuestState,
    /// QEMU.
    pub(crate) process: Process,
    /// The user's programs that run when the guest does.
    pub(crate) started: Vec<Hook>,
    /// The programs beside it.
    pub(crate) sidecars: Vec<Sidecar>,
    /// Our listening sockets.
    pub(crate) sockets: Sockets,
    /// The connections to QEMU, on their way, or why there are none.
    pub(crate) connected: oneshot::Receiver<Result<Connected, ConnectError>>,
    /// How long a graceful stop may take.
    pub(crate) stop_timeout: Duration,
    /// How it sleeps.
    pub(crate) sleeper: Sleeper,
    /// Whether QEMU stays when the guest shuts down.
    pub(crate) keeps: bool,
    /// Told once when the guest is ready.
    pub(crate) on_ready: OnReady,
}

/// How a guest's supervision went.
pub(crate) struct Outcome {
    /// How the guest ended.
    pub(crate) reason: Reason,
    /// Whether a user wanted it.
    pub(crate) wished: bool,
    /// How QEMU ended.
    pub(crate) exit: Exit,
    /// What went wrong before, where QEMU or the connection to it told.
    pub(crate) trouble: Option<String>,
    /// The devices that came and went: nothing of it may be under way when the rest is taken back.
    pub(crate) hotplug: Arc<Hotplug>,
    /// Tells the clients once everything is cleaned up.
    pub(crate) farewell: Farewell,
}

impl Outcome {
    /// What matters for what follows; `ran` is how long the guest's life was.
    pub(crate) fn past(&self, ran: Duration) -> Past {
        Past {
            reason: self.reason,
            wished: self.wished,
            ran,
        }
    }
}

struct Supervisor {
    run: RunDir,
    life: Life,
    process: Process,
    inputs: mpsc::Sender<Input>,
    view: watch::Sender<View>,
    timers: BTreeMap<Timer, Instant>,
    links: Arc<OnceLock<Links>>,
    hotplug: Arc<Hotplug>,
    parking: Arc<Parking>,
    started: Vec<Hook>,
    /// Those that run: what is dropped for them to end, and what ends with them.
    hooks: Option<(UnixStream, JoinHandle<()>)>,
    /// The words of one that must not fail.
    failed_hook: Option<String>,
    /// Where bad news goes that is told until the guest's end.
    lose: mpsc::Sender<String>,
    /// Why the guest is paused, where QEMU said so.
    trouble: Option<String>,
    /// What was said last beside the condition.
    word: Option<&'static str>,
    feed: Feed,
    /// Events since the event log was looked at.
    events: u32,
    stop_timeout: Duration,
    sleeper: Arc<Sleeper>,
    on_ready: Option<OnReady>,
    requests: Arc<Semaphore>,
    tasks: JoinSet<()>,
    consoles: JoinSet<()>,
}

/// Supervises a guest to its end.
pub(crate) async fn supervise(begin: Begin, mut signals: Signals) -> Outcome {
    let (inputs, mut incoming) = mpsc::channel(64);
    let Sockets { control, later } = begin.sockets;
    let mut later = Some(later);
    let mut connected = Some(begin.connected);
    let mut events: Option<Events> = None;
    let links = Arc::default();
    let hotplug = Hotplug::new(&begin.dirs, &begin.run, &links);
    let name = begin.state.name.to_string();
    let (lose, mut lost) = mpsc::channel(16);
    let mut supervisor = Supervisor {
        parking: Arc::new(Parking::new(name, &hotplug, &links)),
        hotplug,
        links,
        run: begin.run,
        life: Life::after(Before {
            wakeups: begin.state.wakeups,
            hibernating: begin.state.hibernating,
            held: begin.state.held,
            resumes: begin.state.resumed,
            keeps: begin.keeps,
        }),
        process: begin.process,
        inputs,
        view: watch::Sender::new(View {
            state: begin.state,
            stop_failures: 0,
            ended: None,
        }),
        timers: BTreeMap::new(),
        started: begin.started,
        hooks: None,
        failed_hook: None,
        lose,
        trouble: None,
        word: None,
        feed: Feed::default(),
        events: 0,
        stop_timeout: begin.stop_timeout,
        sleeper: Arc::new(begin.sleeper),
        on_ready: Some(begin.on_ready),
        requests: Arc::new(Semaphore::new(control::CLIENTS as usize)),
        tasks: JoinSet::new(),
        consoles: JoinSet::new(),
    };
    supervisor.write_state();
    supervisor.serve_control(control);
    for sidecar in begin.sidecars {
        let watch = sidecar::watch(sidecar, supervisor.lose.clone());
        supervisor.tasks.spawn(watch);
    }
    let mut pulse = notify::Pulse::begin();
    loop {
        let timer = supervisor.timers.iter().min_by_key(|(_, at)| **at);
        let (timer, at) = timer.map_or((None, None), |(timer, at)| (Some(*timer), Some(*at)));
        let input = tokio::select! {
            biased;
            () = pulse.due() => {
                pulse.beat();
                None
            }
            event = next(&mut events) => match event {
                Some(event) => supervisor.heard(&event),
                None => {
                    events = None;
                    Some(Input::MonitorClosed)
                }
            },
            exit = supervisor.process.ended() => {
                return supervisor.end(exit, events).await;
            }
            input = incoming.recv() => input,
            Some(text) = lost.recv() => {
                supervisor.lost(&text);
                None
            }
            () = signals.next() => Some(Input::Signal { timeout: supervisor.stop_timeout }),
            done = arrive(&mut connected) => {
                connected = None;
                match (done, later.take()) {
                    (Ok(done), Some(later)) => {
                        let (more, first) = supervisor.connected(done, later);
                        events = Some(more);
                        supervisor.take_all(first);
                        None
                    }
                    (Err(why), _) => {
                        supervisor.trouble = Some(why);
                        Some(Input::ConnectFailed)
                    }
                    (Ok(_), None) => None,
                }
            }
            () = sleep(at) => {
                timer.inspect(|timer| { supervisor.timers.remove(timer); }).map(Input::Timer)
            }
        };
        if let Some(input) = input {
            supervisor.take(input);
        }
    }
}

async fn next(events: &mut Option<Events>) -> Option<Event> {
    match events {
        Some(events) => events.next().await,
        None => pending().await,
    }
}

async fn arrive(
    connected: &mut Option<oneshot::Receiver<Result<Connected, ConnectError>>>,
) -> Result<Connected, String> {
    match connected {
        Some(connected) => match connected.await {
            Ok(done) => done.map_err(|error| error.to_string()),
            Err(_) => Err("the connection to QEMU was given up".to_owned()),
        },
        None => pending().await,
    }
}

async fn sleep(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

impl Supervisor {
    fn take(&mut self, input: Input) {
        self.take_all([input]);
    }

    /// What is known at once is told as one: a guest that is ready and paused has never been running.
    fn take_all(&mut self, inputs: impl IntoIterator<Item = Input>) {
        let mut actions = Vec::new();
        for input in inputs {
            tracing::debug!(?input, "input");
            if let Input::HookFailed(said) = &input {
                self.lost(said);
                self.failed_hook = Some(said.clone());
            }
            let (life, more) = self.life.step(input);
            self.life = life;
            actions.extend(more);
        }
        for action in actions {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Publish => self.publish(),
            Action::TellReady => {
                if let Some(tell) = self.on_ready.take() {
                    tell(&self.view.borrow().state);
                }
                notify::ready(self.life.condition().as_str());
                self.run_hooks();
                self.tasks.spawn(shrink());
            }
            Action::Ask { resume, agent } => self.ask(resume, agent),
            Action::Wake => self.command("system_wakeup"),
            Action::SetClock => self.set_clock(),
            Action::ForgetHibernation => {
                if let Err(error) = asleep::forget(&self.run) {
                    tracing::warn!("{error}");
                }
            }
            Action::Quit => self.quit(),
            Action::Kill => self.process.signal(Signal::SIGKILL),
            Action::Arm(timer, after) => {
                self.timers.insert(timer, Instant::now() + after);
            }
            Action::StopFailed => {
                self.message("it did not shut down in the time it was given");
                self.view.send_modify(|view| view.stop_failures += 1);
            }
            Action::Stuck => {
                self.message("QEMU does not end, not even by SIGKILL: it hangs in the kernel");
            }
            // `end` does it, the only place where this can come up.
            Action::Finish(_) => {}
        }
    }

    fn message(&self, text: &str) {
        tracing::warn!("{text}");
        self.view
            .send_modify(|view| view.state.message = Some(text.to_owned()));
        self.write_state();
        self.feed.state(&self.view.borrow().state);
    }

    /// Runs the programs that are to run when the guest does: each once in its life, one after the other.
    fn run_hooks(&mut self) {
        let hooks = std::mem::take(&mut self.started);
        let (tell, inputs) = (self.lose.clone(), self.inputs.clone());
        if hooks.is_empty() {
            return;
        }
        let (go_on, ended) = match UnixStream::pair() {
            Ok((go_on, ended)) => (go_on, Arc::new(ended)),
            Err(error) => {
                self.lost(&format!("the hooks cannot be run: {error}"));
                return;
            }
        };
        let run = tokio::spawn(async move {
            for hook in hooks {
                let (name, required) = (hook.name.clone(), hook.required);
                let ended = Arc::clone(&ended);
                let run = move || ops::hook::run(&hook, Some(ended.as_fd()));
                let error = match tokio::task::spawn_blocking(run).await {
                    Ok(Err(OpsError::BrokenOff(_))) => return,
                    Ok(Err(error)) => error,
                    Ok(Ok(())) | Err(_) => continue,
                };
                let said = format!("the hook `{name}` failed: {error}");
                // A supervisor that has ended needs no word.
                if required {
                    let _ = inputs.send(Input::HookFailed(said)).await;
                    return;
                }
                let _ = tell.send(said).await;
            }
        });
        self.hooks = Some((go_on, run));
    }

    /// A program beside QEMU has ended. The guest goes on, and says so until its end.
    fn lost(&mut self, text: &str) {
        tracing::warn!("{text}");
        self.view.send_modify(|view| {
            let state = &mut view.state;
            if !state.lost.iter().any(|known| known == text) {
                state.lost.push(text.to_owned());
            }
            state.message = Some(state.lost.join("; "));
        });
        self.write_state();
        self.feed.state(&self.view.borrow().state);
    }

    fn publish(&mut self) {
        let condition = self.life.condition();
        let word = self.life.word();
        let other = std::mem::replace(&mut self.word, word) != word;
        let before = self.view.borrow().state.state;
        if (before, condition) == (Condition::Suspended, Condition::Running) {
            self.tasks.spawn(Arc::clone(&self.parking).back_by_itself());
        }
        self.view.send_modify(|view| {
            let state = &mut view.state;
            if state.state != condition {
                tracing::info!("{} is {condition}", state.name);
                state.state = condition;
                state.since = state::now();
                state.message = None;
            } else if other {
                state.message = None;
            }
            if let Some(word) = word {
                state.message = Some(word.to_owned());
            } else if condition == Condition::Paused && state.message.is_none() {
                state.message = self.trouble.clone();
            }
            if state.message.is_none() && !state.lost.is_empty() {
                state.message = Some(state.lost.join("; "));
            }
            state.agent = self.life.agent();
            state.wakeups = self.life.wakeups();
            state.hibernating = self.life.hibernating();
            state.held = self.life.held();
            state.saving = self.life.saving();
        });
        self.write_state();
        self.feed.state(&self.view.borrow().state);
        notify::status(condition.as_str());
    }

    fn write_state(&self) {
        if let Err(error) = state::write(&self.run.state(), &self.view.borrow().state) {
            tracing::warn!(%error, "cannot write state.json");
        }
    }

    /// An event, and what it means for the guest's life.
    fn heard(&mut self, event: &Event) -> Option<Input> {
        self.events += 1;
        if self.events >= EVENTS {
            self.events = 0;
            news::trim(&self.run.events_log());
        }
        self.feed.event(event);
        match event.name.as_str() {
            "BLOCK_IO_ERROR" => self.trouble = disk_trouble(event).or(self.trouble.take()),
            "RESUME" => self.trouble = None,
            _ => {}
        }
        news(event).map(Input::Qemu)
    }

    fn serve_control(&mut self, listener: UnixListener) {
        let shared = Shared {
            view: self.view.subscribe(),
            inputs: self.inputs.clone(),
            links: Arc::clone(&self.links),
            hotplug: Arc::clone(&self.hotplug),
            parking: Arc::clone(&self.parking),
            thaw: Arc::default(),
            stop_timeout: self.stop_timeout,
            sleeper: Arc::clone(&self.sleeper),
            transition: Arc::default(),
            requests: Arc::clone(&self.requests),
            feed: self.feed.clone(),
        };
        self.tasks.spawn(control::serve(listener, shared));
    }

    /// The connections are there: serve them, and say what the guest does.
    fn connected(&mut self, connected: Connected, later: Later) -> (Events, Vec<Input>) {
        let Connected {
            qmp,
            events,
            agent,
            consoles,
            ptys,
            displays,
            first,
            adopted,
            agent_open,
        } = connected;
        if let Some(agent) = &agent {
            let (agent, events) = (agent.clone(), qmp.subscribe());
            let watch = agent::watch(agent, events, self.inputs.clone(), agent_open);
            self.tasks.spawn(watch);
        }
        self.tasks.spawn(Arc::clone(&self.hotplug).follow_usb());
        later.serve(&mut self.tasks, &mut self.consoles, &qmp, consoles);
        self.view.send_modify(|view| {
            view.state.sockets.extend(ptys);
            view.state.displays = displays;
        });
        // One that was adopted may have woken while nobody looked.
        let back = adopted.then(|| Arc::clone(&self.parking).back_after_adoption());
        let watch = Arc::clone(&self.hotplug).watch(qmp.clone(), qmp.subscribe(), back);
        // There is one connection in a supervisor's life.
        let _ = self.links.set(Links { qmp, agent });
        self.tasks.spawn(watch);
        (events, first)
    }

    fn command(&mut self, name: &'static str) {
        let Some(Links { qmp, .. }) = self.links.get().cloned() else {
            return;
        };
        self.tasks.spawn(async move {
            if let Err(error) = qmp.call_within(name, None, COMMAND).await {
                tracing::warn!(%error, "QEMU did not take it");
            }
        });
    }

    fn set_clock(&mut self) {
        let agent = self.links.get().and_then(|links| links.agent.clone());
        if let Some(agent) = agent.filter(|_| self.life.agent()) {
            self.tasks.spawn(clock::set(agent));
        }
    }

    fn ask(&mut self, resume: bool, by_agent: bool) {
        let Some(Links { qmp, agent }) = self.links.get().cloned() else {
            return;
        };
        let agent = agent.filter(|_| by_agent);
        let inputs = self.inputs.clone();
        self.tasks.spawn(async move {
            if resume {
                if let Err(error) = qmp.call_within("cont", None, COMMAND).await {
                    tracing::warn!(%error, "the guest cannot be continued");
                }
            }
            if let Some(agent) = agent {
                let how = json!({ "mode": "powerdown" });
                if let Err(error) = agent.fire("guest-shutdown", Some(how), COMMAND).await {
                    tracing::info!(%error, "the agent cannot shut the guest down");
                    // A supervisor that is gone needs no word.
                    let _ = inputs.send(Input::AgentFailed).await;
                }
            } else if let Err(error) = qmp.call_within("system_powerdown", None, COMMAND).await {
                tracing::warn!(%error, "the power button cannot be pressed");
            }
        });
    }

    /// By QMP, which closes the images in order. QEMU does the same at SIGTERM.
    fn quit(&mut self) {
        match self.links.get() {
            Some(_) => self.command("quit"),
            None => self.process.signal(Signal::SIGTERM),
        }
    }

    async fn end(mut self, exit: Exit, events: Option<Events>) -> Outcome {
        // QEMU's last words may still be in the socket.
        if let Some(mut events) = events {
            let mut last = VecDeque::new();
            let drain = async {
                while let Some(event) = events.next().await {
                    self.feed.event(&event);
                    last.extend(news(&event));
                }
            };
            // What comes later is no longer from this QEMU.
            let _ = timeout(LAST_EVENTS, drain).await;
            for news in last {
                self.take(Input::Qemu(news));
            }
        }
        let (life, actions) = self.life.step(Input::Exited(exit));
        self.life = life;
        let reason = actions.iter().find_map(|action| match action {
            Action::Finish(reason) => Some(*reason),
            _ => None,
        });
        let reason = reason.unwrap_or(Reason::Unknown);
        // What runs for the guest ends with it: nothing of it may be under way when others follow.
        if let Some((go_on, run)) = self.hooks.take() {
            drop(go_on);
            if let Err(error) = run.await {
                tracing::warn!(%error, "a hook");
            }
        }
        // Giving the host back takes its time: the guest is no more meanwhile.
        self.view.send_modify(|view| {
            view.state.state = Condition::Stopping;
            view.state.agent = false;
        });
        self.write_state();
        let lost = self.view.borrow().state.lost.join("; ");
        let lost = (!lost.is_empty()).then_some(lost);
        Outcome {
            reason,
            wished: self.life.wished(reason),
            exit,
            trouble: self.failed_hook.or(self.trouble).or(lost),
            hotplug: self.hotplug,
            farewell: Farewell {
                view: self.view,
                feed: self.feed,
                requests: self.requests,
                tasks: self.tasks,
                consoles: self.consoles,
            },
        }
    }
}
