//! The supervisor's side of every socket: the connections to QEMU, and the sockets it serves itself.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mvm_qmp::{Agent, Events, Qmp, QmpError, Server};
use serde_json::json;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::asleep::{self, Asleep, AsleepError, Kind};
use super::displays::Displays;
use super::lifecycle::{Input, News};
use super::saved::image::{self, ImageError};
use super::threads::{self, ThreadsError};
use super::{RunDir, agent, console};
use crate::ids::Id;
use crate::machine::memory::Hugepages;
use crate::machine::{Machine, NicBackend};
use crate::ops::sysfs::Place;
use crate::ops::{OpsError, hugepages, socket};
use crate::plan::build::devices::user;
use crate::plan::step::User;
use crate::units::Size;

/// For QEMU to greet: longer than preallocating a lot of memory takes.
const GREETING: Duration = Duration::from_secs(180);
/// For one command.
const COMMAND: Duration = Duration::from_secs(10);
/// For what is local and has no reason to take long.
const LOCAL: Duration = Duration::from_secs(5);
/// What a client of an adopted console sees of the time before.
const BEFORE: u64 = 8 << 10;

/// The connections to QEMU.
pub(crate) struct Connected {
    /// Its monitor.
    pub(crate) qmp: Qmp,
    /// Its events since.
    pub(crate) events: Events,
    /// The agent's channel.
    pub(crate) agent: Option<Agent>,
    /// QEMU's end of the consoles, by id, with what they showed before.
    pub(crate) consoles: BTreeMap<String, (UnixStream, Vec<u8>)>,
    /// Consoles that are pseudo-terminals, under the names that they have in the state.
    pub(crate) ptys: BTreeMap<String, PathBuf>,
    /// Where its displays are, by kind.
    pub(crate) displays: BTreeMap<String, String>,
    /// What the guest does; nothing where its processors were never let go.
    pub(crate) first: Vec<Input>,
    /// Whether QEMU ran before this supervisor.
    pub(crate) adopted: bool,
    /// Whether something in the guest may have opened the agent's port before anybody listened.
    pub(crate) agent_open: bool,
}

impl Connected {
    /// Whether the guest's processors were ever let go.
    pub(crate) fn started(&self) -> bool {
        !self.first.is_empty()
    }
}

/// What is to be connected.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    consoles: Vec<String>,
    ptys: Vec<String>,
    agent: bool,
    /// What the balloon is to leave the guest at the start.
    memory: Option<Size>,
    /// Huge pages that QEMU has when it answers, and whose they are.
    hugepages: Vec<Hugepages>,
    user: User,
    threads: threads::Wanted,
    displays: Displays,
    /// Sockets at which QEMU waits for others before it greets, and the cards that they are for.
    switches: Vec<(Id, PathBuf)>,
}

impl Wanted {
    /// All that this machine has.
    pub(crate) fn of(machine: &Machine) -> Self {
        let ids = |pty: bool| {
            machine
                .consoles
                .iter()
                .filter(|console| match pty {
                    true => console.pty,
                    false => console.is_mvms(),
                })
                .map(|console| console.id.to_string())
                .collect()
        };
        let switches = machine.nics.iter().filter_map(|nic| match &nic.backend {
            NicBackend::VhostUser {
                socket,
                server: true,
            } => Some((nic.id.clone(), socket.clone())),
            _ => None,
        });
        Self {
            consoles: ids(false),
            ptys: ids(true),
            agent: machine.agent,
            memory: machine.ram.current,
            hugepages: machine.ram.hugepages(machine.memory),
            user: user(machine),
            threads: threads::Wanted::of(machine),
            displays: Displays::of(machine),
            switches: switches.collect(),
        }
    }
}

impl Wanted {
    async fn greeted(&self, run: &RunDir) -> Result<(Qmp, Events), ConnectError> {
        greet(run).await.map_err(|error| match error {
            QmpError::NoGreeting { after } if !self.switches.is_empty() => {
                let waits = self
                    .switches
                    .iter()
                    .map(|(nic, socket)| format!("`network.{nic}` at {}", socket.display()));
                ConnectError::NoSwitch {
                    after,
                    waits: waits.collect(),
                }
            }
            error => error.into(),
        })
    }

    /// The guest's huge pages are QEMU's now, and no others are kept free for it. Nobody waits for that: the host's
    /// lock may be held for long.
    fn has_memory(&self, run: &RunDir) {
        if self.hugepages.is_empty() {
            return;
        }
        let (pages, user) = (self.hugepages.clone(), self.user.clone());
        let host = run.host().to_owned();
        std::thread::spawn(move || {
            let place = Place::new(&host);
            for one in pages {
                if let Err(error) = hugepages::settled(&place, one.size, one.node, &user) {
                    tracing::warn!(%error, "that the guest has its huge pages is not noted");
                }
            }
        });
    }
}

