//! The inverses on disk: one JSON object a line, synced before the step that it takes back.
//!
//! Each inverse that was carried out is struck out by a line of its own, `{"done": STEP}`: a device that
//! left a running guest, or was given back at an end where something else stuck, may be another guest's
//! by the time that the journal is read again.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::step::Step;
pub(crate) use super::takeback::waits_for;
pub use super::takeback::{
    Leases, TakenBack, in_words, roll_back, take_back_device, take_back_entries,
};
use crate::error::Hint;
use crate::ids::Id;
use crate::ops::moment;

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

    /// Goes on with the journal of a guest. A last line without its end is cut off: what is written
    /// next would become a part of it.
    ///
    /// # Errors
    /// There is none, or it cannot be written.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let open = || {
            let mut file = OpenOptions::new().read(true).append(true).open(path)?;
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            let whole = whole_lines(&text).len();
            if whole < text.len() {
                file.set_len(whole as u64)?;
            }
            Ok(file)
        };
        Ok(Self {
            path: path.to_owned(),
            file: open().map_err(|source| JournalError::Io {
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
        self.append(entries, true)
    }

    /// Strikes out an inverse that has been carried out.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn strike(&mut self, undo: &Step) -> Result<(), JournalError> {
        // Without a sync: it is for those who read the journal after us, and after a power failure the
        // devices are as the host finds them.
        self.append(&[Done { done: undo }], false)
    }

    fn append(&mut self, what: &[impl Serialize], sync: bool) -> Result<(), JournalError> {
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
        let length = self.file.metadata().map_err(io)?.len();
        moment::pass();
        let mut done = self.file.write_all(&lines);
        if sync {
            done = done.and_then(|()| self.file.sync_data());
        }
        if done.is_err() {
            // What is half there must not become a part of the next line. Where even this fails,
            // reading leaves it out, and the next to open the journal cuts it off.
            let _ = self.file.set_len(length);
        }
        done.map_err(io)?;
        moment::pass();
        Ok(())
    }
}

/// The lines that have their end.
fn whole_lines(text: &[u8]) -> &[u8] {
    let end = text
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |at| at + 1);
    &text[..end]
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
    let lines = whole_lines(&text).split(|b| *b == b'\n').enumerate();
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
    fn what_follows_a_torn_line_can_be_read() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("journal.jsonl");
        let mut journal = Journal::create(&path).unwrap();
        journal.record(&[entry(0), entry(1)]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut left = read(&path).unwrap();
            let mut journal = Journal::open(&path).unwrap();
            if let Some(last) = left.pop() {
                journal.strike(&last.undo).unwrap();
            }
            assert_eq!(read(&path).unwrap(), left, "cut at {cut}");
            journal.record(&[entry(2)]).unwrap();
            left.push(entry(2));
            assert_eq!(read(&path).unwrap(), left, "cut at {cut}");
        }
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
