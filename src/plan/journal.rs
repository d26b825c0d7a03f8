//! The inverses on disk: one JSON object a line, synced before the step that it takes back.
//!
//! A device that leaves a running guest is taken back before the guest ends: each of its inverses that
//! was carried out is struck out by a line of its own, `{"done": STEP}`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::step::Step;
use crate::error::Hint;
use crate::ids::{Bdf, Id};
use crate::ops::{Ops, OpsError, moment};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The index of the step in its plan.
    pub step: usize,
    /// What takes it back.
    pub undo: Step,
    /// The device that it is for, where it can leave a running guest.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device: Option<Id>,
}

/// What a line can be.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Entry(Entry),
    Done { done: Step },
}

#[derive(Serialize)]
struct Done<'a> {
    done: &'a Step,
}

/// The journal cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A system call failed.
    #[error("cannot {what} the journal {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The journal.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A whole line that is no entry: another version's, or damaged.
    #[error("line {line} of the journal {} is not a journal entry", path.display())]
    Line {
        /// The journal.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl Hint for JournalError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Line { .. } => {
                vec!["run the mvm that started the guest: `mvm recover`".to_owned()]
            }
            Self::Io { .. } => Vec::new(),
        }
    }
}

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Starts a new journal; an older one must have been rolled back.
    ///
    /// # Errors
    /// The file is there already or cannot be made.
    pub fn create(path: &Path) -> Result<Self, JournalError> {
        let io = |source| JournalError::Io {
            what: "make",
            path: path.to_owned(),
            source,
        };
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(io)?;
        if let Some(dir) = path.parent() {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)?;
        }
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    /// Goes on with the journal of a guest that runs.
    ///
    /// # Errors
    /// There is none, or it cannot be written.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let file = OpenOptions::new().append(true).open(path);
        Ok(Self {
            path: path.to_owned(),
            file: file.map_err(|source| JournalError::Io {
                what: "open",
                path: path.to_owned(),
                source,
            })?,
        })
    }

    /// Writes and syncs entries. Only then may their steps be run.
    ///
    /// # Errors
    /// The disk did not take them.
    pub fn record(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        self.append(entries)
    }

    /// Strikes out an inverse that has been carried out while the guest goes on.
    ///
    /// # Errors
    /// The disk did not take it.
    pub fn strike(&mut self, undo: &Step) -> Result<(), JournalError> {
        self.append(&[Done { done: undo }])
    }

    fn append(&mut self, what: &[impl Serialize]) -> Result<(), JournalError> {
        let io = |source| JournalError::Io {
            what: "write",
            path: self.path.clone(),
            source,
        };
        let mut lines = Vec::new();
        for line in what {
            serde_json::to_writer(&mut lines, line).map_err(|error| io(error.into()))?;
            lines.push(b'\n');
        }
        if lines.is_empty() {
            return Ok(());
        }
        moment::pass();
        self.file.write_all(&lines).map_err(io)?;
        self.file.sync_data().map_err(io)?;
        moment::pass();
        Ok(())
    }
}

/// Reads what is still to be taken back, oldest entry first. A last line without its end was not
/// synced, so its step was not run: it is left out. No journal is an empty one.
///
/// # Errors
/// A whole line is no entry, or the file cannot be read.
pub fn read(path: &Path) -> Result<Vec<Entry>, JournalError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(JournalError::Io {
                what: "read",
                path: path.to_owned(),
                source,
            });
        }
    };
    let whole = text
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |at| at + 1);
    let lines = text[..whole].split(|b| *b == b'\n').enumerate();
    let mut entries: Vec<Entry> = Vec::new();
    for (index, line) in lines.filter(|(_, line)| !line.is_empty()) {
        let line = serde_json::from_slice(line).map_err(|source| JournalError::Line {
            path: path.to_owned(),
            line: index + 1,
            source,
        })?;
        match line {
            Line::Entry(entry) => entries.push(entry),
            Line::Done { done } => {
                if let Some(at) = entries.iter().rposition(|entry| entry.undo == done) {
                    entries.remove(at);
                }
            }
        }
    }
    Ok(entries)
}

/// Takes back what the entries say, newest first, past errors. A directory is left alone once
/// anything inside it could not be taken back: the journal in it is needed again. So is the lease of a
/// device that could not be given back.
pub fn roll_back(ops: &dyn Ops, entries: &[Entry]) -> Vec<OpsError> {
    let mut back = TakingBack::default();
    for entry in entries.iter().rev() {
        back.one(ops, entry);
    }
    back.errors
}

/// Takes back what was done for one device of a guest that goes on running: each inverse that was
/// carried out is struck out.
///
/// # Errors
/// The journal cannot be read or written. What the host refused is in the list.
pub fn take_back_device(
    ops: &dyn Ops,
    journal: &Path,
    device: &Id,
) -> Result<Vec<OpsError>, JournalError> {
    take_back_entries(ops, journal, |entry| entry.device.as_ref() == Some(device))
}

