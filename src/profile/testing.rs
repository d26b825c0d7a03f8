//! A configuration folder of a test's own.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use super::{Choices, Profile, ProfileError, load};
use crate::dirs::Dirs;
use crate::error::Report;

pub(super) struct Home {
    dir: tempfile::TempDir,
    pub(super) dirs: Dirs,
}

impl Home {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().to_owned();
        let env = move |name: &str| (name == "MVM_CONFIG_DIR").then(|| config.clone().into());
        let dirs = Dirs::new(1000, &env);
        Self { dir, dirs }
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub(super) fn write(&self, below: &str, text: impl AsRef<[u8]>) {
        let path = self.path(below);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(super) fn load(&self, name: &str, choices: &Choices) -> Result<Profile, ProfileError> {
        load(&self.dirs, name, choices)
    }

    /// The text with this folder's path in it made the same for every run.
    pub(super) fn strip(&self, text: &str) -> String {
        text.replace(&self.dir.path().display().to_string(), "$HOME")
    }

    /// What the user would see, and the exit code.
    pub(super) fn told(&self, name: &str, choices: &Choices) -> String {
        let report = Report::from(self.load(name, choices).unwrap_err());
        self.strip(&format!("{report}exit {}", report.code as i32))
    }
}

pub(super) fn set(values: &[&str]) -> Choices {
    Choices {
        set: values.iter().map(ToString::to_string).collect(),
        ..Choices::default()
    }
}