/// What there is to be done with QEMU.
pub(crate) enum Way {
    /// It was just started.
    New,
    /// It was just started, and the guest goes on from the image that this mark speaks of.
    Load(Box<Asleep>),
    /// It runs already; this is its monitor.
    Adopt(UnixStream),
    /// The same, the guest held to be saved or just loaded, with nobody left to let it go on: whether it ran
    /// before.
    LetGo(UnixStream, bool),
}

impl Way {
    /// The way of a guest with that mark, if there is an image.
    pub(crate) fn load(asleep: Asleep) -> Option<Self> {
        (asleep.kind == Kind::Saved).then(|| Self::Load(Box::new(asleep)))
    }
}

/// Why there is no connection, or no guest that runs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// QEMU does not answer, or is gone.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// What was saved of the guest is not loaded.
    #[error("its saved state cannot be loaded: {0}")]
    Load(#[from] ImageError),
    /// Its threads are not where they are to be.
    #[error(transparent)]
    Threads(#[from] ThreadsError),
    /// QEMU waits for the program that a card's packets go to.
    #[error(
        "QEMU does not answer after {after:?}. It waits for the program of a card with `server` to connect ({}): start that program",
        waits.join(", ")
    )]
    NoSwitch {
        /// How long.
        after: Duration,
        /// The cards, and where QEMU listens for them.
        waits: Vec<String>,
    },
    /// It is loaded and must not go on, as that cannot be written down.
    #[error(transparent)]
    Mark(#[from] AsleepError),
}

impl ConnectError {
    /// Whether QEMU is gone.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self, Self::Qmp(error) if error.is_closed())
    }
}

/// Connects to QEMU and lets the guest go, or to the monitor of one that runs already. The consoles come first, so that nothing is shown to nobody.
///
/// # Errors
/// QEMU does not answer; its process tells why. Or what was saved of the guest cannot be loaded.
pub(crate) async fn connect(
    run: &RunDir,
    wanted: &Wanted,
    process: u32,
    way: Way,
) -> Result<Connected, ConnectError> {
    let adopted = matches!(way, Way::Adopt(_) | Way::LetGo(..));
    let agent_open = adopted || matches!(way, Way::Load(_));
    let mut consoles = BTreeMap::new();
    for id in &wanted.consoles {
        let path = run.console_qemu(id);
        let before = if adopted {
            tail(&run.console_log(id)).unwrap_or_default()
        } else {
            Vec::new()
        };
        match timeout(LOCAL, mvm_qmp::connect(&path)).await {
            Ok(Ok(stream)) => {
                consoles.insert(id.clone(), (stream, before));
            }
            Ok(Err(error)) => tracing::warn!(%error, "no console `{id}`"),
            Err(_) => tracing::warn!("no console `{id}`: its connection is taken"),
        }
    }
    let agent = if wanted.agent {
        agent::connect(&run.agent()).await
    } else {
        None
    };
    let (qmp, events) = match way {
        Way::Adopt(stream) => {
            let (qmp, events) = adopt(stream).await?;
            wanted.threads.renew(&qmp, process).await;
            (qmp, events)
        }
        Way::LetGo(stream, ran) => {
            let (qmp, events) = adopt(stream).await?;
            wanted.threads.renew(&qmp, process).await;
            image::cancel(&qmp).await?;
            asleep::forget(run)?;
            if ran {
                qmp.call("cont", None).await?;
            }
            (qmp, events)
        }
        Way::New => {
            let (qmp, events) = wanted.greeted(run).await?;
            wanted.has_memory(run);
            wanted.threads.make(&qmp, process).await?;
            if let Some(memory) = wanted.memory {
                let size = json!({ "value": memory.as_bytes() });
                qmp.call("balloon", Some(size)).await?;
            }
            qmp.call("cont", None).await?;
            (qmp, events)
        }
        Way::Load(asleep) => {
            let (qmp, events) = wanted.greeted(run).await?;
            wanted.has_memory(run);
            wanted.threads.make(&qmp, process).await?;
            go_on(&qmp, run, *asleep).await?;
            (qmp, events)
        }
    };
    let ptys = ptys(&qmp, &wanted.ptys).await;
    let displays = wanted.displays.find(&qmp).await;
    let first = doing(&qmp).await?;
    Ok(Connected {
        qmp,
        events,
        agent,
        consoles,
        ptys,
        displays,
        first,
        adopted,
        agent_open,
    })
}

async fn adopt(stream: UnixStream) -> Result<(Qmp, Events), QmpError> {
    let (qmp, events) = Qmp::from_stream(stream, COMMAND).await?;
    Ok((qmp.with_deadline(COMMAND), events))
}

async fn greet(run: &RunDir) -> Result<(Qmp, Events), QmpError> {
    let (events_path, monitor_path) = (run.events(), run.monitor());
    let (recorded, connected) = tokio::join!(
        mvm_qmp::negotiate_and_leave(&events_path, GREETING),
        Qmp::connect(&monitor_path, GREETING),
    );
    let (qmp, events) = connected?;
    recorded?;
    Ok((qmp.with_deadline(COMMAND), events))
}

