//! The supervisor's verbs: one JSON object a line, both ways, on `control.sock`.
//!
//! A verb succeeds when the state it names has been observed, never because QEMU answered `{}`.

mod follow;
mod inside;
pub(crate) mod parking;
mod save;
mod sleep;
mod verbs;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mvm_qmp::{Agent, Qmp};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, Semaphore, mpsc, watch};
use tokio::time::timeout;

pub(crate) use inside::Thaw;

use super::feed::Feed;
use super::hangup::hung_up;
use super::hotplug::Hotplug;
use super::lifecycle::Input;
use super::sleeper::Sleeper;
use super::state::{Ended, GuestState};
use crate::error::{ExitCode, Report};
use crate::plan::Attachment;
use parking::Parking;

/// Clients, and so requests, at a time.
pub(crate) const CLIENTS: u32 = 64;
/// The longest request.
const REQUEST: usize = 1 << 20;
/// For a client to say what it wants: who asks nothing must not keep others from asking.
const IDLE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// For a client to take one line.
const TAKE: Duration = Duration::from_secs(10);

/// What the supervisor lets others see.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// The state.
    pub(crate) state: GuestState,
    /// How often a stop ran out of time.
    pub(crate) stop_failures: u64,
    /// How it ended, once it has and everything is cleaned up.
    pub(crate) ended: Option<Ended>,
}

/// What the verbs work with.
#[derive(Clone)]
pub(crate) struct Shared {
    /// The supervisor's view, always the newest.
    pub(crate) view: watch::Receiver<View>,
    /// The way into the supervisor.
    pub(crate) inputs: mpsc::Sender<Input>,
    /// The connections to QEMU, once they are there.
    pub(crate) links: Arc<OnceLock<Links>>,
    /// The devices that come and go.
    pub(crate) hotplug: Arc<Hotplug>,
    /// The thaw that comes by itself.
    pub(crate) thaw: Arc<Thaw>,
    /// The profile's time for a graceful stop.
    pub(crate) stop_timeout: Duration,
    /// How the guest sleeps.
    pub(crate) sleeper: Arc<Sleeper>,
    /// The devices that the guest does without while it sleeps.
    pub(crate) parking: Arc<Parking>,
    /// Held while the guest is put to sleep or woken.
    pub(crate) transition: Arc<Mutex<()>>,
    /// A permit is held while a request is answered: the supervisor ends when it gets all of them.
    pub(crate) requests: Arc<Semaphore>,
    /// What happens.
    pub(crate) feed: Feed,
}

/// The connections that verbs use.
#[derive(Clone)]
pub(crate) struct Links {
    /// QEMU.
    pub(crate) qmp: Qmp,
    /// The agent's channel.
    pub(crate) agent: Option<Agent>,
}

/// One request. Fields that a verb does not know are ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct Request {
    r#do: String,
    timeout_ms: Option<u64>,
    force: bool,
    compress: bool,
    r#for: String,
    command: String,
    arguments: Option<Value>,
    attachment: Option<Attachment>,
    id: String,
}

impl Request {
    fn timeout(&self, default: Duration) -> Duration {
        // A year is longer than anybody waits, and far from where clocks overflow.
        self.timeout_ms
            .map_or(default, |ms| Duration::from_millis(ms.min(31_536_000_000)))
    }
}

/// Where progress goes.
#[derive(Clone)]
struct Progress(Arc<Mutex<OwnedWriteHalf>>);

impl Progress {
    async fn tell(&self, text: &str) {
        self.line(&json!({ "progress": text })).await;
    }

    /// Whether the client took it, however long he took.
    async fn patiently(&self, value: &Value) -> bool {
        let mut text = value.to_string();
        text.push('\n');
        let mut stream = self.0.lock().await;
        stream.write_all(text.as_bytes()).await.is_ok()
    }

    /// Whether the client took it.
    async fn line(&self, value: &Value) -> bool {
        let mut text = value.to_string();
        text.push('\n');
        let mut stream = self.0.lock().await;
        matches!(
            timeout(TAKE, stream.write_all(text.as_bytes())).await,
            Ok(Ok(()))
        )
    }
}

/// Serves any number of clients until it is dropped.
pub(crate) async fn serve(listener: UnixListener, shared: Shared) {
    let places = Arc::new(Semaphore::new(CLIENTS as usize));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    client(stream, shared).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept a control client");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn client(stream: UnixStream, mut shared: Shared) {
    let (reader, writer) = stream.into_split();
    let out = Progress(Arc::new(Mutex::new(writer)));
    let mut lines: BufReader<OwnedReadHalf> = BufReader::with_capacity(1 << 10, reader);
    loop {
        let line = match timeout(IDLE, read_line(&mut lines)).await {
            Ok(Ok(Some(line))) => line,
            Ok(Ok(None)) | Err(_) => return,
            Ok(Err(message)) => {
                out.line(&failure(&Report::new(ExitCode::Usage, message)))
                    .await;
                return;
            }
        };
        // Closed once the supervisor has nothing more to say.
        let Ok(open) = Arc::clone(&shared.requests).acquire_owned().await else {
            return;
        };
        let answer = match serde_json::from_slice::<Request>(&line) {
            Ok(request) => tokio::select! {
                answer = verbs::run(&request, &mut shared, &out) => answer,
                // Who waits for something and goes away must not take up a place until it comes.
                () = hung_up(lines.get_ref().as_ref()) => return,
            },
            Err(error) => Err(Report::new(
                ExitCode::Usage,
                format!("not a request: {error}"),
            )),
        };
        let answer = answer.map_or_else(|report| failure(&report), |ok| json!({ "ok": ok }));
        let taken = out.line(&answer).await;
        drop(open);
        if !taken {
            return;
        }
    }
}

