//! The monitor of the QEMU that is the host: for pulling out and plugging in what the host has.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A connection past its greeting.
pub(crate) struct Qmp {
    reader: BufReader<UnixStream>,
    events: Vec<Value>,
}

impl Qmp {
    pub(crate) fn connect(socket: &Path) -> std::io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        let mut qmp = Self {
            reader: BufReader::new(stream),
            events: Vec::new(),
        };
        qmp.ask("qmp_capabilities", json!({}));
        Ok(qmp)
    }

    /// The answer to a command that must succeed.
    #[track_caller]
    pub(crate) fn ask(&mut self, command: &str, arguments: Value) -> Value {
        let request = json!({ "execute": command, "arguments": arguments });
        let stream = self.reader.get_mut();
        writeln!(stream, "{request}").expect("the outer QEMU lives");
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(20) {
            let Some(message) = self.read() else { continue };
            if message.get("return").is_some() || message.get("error").is_some() {
                assert!(message.get("error").is_none(), "{request}: {message}");
                return message["return"].clone();
            }
            self.keep(message);
        }
        panic!("no answer to {request}");
    }

    /// Waits for an event about that device; whether it came.
    pub(crate) fn event(&mut self, name: &str, device: &str, limit: Duration) -> bool {
        let begin = Instant::now();
        loop {
            let found = self
                .events
                .iter()
                .position(|event| event["event"] == name && event["data"]["device"] == device);
            if let Some(at) = found {
                self.events.remove(at);
                return true;
            }
            if begin.elapsed() > limit {
                return false;
            }
            if let Some(message) = self.read() {
                self.keep(message);
            }
        }
    }

    fn keep(&mut self, message: Value) {
        if message.get("event").is_some() {
            self.events.push(message);
        }
    }

    /// The next message, or nothing for a while.
    fn read(&mut self) -> Option<Value> {
        let mut line = String::new();
        let begin = Instant::now();
        // A line that came in part stays in `line`: it is read on.
        while begin.elapsed() < Duration::from_secs(5) {
            match self.reader.read_line(&mut line) {
                Ok(0) => panic!("the outer QEMU closed its monitor"),
                Ok(_) => return serde_json::from_str(&line).ok(),
                Err(_) if line.is_empty() => return None,
                Err(_) => {}
            }
        }
        None
    }
}
