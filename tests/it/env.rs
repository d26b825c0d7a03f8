//! A world of its own for a test: empty folders in place of everything that mvm keeps.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The folders, gone when this is dropped.
pub(crate) struct TestEnv {
    root: TempDir,
}

/// What a command did.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// The same, having checked the exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout:\n{}\nstderr:\n{}",
            self.stdout, self.stderr
        );
        self
    }

    /// stdout as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {:?}\n{}", self.stdout, self.stderr))
    }

    /// Checks that stderr says that.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(
            self.stderr.contains(text),
            "`{text}` not in:\n{}",
            self.stderr
        );
        self
    }
}

impl TestEnv {
    pub(crate) fn new() -> Self {
        let env = Self {
            root: tempfile::Builder::new()
                .prefix("mvm-it-")
                .tempdir()
                .expect("a temporary folder"),
        };
        for name in ["config/machines", "config/profiles", "home", "state/images"] {
            fs::create_dir_all(env.path(name)).expect("a folder");
        }
        env
    }

    /// A path in this world.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.path().join(name)
    }

    /// Where relative disk names are looked up.
    pub(crate) fn image(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path("state/images").join(name)
    }

    /// Writes a file and gives its path back.
    pub(crate) fn write(&self, name: impl AsRef<Path>, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
        fs::write(&path, text).expect("a file");
        path
    }

    /// The command, ready to be run or spawned.
    pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mvm"));
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("MVM_CONFIG_DIR", self.path("config"))
            .env("MVM_STATE_DIR", self.path("state"))
            .env("MVM_RUNTIME_DIR", self.path("run"))
            .env("MVM_CACHE_DIR", self.path("cache"))
            .current_dir(self.root.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs `mvm` to its end.
    pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Ran {
        ran(self.command(args).output().expect("mvm starts"))
    }

    /// Runs `mvm` with words that hold no spaces.
    pub(crate) fn mvm(&self, line: &str) -> Ran {
        self.run(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Every file below the root with its size, mode and time of change: equal trees, nothing touched.
    pub(crate) fn tree(&self) -> BTreeMap<PathBuf, (u64, u32, i64, i64)> {
        let mut tree = BTreeMap::new();
        let mut folders = vec![self.root.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                let meta = fs::symlink_metadata(&path).expect("it is there");
                if meta.is_dir() {
                    folders.push(path.clone());
                }
                let size = if meta.is_dir() { 0 } else { meta.len() };
                tree.insert(path, (size, meta.mode(), meta.mtime(), meta.mtime_nsec()));
            }
        }
        tree
    }
}

/// A finished process as text.
pub(crate) fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Waits until the thing is so; a generous limit, as the machine may be busy.
#[track_caller]
pub(crate) fn eventually(what: &str, limit: Duration, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether a program is in PATH: a test that needs it says so and is skipped where it is missing.
pub(crate) fn has_program(name: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()));
    if !found {
        // What is skipped silently is believed to have passed.
        assert!(
            std::env::var_os("MVM_TEST_ALL").is_none(),
            "{name} is missing and MVM_TEST_ALL asks for every test"
        );
        eprintln!("skipped: {name} is not installed");
    }
    found
}
