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

/// A request but for its end. Space between JSON's tokens and empty arguments are left out.
pub(crate) fn open_request(name: &str, arguments: Option<&str>, oob: bool) -> Vec<u8> {
    let mut line = Vec::with_capacity(48 + arguments.map_or(0, str::len));
    line.extend_from_slice(if oob {
        b"{\"exec-oob\":"
    } else {
        b"{\"execute\":"
    });
    line.extend_from_slice(Value::from(name).to_string().as_bytes());
    let before = line.len();
    line.extend_from_slice(b",\"arguments\":");
    let start = line.len();
    let mut in_string = false;
    let mut escaped = false;
    for byte in arguments.unwrap_or("{}").bytes() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            in_string = byte == b'"';
        }
        line.push(byte);
    }
    if line[start..] == *b"{}" {
        line.truncate(before);
    }
    line
}

/// Ends what [`open_request`] began.
pub(crate) fn close_request(mut line: Vec<u8>, id: Option<u64>) -> Vec<u8> {
    if let Some(id) = id {
        line.extend_from_slice(b",\"id\":");
        line.extend_from_slice(id.to_string().as_bytes());
    }
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

    fn request(name: &str, arguments: Option<&str>, oob: bool, id: Option<u64>) -> String {
        String::from_utf8(close_request(open_request(name, arguments, oob), id)).unwrap()
    }

    #[test]
    fn requests_are_short_lines_of_json() {
        let line = request(
            "a\"b",
            Some("{ \"x\" :\n\"1 \\\" \\\\\", \"y\": [1, 2] }"),
            true,
            Some(7),
        );
        assert_eq!(
            line,
            "{\"exec-oob\":\"a\\\"b\",\"arguments\":{\"x\":\"1 \\\" \\\\\",\"y\":[1,2]},\"id\":7}\n"
        );
        assert_eq!(
            request("stop", Some(" { } "), false, None),
            "{\"execute\":\"stop\"}\n"
        );
        assert_eq!(
            request("stop", None, false, Some(1)),
            "{\"execute\":\"stop\",\"id\":1}\n"
        );
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