/// A line of bounded length, the last one with or without its end; `None` at the end.
async fn read_line(reader: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<Vec<u8>>, String> {
    let mut line = Vec::new();
    loop {
        let available = reader.fill_buf().await.map_err(|error| error.to_string())?;
        if available.is_empty() {
            return Ok(Some(line).filter(|line| !line.is_empty()));
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(available.len(), |at| at + 1);
        line.extend_from_slice(&available[..taken]);
        reader.consume(taken);
        if end.is_some() {
            return Ok(Some(line));
        }
        if line.len() > REQUEST {
            return Err(format!("a request of more than {REQUEST} bytes"));
        }
    }
}

fn failure(report: &Report) -> Value {
    json!({ "error": {
        "message": report.chain.join(": "),
        "hints": report.hints,
        "code": report.code as u8,
    } })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::guest::state::Condition;
    use crate::ids::Arch;
    use crate::machine::AccelKind;
    use tokio::io::AsyncReadExt as _;

    fn served(path: &std::path::Path) -> (watch::Sender<View>, Feed) {
        let view = watch::Sender::new(View {
            state: GuestState {
                name: "g".parse().unwrap(),
                profile: "p".to_owned(),
                state: Condition::Running,
                since: 0,
                started: 0,
                supervisor: 1,
                pid: None,
                qemu_start_ticks: None,
                accel: AccelKind::Tcg,
                agent: false,
                arch: Arch::X86_64,
                sockets: std::collections::BTreeMap::new(),
                message: None,
                lost: Vec::new(),
                wakeups: 0,
                hibernating: false,
                held: false,
                saving: None,
                resumed: false,
                displays: std::collections::BTreeMap::new(),
                next_start: None,
            },
            stop_failures: 0,
            ended: None,
        });
        let links = Arc::default();
        let feed = Feed::default();
        let dirs = crate::dirs::Dirs::new(0, &|_| None);
        let run = crate::guest::RunDir::new(&dirs, &"g".parse().unwrap());
        let hotplug = Hotplug::new(&dirs, &run, &links);
        let shared = Shared {
            parking: Arc::new(Parking::new("g".to_owned(), &hotplug, &links)),
            hotplug,
            view: view.subscribe(),
            inputs: mpsc::channel(1).0,
            links,
            thaw: Arc::default(),
            stop_timeout: Duration::from_secs(1),
            sleeper: Arc::default(),
            transition: Arc::default(),
            requests: Arc::new(Semaphore::new(CLIENTS as usize)),
            feed: feed.clone(),
        };
        tokio::spawn(serve(UnixListener::bind(path).unwrap(), shared));
        (view, feed)
    }

    async fn status(path: &std::path::Path) -> String {
        let mut client = UnixStream::connect(path).await.unwrap();
        // The end of what is said ends the line too.
        client.write_all(b"{\"do\":\"status\"}").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn who_asks_nothing_keeps_nobody_from_asking() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("control.sock");
        let _served = served(&path);
        let mut idle = Vec::new();
        for _ in 0..CLIENTS {
            idle.push(UnixStream::connect(&path).await.unwrap());
        }
        let answer = timeout(IDLE * 5, status(&path)).await.unwrap();
        assert!(answer.contains("\"running\""), "{answer}");
    }

    /// Whoever follows too slowly is told how much he has missed, then the state as it is, and then goes on.
    #[tokio::test]
    async fn who_is_slow_is_told_what_is_lost() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("control.sock");
        let (view, feed) = served(&path);
        let mut client = BufReader::new(UnixStream::connect(&path).await.unwrap());
        let stream = client.get_mut();
        stream.write_all(b"{\"do\":\"watch\"}\n").await.unwrap();
        let mut line = String::new();
        client.read_line(&mut line).await.unwrap();
        assert!(line.contains("\"running\""), "{line}");
        // More than the socket and the feed hold, and nobody reads.
        let mut state = view.borrow().state.clone();
        state.message = Some("x".repeat(1 << 10));
        for _ in 0..4000 {
            feed.state(&state);
            tokio::task::yield_now().await;
        }
        view.send_modify(|view| view.state.state = Condition::Paused);
        let told = async {
            loop {
                let mut line = String::new();
                client.read_line(&mut line).await.unwrap();
                if line.contains("\"lost\"") {
                    break;
                }
            }
            let mut line = String::new();
            client.read_line(&mut line).await.unwrap();
            line
        };
        let line = timeout(IDLE * 20, told).await.unwrap();
        assert!(line.contains("\"paused\""), "{line}");
    }
}
