//! Cuts what a client sends into messages, the way QEMU's own parser does: by braces, not by
//! lines, with strings in either kind of quotes, and going on after an error.

use std::borrow::Cow;

/// A buffer larger than this is given back once it is empty.
const KEEP: usize = 16 << 10;
/// QEMU gives up on a message nested deeper than 1024 in the middle, and takes what follows for
/// messages of their own. It must never get one.
const MAX_DEPTH: usize = 1000;

/// What a client said.
#[derive(Debug, PartialEq)]
pub(super) enum Frame<'a> {
    /// Something in balanced braces or brackets, in standard JSON as far as quotes go.
    Message(Cow<'a, [u8]>),
    /// Something that cannot be part of JSON here, or is nested too deep.
    Junk,
}

#[derive(Default)]
pub(super) struct Framer {
    buf: Vec<u8>,
    /// Where the message that is not given out yet begins.
    start: usize,
    /// What has been looked at.
    at: usize,
    depth: usize,
    /// The quote that ends the string we are in.
    quote: Option<u8>,
    escaped: bool,
    /// There are quotes that standard JSON lacks.
    quirks: bool,
    /// This message is nested too deep.
    too_deep: bool,
}

impl Framer {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.start == self.buf.len() {
            self.buf.clear();
            if self.buf.capacity() > KEEP {
                self.buf = Vec::new();
            }
        } else {
            self.buf.drain(..self.start);
        }
        self.at -= self.start;
        self.start = 0;
        self.buf.extend_from_slice(bytes);
    }

    /// Bytes that wait for the rest of their message.
    pub(super) fn pending(&self) -> usize {
        self.buf.len() - self.start
    }

    pub(super) fn next(&mut self) -> Option<Frame<'_>> {
        while let Some(&byte) = self.buf.get(self.at) {
            self.at += 1;
            if byte >= 0xfe || (byte < b' ' && self.quote.is_some()) {
                return Some(self.junk());
            }
            if let Some(quote) = self.quote {
                if std::mem::take(&mut self.escaped) {
                    self.quirks |= byte == b'\'';
                } else if byte == b'\\' {
                    self.escaped = true;
                } else if byte == quote {
                    self.quote = None;
                }
                continue;
            }
            match byte {
                b'{' | b'[' => {
                    if self.depth == 0 {
                        self.start = self.at - 1;
                    }
                    self.depth += 1;
                    self.too_deep |= self.depth > MAX_DEPTH;
                }
                b'}' | b']' if self.depth == 0 => return Some(self.junk()),
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 && self.too_deep {
                        return Some(self.junk());
                    }
                    if self.depth == 0 {
                        return Some(self.message());
                    }
                }
                b'"' | b'\'' if self.depth > 0 => {
                    self.quote = Some(byte);
                    self.quirks |= byte == b'\'';
                }
                b' ' | b'\t' | b'\r' | b'\n' if self.depth == 0 => self.start = self.at,
                _ if self.depth == 0 => {
                    // One complaint for the whole word.
                    let rest = &self.buf[self.at..];
                    let end = |b: &u8| b.is_ascii_whitespace() || b"{[}]".contains(b) || *b >= 0xfe;
                    self.at += rest.iter().position(end).unwrap_or(rest.len());
                    return Some(self.junk());
                }
                _ => {}
            }
        }
        None
    }

    fn junk(&mut self) -> Frame<'static> {
        self.start = self.at;
        self.depth = 0;
        self.quote = None;
        self.escaped = false;
        self.quirks = false;
        self.too_deep = false;
        Frame::Junk
    }

    fn message(&mut self) -> Frame<'_> {
        let from = std::mem::replace(&mut self.start, self.at);
        let text = &self.buf[from..self.at];
        Frame::Message(if std::mem::take(&mut self.quirks) {
            Cow::Owned(standard(text))
        } else {
            Cow::Borrowed(text)
        })
    }
}

/// The same with double quotes only.
fn standard(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 16);
    let mut quote = None;
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        match (quote, byte) {
            (None, b'"' | b'\'') => {
                quote = Some(byte);
                out.push(b'"');
            }
            (Some(open), _) if byte == open => {
                quote = None;
                out.push(b'"');
            }
            (Some(_), b'"') => out.extend_from_slice(b"\\\""),
            (Some(_), b'\\') => match bytes.next() {
                Some(b'\'') => out.push(b'\''),
                next => out.extend([byte].into_iter().chain(next)),
            },
            _ => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(framer: &mut Framer) -> Vec<String> {
        let mut out = Vec::new();
        while let Some(frame) = framer.next() {
            out.push(match frame {
                Frame::Message(text) => String::from_utf8_lossy(&text).into_owned(),
                Frame::Junk => "junk".to_owned(),
            });
        }
        out
    }

    fn frames(text: &[u8]) -> Vec<String> {
        let mut whole = Framer::default();
        whole.push(text);
        let got = all(&mut whole);
        assert_eq!(whole.pending(), 0, "{:?}", String::from_utf8_lossy(text));
        // Byte by byte nothing changes, but that a word of junk is not known to be one.
        if !got.contains(&"junk".to_owned()) {
            let mut single = Framer::default();
            let mut bytes = Vec::new();
            for byte in text {
                single.push(&[*byte]);
                bytes.extend(all(&mut single));
            }
            assert_eq!(bytes, got);
        }
        got
    }

    #[test]
    fn messages_need_no_lines() {
        assert_eq!(
            frames(b"{\"a\":{}}{\"b\":[]}\n"),
            ["{\"a\":{}}", "{\"b\":[]}"]
        );
        assert_eq!(frames(b" \r\n{\n \"a\": 1\n}\n"), ["{\n \"a\": 1\n}"]);
        assert_eq!(frames(br#"{"a":"}\"]\\"}"#), [r#"{"a":"}\"]\\"}"#]);
        assert_eq!(frames(b"[1]"), ["[1]"]);
    }

    #[test]
    fn single_quotes_are_taken_as_qemu_takes_them() {
        assert_eq!(
            frames(br#"{'a': 'b"}c', "it's": '\'\n'}"#),
            [r#"{"a": "b\"}c", "it's": "'\n"}"#]
        );
        assert_eq!(frames(br#"{"a": "it\'s"}"#), [r#"{"a": "it's"}"#]);
    }

    #[test]
    fn errors_are_passed_over() {
        assert_eq!(frames(b"hello {\"a\":1}"), ["junk", "{\"a\":1}"]);
        assert_eq!(frames(b"}\n{\"a\":1}"), ["junk", "{\"a\":1}"]);
        assert_eq!(frames(b"{\"a\":\"\xff{\"a\":1}"), ["junk", "{\"a\":1}"]);
        assert_eq!(frames(b"{\"a\":\"b\n{\"a\":1}"), ["junk", "{\"a\":1}"]);
        let deep = [vec![b'['; 1001], vec![b']'; 1001], b"{}".to_vec()].concat();
        assert_eq!(frames(&deep), ["junk", "{}"]);
        assert_eq!(frames(b"5\n6 \"x\"\n"), ["junk", "junk", "junk"]);
    }
}