/// Loads what was saved of the guest and lets it go on. Before its first instruction it is on the disk that
/// the image is used up: loaded again later, it would not fit its disks any more.
async fn go_on(qmp: &Qmp, run: &RunDir, asleep: Asleep) -> Result<(), ConnectError> {
    let within = asleep.machine.power.hibernate_timeout.duration();
    image::load(qmp, run, within).await?;
    let paused = asleep.saved.as_ref().is_some_and(|saved| saved.paused);
    let used = Asleep {
        kind: Kind::UsedUp,
        ..asleep
    };
    asleep::write(run, &used)?;
    if !paused {
        qmp.call("cont", None).await?;
    }
    Ok(())
}

/// What the guest does, in the words of events.
async fn doing(qmp: &Qmp) -> Result<Vec<Input>, QmpError> {
    let status = qmp.call("query-status", None).await?;
    let word = status.get("status").and_then(|word| word.as_str());
    let more = match word {
        // Seen here where it is paused then.
        Some("guest-panicked") => {
            return Ok(vec![
                Input::Ready,
                Input::Qemu(News::Panicked),
                Input::Qemu(News::Stopped),
            ]);
        }
        Some("prelaunch" | "inmigrate") => return Ok(Vec::new()),
        Some("running") => None,
        Some("suspended") => Some(News::Suspended),
        Some("shutdown") => Some(News::Shutdown("guest-shutdown".to_owned())),
        _ => Some(News::Stopped),
    };
    Ok([Input::Ready]
        .into_iter()
        .chain(more.map(Input::Qemu))
        .collect())
}

/// Where QEMU put its pseudo-terminals.
async fn ptys(qmp: &Qmp, ids: &[String]) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    if ids.is_empty() {
        return found;
    }
    let chardevs = qmp.call("query-chardev", None).await.unwrap_or_default();
    for chardev in chardevs.as_array().into_iter().flatten() {
        let text = |key: &str| chardev.get(key).and_then(|value| value.as_str());
        if let (Some(label), Some(file)) = (text("label"), text("filename")) {
            let known = ids.iter().any(|id| label == format!("console-{id}"));
            if let (true, Some(path)) = (known, file.strip_prefix("pty:")) {
                found.insert(label.to_owned(), PathBuf::from(path));
            }
        }
    }
    found
}

fn tail(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(BEFORE)))?;
    let mut text = Vec::new();
    file.take(BEFORE).read_to_end(&mut text)?;
    Ok(text)
}

/// The supervisor's own listening sockets.
pub(crate) struct Sockets {
    /// Served from the beginning.
    pub(crate) control: UnixListener,
    /// Served once QEMU answers; who connects before waits for that.
    pub(crate) later: Later,
}

/// The sockets that lead to QEMU.
pub(crate) struct Later {
    qmp: UnixListener,
    consoles: BTreeMap<String, UnixListener>,
}

impl Sockets {
    /// Takes them from what the plan's steps made, or makes them anew.
    ///
    /// # Errors
    /// One cannot be made, or is not usable here.
    pub(crate) fn new(
        run: &RunDir,
        wanted: &Wanted,
        made: &mut BTreeMap<PathBuf, OwnedFd>,
    ) -> Result<Self, OpsError> {
        let mut take = |path: PathBuf| -> Result<UnixListener, OpsError> {
            let fd = match made.remove(&path) {
                Some(fd) => fd,
                None => socket::listen(&path)?,
            };
            UnixListener::from_std(fd.into()).map_err(OpsError::io("serve", &path))
        };
        let mut consoles = BTreeMap::new();
        for id in &wanted.consoles {
            consoles.insert(id.clone(), take(run.console(id))?);
        }
        Ok(Self {
            control: take(run.control())?,
            later: Later {
                qmp: take(run.qmp())?,
                consoles,
            },
        })
    }

    /// Their names in the state.
    pub(crate) fn names(run: &RunDir, machine: &Machine) -> BTreeMap<String, PathBuf> {
        let mut names = BTreeMap::from([
            ("qmp".to_owned(), run.qmp()),
            ("control".to_owned(), run.control()),
        ]);
        for console in machine.consoles.iter().filter(|console| console.is_mvms()) {
            names.insert(
                format!("console-{}", console.id),
                run.console(console.id.as_str()),
            );
        }
        for channel in &machine.channels {
            names.insert(
                format!("channel-{}", channel.id),
                run.channel(channel.id.as_str()),
            );
        }
        names
    }
}

impl Later {
    /// Serves them until the tasks are shut down.
    pub(crate) fn serve(
        self,
        tasks: &mut JoinSet<()>,
        consoles: &mut JoinSet<()>,
        qmp: &Qmp,
        mut qemu: BTreeMap<String, (UnixStream, Vec<u8>)>,
    ) {
        let server = Server::new(qmp);
        let listener = self.qmp;
        tasks.spawn(async move { server.serve(listener).await });
        for (id, clients) in self.consoles {
            if let Some((stream, before)) = qemu.remove(&id) {
                consoles.spawn(console::serve(stream, clients, before));
            }
        }
    }
}
