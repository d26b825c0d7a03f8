//! A guest's console on this process's terminal, pipe or file.
//!
//! Blocking, on threads of its own: whoever stops reading our output must not stop the supervisor that
//! `mvm run` has in the same process.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{output, terminal};

/// Ctrl-], as in telnet.
const LEAVE: u8 = 0x1d;

/// What a relay carries, and when it ends by itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Ends {
    /// After that long.
    pub(super) after: Option<Duration>,
    /// When the guest has printed that.
    pub(super) at_text: Option<String>,
    /// Standard input is not read.
    pub(super) output_only: bool,
}

/// Why a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// The user pressed Ctrl-].
    Key,
    /// The guest's end was closed.
    Closed,
    /// The text came.
    Text,
    /// The time is over.
    Time,
    /// Nobody reads our output any more.
    NoReader,
}

/// Whether there is a terminal on both sides, to be made raw.
pub(super) fn interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Carries bytes both ways until something ends it. On a terminal it is made raw meanwhile.
///
/// # Errors
/// A terminal that cannot be set, a socket that breaks.
pub(super) fn relay(stream: UnixStream, ends: &Ends) -> io::Result<Left> {
    if ends.output_only {
        return carry_output(&stream, ends);
    }
    let raw = interactive().then(terminal::Raw::enter).transpose()?;
    let key = Arc::new(AtomicBool::new(false));
    let input = Input {
        stream: stream.try_clone()?,
        leave: raw.is_some().then(|| Arc::clone(&key)),
    };
    // It ends with the process, or at Ctrl-]: a blocking read cannot be called back.
    std::thread::Builder::new()
        .name("console-input".to_owned())
        .spawn(move || input.carry())?;
    let left = carry_output(&stream, ends)?;
    drop(raw);
    Ok(match left {
        Left::Closed if key.load(Ordering::Acquire) => Left::Key,
        other => other,
    })
}

/// Standard input on its way to the guest.
struct Input {
    stream: UnixStream,
    leave: Option<Arc<AtomicBool>>,
}

impl Input {
    fn carry(mut self) {
        let mut bytes = [0; 4096];
        loop {
            let got = match io::stdin().lock().read(&mut bytes) {
                Ok(0) => return,
                Ok(got) => &bytes[..got],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            let leave = self
                .leave
                .as_ref()
                .and_then(|flag| Some((flag, got.iter().position(|byte| *byte == LEAVE)?)));
            let Some((flag, at)) = leave else {
                if self.stream.write_all(got).is_err() {
                    return;
                }
                continue;
            };
            // What was typed before the key still arrives; the shutdown ends the other direction.
            let _ = self.stream.write_all(&got[..at]);
            flag.store(true, Ordering::Release);
            let _ = self.stream.shutdown(Shutdown::Both);
            return;
        }
    }
}

fn carry_output(mut stream: &UnixStream, ends: &Ends) -> io::Result<Left> {
    let deadline = ends.after.map(|span| Instant::now() + span);
    let mut watch = ends.at_text.as_deref().map(Watch::new);
    let mut bytes = [0; 16 * 1024];
    loop {
        if let Some(deadline) = deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Left::Time);
            }
            stream.set_read_timeout(Some(left))?;
        }
        let got = match stream.read(&mut bytes) {
            Ok(0) => return Ok(Left::Closed),
            Ok(got) => &bytes[..got],
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted
                | io::ErrorKind::WouldBlock
                | io::ErrorKind::TimedOut => continue,
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                    return Ok(Left::Closed);
                }
                _ => return Err(error),
            },
        };
        match output::stream(got) {
            Ok(true) => {}
            Ok(false) => return Ok(Left::NoReader),
            Err(report) => return Err(io::Error::other(report.chain.join(": "))),
        }
        if watch.as_mut().is_some_and(|watch| watch.found(got)) {
            return Ok(Left::Text);
        }
    }
}

/// Looks for a text in a stream of pieces.
struct Watch<'a> {
    text: &'a [u8],
    tail: Vec<u8>,
}

impl<'a> Watch<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text: text.as_bytes(),
            tail: Vec::new(),
        }
    }

    fn found(&mut self, piece: &[u8]) -> bool {
        self.tail.extend_from_slice(piece);
        let found = self.text.is_empty()
            || self
                .tail
                .windows(self.text.len())
                .any(|window| window == self.text);
        let keep = self.text.len().saturating_sub(1).min(self.tail.len());
        self.tail.drain(..self.tail.len() - keep);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_across_pieces() {
        let mut watch = Watch::new("login:");
        assert!(!watch.found(b"Debian lo"));
        assert!(!watch.found(b"gin"));
        assert!(watch.found(b": "));
        assert!(!watch.found(b"nothing"));
    }
}
