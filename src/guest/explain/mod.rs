//! Why QEMU ended: its words, its exit status and the host around it, turned into cause and fix.
//!
//! [`table`] holds what people meet, one entry each; a text that no entry knows is quoted.

mod table;
mod vfio;

use std::path::Path;

use super::holders;
use super::process::Exit;
use crate::dirs::Dirs;
use crate::error::{ExitCode, Hint};
use crate::ids::GuestName;

/// What is known about an end.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The end of what QEMU wrote to stderr, or the text of a QMP error.
    pub said: &'a str,
    /// How the process ended.
    pub exit: Exit,
    /// Where the other guests are, so that they can be named.
    pub dirs: Option<&'a Dirs>,
}

/// A cause with its fixes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Explained {
    /// The entry of the table, or `unknown`.
    pub id: &'static str,
    /// What happened.
    pub cause: String,
    hints: Vec<String>,
    code: ExitCode,
}

impl Explained {
    /// The same with the guest's name in its hints.
    #[must_use]
    pub(crate) fn of_guest(mut self, name: &GuestName) -> Self {
        for hint in &mut self.hints {
            *hint = hint.replace("NAME", name.as_str());
        }
        self
    }

    /// The same, unless QEMU itself gave no cause and its monitor did.
    #[must_use]
    pub(crate) fn or_from(self, qmp: Option<&str>, dirs: &Dirs) -> Self {
        match qmp {
            Some(text) if self.id == "unknown" => {
                explain_text(text, Some(dirs)).unwrap_or_else(|| Self {
                    cause: format!("{text} ({})", self.cause),
                    ..self
                })
            }
            _ => self,
        }
    }
}

impl Hint for Explained {
    fn hints(&self) -> Vec<String> {
        self.hints.clone()
    }

    fn exit_code(&self) -> ExitCode {
        self.code
    }
}

/// A line of QEMU's that an entry knows, taken apart.
struct Found<'a> {
    /// The whole line without QEMU's name and option before it.
    line: &'a str,
    /// What stands where the entry's pattern has its first `*`.
    what: &'a str,
    dirs: Option<&'a Dirs>,
}

impl Found<'_> {
    /// Who has that file open, in words.
    fn holder(&self, path: &str) -> Option<String> {
        let holder = holders::of(Path::new(path)).into_iter().next()?;
        Some(holder.describe(self.dirs))
    }
}

/// An entry of the table.
struct Entry {
    id: &'static str,
    /// Texts that give it away; `*` stands for anything within a line.
    patterns: &'static [&'static str],
    code: ExitCode,
    cause: fn(&Found<'_>) -> String,
    fix: fn(&Found<'_>) -> String,
}

/// Explains an end.
pub fn explain(evidence: &Evidence<'_>) -> Explained {
    known(evidence).unwrap_or_else(|| by_exit(evidence))
}

/// Explains a text alone, such as a QMP error; `None` where it speaks for itself.
pub fn explain_text(text: &str, dirs: Option<&Dirs>) -> Option<Explained> {
    known(&Evidence {
        said: text,
        exit: Exit::default(),
        dirs,
    })
}

fn known(evidence: &Evidence<'_>) -> Option<Explained> {
    for entry in vfio::TABLE.iter().chain(table::TABLE) {
        for pattern in entry.patterns {
            for line in evidence.said.lines() {
                if let Some(what) = capture(line, pattern) {
                    let found = Found {
                        line: bare(line),
                        what,
                        dirs: evidence.dirs,
                    };
                    return Some(Explained {
                        id: entry.id,
                        cause: (entry.cause)(&found),
                        hints: vec![(entry.fix)(&found)],
                        code: entry.code,
                    });
                }
            }
        }
    }
    None
}

/// Looks for a pattern anywhere in a line; what its first `*` stands for, else the pattern's place.
fn capture<'a>(line: &'a str, pattern: &str) -> Option<&'a str> {
    let mut parts = pattern.split('*');
    let first = parts.next()?;
    let mut rest = &line[line.find(first)? + first.len()..];
    let mut captured = None;
    for part in parts {
        let end = if part.is_empty() {
            rest.len()
        } else {
            rest.find(part)?
        };
        captured.get_or_insert(&rest[..end]);
        rest = &rest[end + part.len()..];
    }
    Some(captured.unwrap_or_default())
}

/// A line without `qemu-system-x86_64:` and the option that it complains about.
fn bare(line: &str) -> &str {
    let line = line.trim();
    let Some((program, rest)) = line.split_once(": ") else {
        return line;
    };
    if !program.starts_with("qemu") {
        return line;
    }
    if !rest.starts_with('-') {
        return rest;
    }
    // The option's value may hold anything; what QEMU says of it comes after the last `}` or `: `.
    let after_json = rest.rfind("}: ").map(|at| &rest[at + 3..]);
    after_json
        .or_else(|| rest.split_once(": ").map(|(_, said)| said))
        .unwrap_or(rest)
}

fn by_exit(evidence: &Evidence<'_>) -> Explained {
    let quoted = quote(evidence.said);
    let with_words = |what: String| match &quoted {
        Some(words) => format!("{what}; it said: {words}"),
        None => what,
    };
    let unknown = |id, cause: String, hint: &str| Explained {
        id,
        cause,
        hints: vec![hint.to_owned()],
        code: ExitCode::Failed,
    };
    const LOG: &str = "`mvm log NAME --qemu` shows all that it said";
    match (evidence.exit.signal, evidence.exit.status) {
        (Some(nix::libc::SIGSYS), _) => unknown(
            "seccomp",
            with_words("QEMU's seccomp filter ended it: it made a system call that the filter forbids".to_owned()),
            "see which feature needs it (`journalctl -k` names the call); `qemu.sandbox = false` in the profile turns the filter off",
        ),
        (Some(nix::libc::SIGKILL), _) => unknown(
            "killed",
            with_words("QEMU was killed (SIGKILL); unless somebody did it by hand, the host ran out of memory".to_owned()),
            "`journalctl -k` tells; give the guest less memory (`memory.size`) or the host more",
        ),
        (Some(signal), _) => unknown(
            "crashed",
            with_words(format!("QEMU crashed ({})", signal_name(signal))),
            "this is a fault of QEMU's: try another version of it, or without the newest device in the profile",
        ),
        (None, status) => {
            let cause = match (&quoted, status) {
                (Some(words), Some(0) | None) => format!("QEMU ended: {words}"),
                (Some(words), Some(code)) => format!("QEMU ended with exit status {code}: {words}"),
                (None, Some(code)) => format!("QEMU ended with exit status {code} and said nothing"),
                (None, None) => "QEMU ended and said nothing".to_owned(),
            };
            unknown("unknown", cause, LOG)
        }
    }
}

fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| format!("signal {signal}"), |known| known.to_string())
}

/// The last lines that say something, on one line.
fn quote(said: &str) -> Option<String> {
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.contains(": warning: "))
        .collect();
    let last = &lines[lines.len().saturating_sub(3)..];
    (!last.is_empty()).then(|| {
        let words: Vec<&str> = last.iter().map(|line| bare(line)).collect();
        words.join(" / ")
    })
}

/// Who sent the signal that QEMU ended at, as QEMU tells it.
pub fn who_signalled(said: &str) -> Option<String> {
    let line = said
        .lines()
        .rev()
        .find(|line| line.contains("terminating on signal"))?;
    Some(format!("QEMU was told to end: {}", bare(line)))
}

#[cfg(test)]
mod tests;
