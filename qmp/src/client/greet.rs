//! The first words on a connection.

use std::{
    io,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Deserialize;
use serde_json::Value;
use tokio::{net::UnixStream, time::Instant};

use crate::{
    QmpError, sock,
    wire::{self, Lines, Message},
};

/// What QEMU says first.
#[derive(Debug, Clone)]
pub struct Greeting {
    /// QEMU's version: major, minor, micro.
    pub version: (u32, u32, u32),
    /// The distribution's name for this build; may be empty.
    pub package: String,
    /// What can be enabled: `oob`, so far.
    pub capabilities: Vec<String>,
    /// The greeting's line as QEMU sent it, without its end.
    pub line: String,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    version: Version,
    #[serde(default)]
    capabilities: Vec<Value>,
}

#[derive(Deserialize, Default)]
struct Version {
    #[serde(default)]
    qemu: Triple,
    #[serde(default)]
    package: String,
}

#[derive(Deserialize, Default)]
struct Triple {
    #[serde(default)]
    major: u32,
    #[serde(default)]
    minor: u32,
    #[serde(default)]
    micro: u32,
}

impl Greeting {
    fn parse(line: &[u8]) -> Option<Self> {
        let message: Message<'_> = serde_json::from_slice(line).ok()?;
        let body: Body = serde_json::from_str(message.greeting?.get()).ok()?;
        let Version { qemu, package } = body.version;
        Some(Self {
            version: (qemu.major, qemu.minor, qemu.micro),
            package: package.trim().to_owned(),
            capabilities: body
                .capabilities
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            line: String::from_utf8_lossy(line).into_owned(),
        })
    }

    /// Whether the monitor takes out-of-band commands.
    #[must_use]
    pub fn has_oob(&self) -> bool {
        self.capabilities.iter().any(|name| name == "oob")
    }
}

/// Reads one line of a fresh connection.
async fn read_line(stream: &UnixStream, lines: &mut Lines) -> Result<Vec<u8>, QmpError> {
    loop {
        while let Some(line) = lines.next_line() {
            match line {
                Ok([]) | Err(_) => {}
                Ok(line) => return Ok(line.to_vec()),
            }
        }
        tokio::task::consume_budget().await;
        stream.readable().await?;
        match stream.try_read_buf(lines.space()) {
            Ok(0) if lines.partial().is_empty() => return Err(QmpError::Closed),
            Ok(0) => {
                return Err(QmpError::NotQmp {
                    got: wire::excerpt(lines.partial()),
                });
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Err(QmpError::Closed),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Waits for the greeting. What came after it stays in `lines`.
pub(super) async fn greet(
    stream: &UnixStream,
    lines: &mut Lines,
    within: Duration,
) -> Result<Greeting, QmpError> {
    let search = async {
        loop {
            let line = read_line(stream, lines).await?;
            if let Some(greeting) = Greeting::parse(&line) {
                return Ok(greeting);
            }
            // Words meant for a predecessor who hung up a moment ago may come first.
            match serde_json::from_slice::<Message<'_>>(&line) {
                Ok(old) if old.event.is_some() || old.ret.is_some() || old.error.is_some() => {}
                _ => {
                    let got = wire::excerpt(&line);
                    return Err(QmpError::NotQmp { got });
                }
            }
        }
    };
    match tokio::time::timeout(within, search).await {
        Ok(found) => found,
        Err(_) if !lines.partial().is_empty() => Err(QmpError::NotQmp {
            got: wire::excerpt(lines.partial()),
        }),
        Err(_) => Err(QmpError::NoGreeting { after: within }),
    }
}

/// Leaves the negotiation mode, with out-of-band commands if `oob`. No event comes before the reply.
pub(super) async fn negotiate(
    stream: &UnixStream,
    lines: &mut Lines,
    oob: bool,
    within: Duration,
) -> Result<(), QmpError> {
    const COMMAND: &str = "qmp_capabilities";
    // An id that no predecessor's command had: QEMU may still be busy with one, whose reply then
    // comes before ours. Nothing old comes after it.
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let micros = since.unwrap_or_default().as_micros();
    let id = u64::try_from(micros).unwrap_or_default() & ((1 << 52) - 1);
    let enable = oob.then_some(r#"{"enable":["oob"]}"#);
    let request = wire::close_request(wire::open_request(COMMAND, enable, false), Some(id));
    let id = id.to_string();
    let exchange = async {
        // A fresh socket takes so short a line whole.
        stream.writable().await?;
        if stream.try_write(&request)? != request.len() {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        loop {
            let line = read_line(stream, lines).await?;
            match serde_json::from_slice::<Message<'_>>(&line) {
                Ok(other) if other.id.is_none_or(|other| other.get() != id) => {}
                Ok(Message { ret: Some(_), .. }) => return Ok(()),
                Ok(Message {
                    error: Some(body), ..
                }) => {
                    return Err(super::command_error(COMMAND, wire::error_body(body)));
                }
                _ => {}
            }
        }
    };
    match tokio::time::timeout(within, exchange).await {
        Ok(done) => done,
        Err(_) => Err(QmpError::Timeout {
            command: COMMAND.to_owned(),
            after: within,
        }),
    }
}

/// [`sock::connect`] with a deadline and an error that names the path.
pub(super) async fn connect(path: &Path, within: Duration) -> Result<UnixStream, QmpError> {
    let connecting = tokio::time::timeout(within, sock::connect(path)).await;
    connecting
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|source| QmpError::Connect {
            path: path.to_owned(),
            source,
        })
}

/// Connects, negotiates and hangs up.
///
/// A monitor that has been negotiated once goes on sending events to its character device, even
/// with nobody connected. With a `logfile` on that device, QEMU records its own last events: the
/// way to learn what happened while nobody was watching.
///
/// # Errors
/// As [`crate::Qmp::connect`].
pub async fn negotiate_and_leave(path: &Path, deadline: Duration) -> Result<Greeting, QmpError> {
    let end = Instant::now() + deadline;
    let left = || end.saturating_duration_since(Instant::now());
    let stream = connect(path, deadline).await?;
    let mut lines = Lines::default();
    let greeting = greet(&stream, &mut lines, left()).await?;
    negotiate(&stream, &mut lines, false, left()).await?;
    Ok(greeting)
}
