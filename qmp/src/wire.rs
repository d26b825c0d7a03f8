//! The bytes on a QMP connection: QEMU's lines taken apart no further than needed, ours put together.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, value::RawValue};

/// A line longer than this is not QEMU's. `query-qmp-schema` is a quarter of a megabyte.
const MAX_LINE: usize = 64 << 20;
/// A buffer larger than this is given back once it is empty.
const KEEP: usize = 32 << 10;
/// Room made for a read.
const CHUNK: usize = 4 << 10;

/// One message from QEMU, its values still text.
#[derive(Deserialize)]
pub(crate) struct Message<'a> {
    #[serde(borrow, rename = "return", default, deserialize_with = "present")]
    pub(crate) ret: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) error: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(crate) id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) event: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(crate) data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) timestamp: Option<&'a RawValue>,
    #[serde(borrow, rename = "QMP", default)]
    pub(crate) greeting: Option<&'a RawValue>,
}

/// Tells `null` from absent.
pub(crate) fn present<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// The two members of an error reply.
#[derive(Deserialize, Serialize)]
pub(crate) struct ErrorBody {
    #[serde(default)]
    pub(crate) class: String,
    #[serde(default)]
    pub(crate) desc: String,
}

/// How a command went.
#[derive(Clone, Copy)]
pub(crate) enum Outcome<'a> {
    Return(&'a RawValue),
    Error(&'a RawValue),
}

/// A request line of our own.
pub(crate) fn request(name: &str, arguments: Option<&Value>, oob: bool, id: u64) -> Vec<u8> {
    let arguments = arguments.map(Value::to_string);
    request_raw(name, arguments.as_deref(), oob, id)
}

/// A request line whose arguments are JSON text already.
pub(crate) fn request_raw(name: &str, arguments: Option<&str>, oob: bool, id: u64) -> Vec<u8> {
    let mut line = Vec::with_capacity(64 + arguments.map_or(0, str::len));
    line.extend_from_slice(if oob {
        b"{\"exec-oob\":"
    } else {
        b"{\"execute\":"
    });
    line.extend_from_slice(Value::from(name).to_string().as_bytes());
    if let Some(arguments) = arguments {
        line.extend_from_slice(b",\"arguments\":");
        line.extend_from_slice(arguments.as_bytes());
    }
    line.extend_from_slice(b",\"id\":");
    line.extend_from_slice(id.to_string().as_bytes());
    line.extend_from_slice(b"}\n");
    line
}

/// An error's class and description, however it is written.
pub(crate) fn error_body(raw: &RawValue) -> ErrorBody {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| ErrorBody {
        class: String::new(),
        desc: raw.get().to_owned(),
    })
}

/// Raw JSON as a value; as text where it is beyond what a value holds.
pub(crate) fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| Value::from(raw.get()))
}

/// Bytes read, given out line by line.
pub(crate) struct Lines {
    /// A line longer than this is dropped.
    limit: usize,
    buf: Vec<u8>,
    /// Where the line that is not given out yet begins.
    start: usize,
    /// Up to where there is no newline.
    scanned: usize,
    /// The rest of a line that was too long is being dropped.
    skipping: bool,
}

impl Default for Lines {
    fn default() -> Self {
        Self::with_limit(MAX_LINE)
    }
}

impl Lines {
    pub(crate) fn with_limit(limit: usize) -> Self {
        Self {
            limit,
            buf: Vec::new(),
            start: 0,
            scanned: 0,
            skipping: false,
        }
    }

    /// Where the next read appends.
    pub(crate) fn space(&mut self) -> &mut Vec<u8> {
        if self.start == self.buf.len() {
            self.buf.clear();
            if self.buf.capacity() > KEEP {
                self.buf = Vec::new();
            }
        } else if self.start > 0 {
            self.buf.drain(..self.start);
        }
        self.scanned -= self.start.min(self.scanned);
        self.start = 0;
        if self.buf.capacity() - self.buf.len() < CHUNK / 2 {
            self.buf.reserve(CHUNK);
        }
        &mut self.buf
    }

