//! An error at a place of a text: the line, a caret, and what may have been meant.

use std::fmt;
use std::ops::Range;

use super::tree::Source;
use crate::error::did_you_mean;

/// Longest part of a line that is shown.
const WIDTH: usize = 100;

/// What is wrong at one place of a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub source: Source,
    /// The line, 1 first.
    pub line: u32,
    /// The column in characters, 1 first.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// The line and the caret under it, in two lines of text.
    pub excerpt: String,
    /// What can be done about it.
    pub hints: Vec<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}: {}\n{}",
            self.source, self.line, self.column, self.message, self.excerpt
        )
    }
}

/// A text and the starts of its lines.
pub(super) struct Text<'a> {
    pub(super) source: &'a Source,
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Text<'a> {
    pub(super) fn new(source: &'a Source, text: &'a str) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            source,
            text,
            starts: std::iter::once(0).chain(ends).collect(),
        }
    }

    /// The line of a byte, 1 first.
    pub(super) fn line(&self, at: usize) -> u32 {
        u32::try_from(self.starts.partition_point(|start| *start <= at)).unwrap_or(u32::MAX)
    }

    /// The fault at a span of the text.
    pub(super) fn fault(&self, span: Range<usize>, told: Told) -> Fault {
        let at = span.start.min(self.text.len());
        let line = self.line(at);
        let start = self.starts[line as usize - 1];
        let whole = self.text[start..].lines().next().unwrap_or_default();
        let before = self.text.get(start..at).unwrap_or(whole).chars().count();
        let marked = self.text.get(span).map_or(1, |marked| {
            marked.lines().next().unwrap_or_default().chars().count()
        });
        Fault {
            source: self.source.clone(),
            line,
            column: u32::try_from(before + 1).unwrap_or(u32::MAX),
            message: told.message,
            excerpt: excerpt(line, whole, before, marked),
            hints: told.hints,
        }
    }
}

/// The line with a caret under the marked part; a long line is cut around it.
fn excerpt(line: u32, whole: &str, before: usize, marked: usize) -> String {
    let skip = if before + marked.min(20) > WIDTH {
        before.saturating_sub(WIDTH / 2)
    } else {
        0
    };
    let mut shown: String = whole.chars().skip(skip).take(WIDTH).map(tame).collect();
    if whole.chars().nth(skip + WIDTH).is_some() {
        shown.push('…');
    }
    let lead = if skip > 0 { "…" } else { "" };
    let number = line.to_string();
    let room = WIDTH.saturating_sub(before - skip);
    let carets = "^".repeat(marked.clamp(1, room.max(1)));
    let gutter = " ".repeat(number.len());
    let indent = " ".repeat(before - skip + lead.chars().count());
    format!("{number} | {lead}{shown}\n{gutter} | {indent}{carets}")
}

/// A character that a terminal shows and does not obey.
fn tame(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

/// A text from a file as it can be shown: one line, not too long, nothing that a terminal obeys.
pub(super) fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(200).map(tame).collect();
    if text.chars().nth(200).is_some() {
        out.push('…');
    }
    out
}

/// A message and its hints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) message: String,
    pub(super) hints: Vec<String>,
}

impl Told {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hints: Vec::new(),
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Says at which key it is.
    pub(super) fn at(mut self, path: &[String]) -> Self {
        if !path.is_empty() {
            self.message = format!("`{}`: {}", shown(&dotted(path)), self.message);
        }
        self
    }
}

/// A path of keys as TOML writes it.
pub(super) fn dotted(path: &[String]) -> String {
    path.iter()
        .map(|key| key_text(key))
        .collect::<Vec<_>>()
        .join(".")
}

/// A key as TOML writes it.
pub(super) fn key_text(key: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !key.is_empty() && key.bytes().all(bare) {
        key.to_owned()
    } else {
        toml::Value::String(key.to_owned()).to_string()
    }
}

/// What the TOML reader says, in the words of profiles. `path` is the key that it is about, and
/// `holder` the table that an unknown key stands in.
pub(super) fn explain(message: &str, path: &[String]) -> Told {
    if let Some((key, known)) = listed(message, "unknown field `") {
        let holder = path.split_last().map_or(&[][..], |(_, holder)| holder);
        let place = if holder.is_empty() {
            String::new()
        } else {
            format!(" in `{}`", shown(&dotted(holder)))
        };
        let told = Told::new(format!("unknown key `{}`{place}", shown(key)));
        return match did_you_mean(key, known.iter().copied()) {
            Some(near) => told.hint(format!("did you mean `{near}`?")),
            None if known.is_empty() => told.hint("no key can stand here"),
            None => told.hint(format!("the keys here are `{}`", known.join("`, `"))),
        };
    }
    if let Some((word, known)) = listed(message, "unknown variant `") {
        let told = Told::new(format!(
            "`{}` is not one of `{}`",
            shown(word),
            known.join("`, `")
        ))
        .at(path);
        return match did_you_mean(word, known.iter().copied()) {
            Some(near) => told.hint(format!("did you mean `{near}`?")),
            None => told,
        };
    }
    let mut told = mismatch(message).unwrap_or_else(|| Told::new(shown(message)));
    if path.last().is_some_and(|key| key == "size") && !told.hints.is_empty() {
        told.hints = vec!["write it with its unit and in quotes, as in \"4G\"".to_owned()];
    }
    told.at(path)
}

/// `unknown … `word`, expected one of `a`, `b`` in its parts.
fn listed<'a>(message: &'a str, prefix: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let rest = message.strip_prefix(prefix)?;
    let end = rest
        .rfind("`, expected ")
        .or_else(|| rest.rfind("`, there are no"))?;
    let known = rest[end + 1..].split('`').skip(1).step_by(2).collect();
    Some((&rest[..end], known))
}

/// `invalid type: …, expected …` in other words.
fn mismatch(message: &str) -> Option<Told> {
    if message == "wanted string or table" {
        return Some(
            Told::new("expected a word in quotes").hint("write the value in double quotes"),
        );
    }
    let rest = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))?;
    let (found, expected) = rest.rsplit_once(", expected ")?;
    // One of several words, where something else than a text stands.
    if expected == "string only" {
        return Some(
            Told::new("expected a word in quotes").hint("write the value in double quotes"),
        );
    }
    let (kind, value) = match found.split_once(' ') {
        Some(("integer" | "boolean", value)) => ("", value.trim_matches('`')),
        Some(("floating", value)) => ("", value.trim_start_matches("point ").trim_matches('`')),
        Some(("string", value)) => ("the text ", value),
        _ if found == "map" => ("a table", ""),
        _ if found == "sequence" => ("a list", ""),
        _ => (found, ""),
    };
    let wanted = match expected {
        "a string" => "a text",
        "u32" => "a whole number from 0 to 4294967295",
        "a boolean" => "`true` or `false`",
        "a sequence" => "a list",
        "a map" => "a table",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    let told = Told::new(format!("expected {wanted}, found {kind}{}", shown(value)));
    let bare = value.trim_matches('"');
    Some(match expected {
        "a string" if kind.is_empty() => {
            told.hint(format!("write it in quotes: \"{}\"", shown(value)))
        }
        "u32" if bare.parse::<u32>().is_ok() => {
            told.hint(format!("write it without quotes: {bare}"))
        }
        "a boolean" if matches!(bare, "true" | "false") => {
            told.hint(format!("write it without quotes: {bare}"))
        }
        "a sequence" => told.hint("a list is written in brackets: [\"a\", \"b\"]"),
        _ if wanted == "a table" => told.hint("a table is written in braces: { key = value }"),
        _ => told,
    })
}
