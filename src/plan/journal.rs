//! The inverses on disk: one JSON object a line, synced before the step that it takes back.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::step::Step;
use crate::error::Hint;
use crate::ops::{Ops, OpsError};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The index of the step in its plan.
    pub step: usize,
    /// What takes it back.
    pub undo: Step,
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

    /// Writes and syncs entries. Only then may their steps be run.
    ///
    /// # Errors
    /// The disk did not take them.
    pub fn record(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let io = |source| JournalError::Io {
            what: "write",
            path: self.path.clone(),
            source,
        };
        let mut lines = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut lines, entry).map_err(|error| io(error.into()))?;
            lines.push(b'\n');
        }
        if lines.is_empty() {
            return Ok(());
        }
        self.file.write_all(&lines).map_err(io)?;
        self.file.sync_data().map_err(io)
    }
}

/// Reads a journal, oldest entry first. A last line without its end was not synced, so its step was
/// not run: it is left out. No journal is an empty one.
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
    text[..whole]
        .split(|b| *b == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(|(index, line)| {
            serde_json::from_slice(line).map_err(|source| JournalError::Line {
                path: path.to_owned(),
                line: index + 1,
                source,
            })
        })
        .collect()
}

/// Takes back what the entries say, newest first, past errors. A directory is left alone once
/// anything inside it could not be taken back: the journal in it is needed again.
pub fn roll_back(ops: &dyn Ops, entries: &[Entry]) -> Vec<OpsError> {
    let mut errors = Vec::new();
    for entry in entries.iter().rev() {
        if matches!(entry.undo, Step::RemoveDir { .. }) && !errors.is_empty() {
            continue;
        }
        if let Err(error) = ops.run(&entry.undo) {
            tracing::warn!(%error, step = entry.step, "cannot take back");
            errors.push(error);
        }
    }
    errors
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