    /// The next whole line without its end; `Err` for one that was too long and is dropped.
    pub(crate) fn next_line(&mut self) -> Option<Result<&[u8], usize>> {
        let Some(at) = self.buf[self.scanned..].iter().position(|&b| b == b'\n') else {
            self.scanned = self.buf.len();
            let length = self.buf.len() - self.start;
            if length > self.limit || (self.skipping && length > 0) {
                self.start = self.buf.len();
                return (!std::mem::replace(&mut self.skipping, true)).then_some(Err(length));
            }
            return None;
        };
        let line = self.start..self.scanned + at;
        self.start = line.end + 1;
        self.scanned = self.start;
        if std::mem::take(&mut self.skipping) {
            return Some(Ok(&[]));
        }
        Some(Ok(self.buf[line].trim_ascii()))
    }

    /// Drops what has come in since the last whole line.
    pub(crate) fn forget(&mut self) {
        self.start = self.buf.len();
        self.scanned = self.start;
        self.skipping = false;
    }

    /// What has come in since the last whole line.
    pub(crate) fn partial(&self) -> &[u8] {
        &self.buf[self.start..]
    }
}

/// The beginning of something unexpected, fit for a message.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]);
    text.trim_end_matches('\u{fffd}').to_owned()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn drain(lines: &mut Lines) -> Vec<String> {
        let mut out = Vec::new();
        while let Some(line) = lines.next_line() {
            out.push(String::from_utf8(line.unwrap().to_vec()).unwrap());
        }
        out
    }

    #[test]
    fn lines_come_out_whole_however_they_came_in() {
        let mut lines = Lines::default();
        let mut got = Vec::new();
        for chunk in ["{\"a\"", ":1}\r", "\n{}\n\n  {\"b\"", ":2}", "\n"] {
            lines.space().extend_from_slice(chunk.as_bytes());
            got.extend(drain(&mut lines));
        }
        assert_eq!(got, ["{\"a\":1}", "{}", "", "{\"b\":2}"]);
        lines.space().extend_from_slice(b"half");
        assert!(drain(&mut lines).is_empty());
        assert_eq!(lines.partial(), b"half");
    }

    #[test]
    fn a_line_without_end_is_dropped_once_and_the_next_one_read() {
        let mut lines = Lines::default();
        lines.space().resize(MAX_LINE + 1, b'x');
        assert!(matches!(lines.next_line(), Some(Err(n)) if n > MAX_LINE));
        assert!(lines.next_line().is_none());
        lines.space().extend_from_slice(b"still more");
        assert!(lines.next_line().is_none());
        lines.space().extend_from_slice(b"end\n{}\n");
        assert_eq!(drain(&mut lines), ["", "{}"]);
    }

    #[test]
    fn a_big_buffer_is_given_back() {
        let mut lines = Lines::default();
        lines.space().resize(4 * KEEP, b' ');
        lines.space().push(b'\n');
        drain(&mut lines);
        assert!(lines.space().capacity() <= KEEP);
    }

    #[test]
    fn requests_are_one_line_of_json() {
        let line = request("a\"b", Some(&serde_json::json!({"x": "1\n2"})), true, 7);
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"exec-oob": "a\"b", "arguments": {"x": "1\n2"}, "id": 7})
        );
        assert_eq!(line.iter().filter(|&&b| b == b'\n').count(), 1);
    }

    #[test]
    fn null_is_not_absent() {
        let message: Message<'_> = serde_json::from_str(r#"{"return": null, "id": null}"#).unwrap();
        assert_eq!(message.ret.unwrap().get(), "null");
        assert_eq!(message.id.unwrap().get(), "null");
        let message: Message<'_> =
            serde_json::from_str(r#"{"event": "X", "new-member": 1}"#).unwrap();
        assert!(message.ret.is_none() && message.id.is_none());
    }
}
