//! A program of the user's that mvm runs at a point of a guest's life: plain data.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A program with its arguments, run without a shell, at most once in a life of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Hook {
    /// Its name.
    pub name: String,
    /// When it runs, as the profile says it.
    pub when: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How long it may take, in milliseconds.
    pub timeout_ms: u64,
    /// Whether the guest does not start, or is ended, where it fails.
    pub required: bool,
    /// What it is told in its environment.
    pub env: Vec<(String, String)>,
    /// The guest's run-time directory, in which it is noted that it ran.
    pub run_dir: PathBuf,
    /// What it writes to stdout and stderr.
    pub log: PathBuf,
}

impl Hook {
    /// The file by which it is known to have begun.
    pub fn mark(&self) -> PathBuf {
        Self::mark_in(&self.run_dir, &self.name)
    }

    /// The same by its name.
    pub fn mark_in(run_dir: &Path, name: &str) -> PathBuf {
        run_dir.join(format!("hook-{name}.ran"))
    }
}
