//! The channel to the agent: a byte pipe that outlives both its ends.
//!
//! Unlike a QMP socket it has no beginning: the guest may have been talking to someone else, may
//! not listen yet, or may have something on the port that is no agent at all. Only one thing
//! helps: `guest-sync-delimited` with a fresh number. Its answer begins with a byte that occurs in
//! no JSON (0xFF), and whatever came before that answer is old.

use std::{
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json, value::RawValue};
use tokio::{net::UnixStream, time::Instant};

use super::AgentError;
use crate::wire::{self, ErrorBody, Lines, Message};

/// Begins the answer to a synchronisation, and makes the agent's parser forget half a command.
const SENTINEL: u8 = 0xff;
/// The longest reply: `guest-exec-status` can hold twice 16 MiB, and base64 makes a third more of them.
const MAX_REPLY: usize = 48 << 20;
/// Unanswered synchronisations that are sent as fast as asked for.
const EAGER: u32 = 4;
/// How long to leave a silent guest alone after those. What is sent stays in the channel until
/// somebody in the guest reads it.
const PATIENCE: Duration = Duration::from_secs(20);

/// The synchronisation that is not answered yet, nothing having been sent since.
struct Outstanding {
    id: u64,
    sent: Instant,
    count: u32,
}

pub(super) struct Channel {
    stream: UnixStream,
    lines: Lines,
    /// The next line is the answer to the next command.
    in_step: bool,
    outstanding: Option<Outstanding>,
    last_id: u64,
}

impl Channel {
    pub(super) fn new(stream: UnixStream) -> Self {
        // Not a number that a predecessor used: its answer may still be in the channel.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let last_id = u64::try_from(since.as_micros()).unwrap_or_default() & ((1 << 52) - 1);
        let lines = Lines::with_limit(MAX_REPLY);
        Self {
            stream,
            lines,
            in_step: false,
            outstanding: None,
            last_id,
        }
    }

    /// Makes sure that the next line answers the next command.
    pub(super) async fn get_in_step(&mut self) -> Result<(), AgentError> {
        // Anything that came unasked, even half a line, would be taken for the answer or spoil it.
        if self.in_step && self.lines.partial().is_empty() && !self.try_read()? {
            return Ok(());
        }
        self.sync().await
    }

    /// Exchanges a number with the agent: afterwards both are in step, and it is known to live.
    pub(super) async fn sync(&mut self) -> Result<(), AgentError> {
        self.in_step = false;
        let held = |o: &&Outstanding| o.count >= EAGER && o.sent.elapsed() < PATIENCE;
        let id = match self.outstanding.as_ref().filter(held) {
            Some(outstanding) => outstanding.id,
            None => self.send_sync().await?,
        };
        loop {
            while let Some(line) = self.lines.next_line() {
                let Some(answer) = line.ok().and_then(after_sentinel) else {
                    continue;
                };
                match serde_json::from_slice::<Message<'_>>(answer) {
                    Ok(Message { ret: Some(n), .. }) if n.get().parse() == Ok(id) => {
                        self.outstanding = None;
                        self.in_step = true;
                        return Ok(());
                    }
                    _ => tracing::debug!("an old answer in the guest agent's channel"),
                }
            }
            if !self.lines.partial().contains(&SENTINEL) {
                self.lines.forget();
            }
            self.read().await?;
        }
    }

    async fn send_sync(&mut self) -> Result<u64, AgentError> {
        self.last_id += 1;
        let id = self.last_id;
        let count = self.outstanding.as_ref().map_or(0, |o| o.count) + 1;
        let mut request = vec![SENTINEL];
        request.extend_from_slice(&command("guest-sync-delimited", Some(&json!({ "id": id }))));
        // Set before the write: half a write is as much of a burden to the channel.
        self.outstanding = Some(Outstanding {
            id,
            sent: Instant::now(),
            count,
        });
        self.write(&request).await?;
        Ok(id)
    }

    /// Sends a command. Until its answer is read, both sides are out of step.
    pub(super) async fn send(
        &mut self,
        name: &str,
        arguments: Option<&Value>,
    ) -> Result<(), AgentError> {
        self.in_step = false;
        self.write(&command(name, arguments)).await
    }

    /// The answer to the command sent before.
    pub(super) async fn answer(&mut self, name: &str) -> Result<Box<RawValue>, AgentError> {
        let answer = self.find_answer(name).await?;
        self.in_step = true;
        answer.map_err(|body| AgentError::Command {
            command: name.to_owned(),
            class: body.class,
            desc: body.desc,
        })
    }

    async fn find_answer(
        &mut self,
        name: &str,
    ) -> Result<Result<Box<RawValue>, ErrorBody>, AgentError> {
        loop {
            while let Some(line) = self.lines.next_line() {
                let Ok(line) = line else {
                    self.lines.forget();
                    return Err(AgentError::TooLong {
                        command: name.to_owned(),
                        limit: MAX_REPLY,
                    });
                };
                match serde_json::from_slice::<Message<'_>>(line) {
                    Ok(Message {
                        ret: Some(value), ..
                    }) => return Ok(Ok(value.to_owned())),
                    Ok(Message {
                        error: Some(body), ..
                    }) => return Ok(Err(wire::error_body(body))),
                    _ if line.is_empty() => {}
                    _ => {
                        tracing::debug!(
                            "not an answer of a guest agent: {:?}",
                            wire::excerpt(line)
                        );
                    }
                }
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), AgentError> {
        loop {
            // A guest that never stops talking must not keep the deadline from being noticed.
            tokio::task::consume_budget().await;
            self.stream.readable().await?;
            if self.try_read()? {
                return Ok(());
            }
        }
    }

    /// Whether there was something to read.
    fn try_read(&mut self) -> Result<bool, AgentError> {
        match self.stream.try_read_buf(self.lines.space()) {
            Ok(0) => Err(AgentError::Closed),
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Err(AgentError::Closed),
            Err(e) => Err(e.into()),
        }
    }

    async fn write(&mut self, mut bytes: &[u8]) -> Result<(), AgentError> {
        while !bytes.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Err(AgentError::Closed),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

/// What follows the last sentinel of a line.
fn after_sentinel(line: &[u8]) -> Option<&[u8]> {
    line.iter()
        .rposition(|&b| b == SENTINEL)
        .map(|at| &line[at + 1..])
}

/// A command without an id: agents older than QEMU's own id support refuse one.
fn command(name: &str, arguments: Option<&Value>) -> Vec<u8> {
    let mut line = match arguments {
        Some(arguments) => json!({ "execute": name, "arguments": arguments }),
        None => json!({ "execute": name }),
    }
    .to_string();
    line.push('\n');
    line.into_bytes()
}