/// The same for the entries that are chosen. Virtual functions stay as long as the guest has another of
/// them, whichever entry made them.
///
/// # Errors
/// As [`take_back_device`].
pub fn take_back_entries(
    ops: &dyn Ops,
    journal: &Path,
    chosen: impl Fn(&Entry) -> bool,
) -> Result<Vec<OpsError>, JournalError> {
    let entries = read(journal)?;
    let mut book = Journal::open(journal)?;
    let mut back = TakingBack::default();
    let of_pf = |entry: &Entry, pf: &Bdf| {
        let prefix = format!("pci-{pf}-vf");
        let lease = entry.undo.lease();
        lease.is_some_and(|key| key.starts_with(&prefix))
    };
    let wanted = |entry: &&Entry| match &entry.undo {
        Step::DropVfs { pf, .. } => {
            let mut leases = entries.iter().filter(|other| of_pf(other, pf));
            let touched = chosen(entry) || leases.clone().any(&chosen);
            touched && leases.all(&chosen)
        }
        _ => chosen(entry),
    };
    for entry in entries.iter().rev().filter(wanted) {
        if back.one(ops, entry) {
            book.strike(&entry.undo)?;
        }
    }
    Ok(back.errors)
}

/// An error with its causes on one line.
pub fn in_words(error: &OpsError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A roll-back under way.
#[derive(Default)]
struct TakingBack {
    errors: Vec<OpsError>,
    /// The leases of devices that are still taken.
    taken: Vec<String>,
}

impl TakingBack {
    /// Whether the entry's inverse was carried out.
    fn one(&mut self, ops: &dyn Ops, entry: &Entry) -> bool {
        let lease = entry.undo.lease();
        let needed = match &entry.undo {
            Step::RemoveDir { .. } => !self.errors.is_empty(),
            Step::ReleaseLease { key, .. } => self.taken.contains(key),
            // With a virtual function still in use, removing it would wait for its user.
            Step::DropVfs { pf, .. } => {
                let of_pf = format!("pci-{pf}-vf");
                self.taken.iter().any(|key| key.starts_with(&of_pf))
            }
            _ => false,
        };
        if needed {
            return false;
        }
        let Err(error) = ops.run(&entry.undo) else {
            return true;
        };
        tracing::warn!(%error, step = entry.step, "cannot take back");
        self.taken.extend(lease);
        self.errors.push(error);
        false
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn entry(step: usize) -> Entry {
        Entry {
            step,
            undo: Step::RemoveFile {
                path: format!("/f{step}").into(),
            },
            device: None,
        }
    }

    #[test]
    fn a_torn_last_line_was_not_run() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("journal.jsonl");
        assert_eq!(read(&path).unwrap(), []);
        let mut journal = Journal::create(&path).unwrap();
        journal.record(&[entry(0)]).unwrap();
        journal.record(&[entry(1)]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let first = whole.iter().position(|b| *b == b'\n').unwrap() + 1;
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let expected = usize::from(cut >= first) + usize::from(cut == whole.len());
            assert_eq!(read(&path).unwrap().len(), expected, "cut at {cut}");
        }
        assert!(
            Journal::create(&path).is_err(),
            "an old journal is not overwritten"
        );
    }

    #[test]
    fn what_is_struck_out_is_not_taken_back_again() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("journal.jsonl");
        let file = |name: &str| top.path().join(name);
        let of = |step, name: &str, device: Option<&str>| Entry {
            step,
            undo: Step::RemoveFile { path: file(name) },
            device: device.map(|id| id.parse().unwrap()),
        };
        let entries = [
            of(0, "a", None),
            of(1, "b", Some("nic")),
            of(2, "c", Some("nic")),
        ];
        Journal::create(&path).unwrap().record(&entries).unwrap();
        for name in ["a", "b", "c"] {
            std::fs::write(file(name), "").unwrap();
        }
        let host = crate::ops::Host::default();
        let left = take_back_device(&host, &path, &"nic".parse().unwrap()).unwrap();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(read(&path).unwrap(), entries[..1]);
        assert!(file("a").exists() && !file("b").exists() && !file("c").exists());
        // The same again is an attachment of its own.
        Journal::open(&path)
            .unwrap()
            .record(&entries[1..2])
            .unwrap();
        assert_eq!(read(&path).unwrap(), entries[..2]);
    }

    #[test]
    fn a_damaged_line_is_named() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("journal.jsonl");
        std::fs::write(
            &path,
            "{\"step\":0,\"undo\":{\"do\":\"remove-file\",\"path\":\"/a\"}}\nxx\n",
        )
        .unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.starts_with("line 2 of"), "{error}");
    }
}
