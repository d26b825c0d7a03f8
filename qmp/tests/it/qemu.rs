//! A real QEMU without a machine.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use mvm_qmp::{Events, Qmp, QmpError};

pub(crate) const SECONDS: Duration = Duration::from_secs(20);

/// The QEMU to test with; `None`, with a message, where there is none.
pub(crate) fn binary() -> Option<PathBuf> {
    let given = std::env::var_os("MVM_QEMU").map(PathBuf::from);
    let found = given.or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|dir| dir.join("qemu-system-x86_64"))
            .find(|file| file.exists())
    });
    if found.is_none() {
        eprintln!("SKIPPED: no qemu-system-x86_64 in PATH, and MVM_QEMU is not set");
    }
    found
}

pub(crate) struct Qemu {
    child: Child,
    dir: tempfile::TempDir,
}

impl Qemu {
    pub(crate) fn start(extra: &[&str]) -> Option<Self> {
        Self::start_in(tempfile::tempdir().unwrap(), extra)
    }

    /// `{dir}` in the arguments stands for the test's own directory.
    pub(crate) fn start_in(dir: tempfile::TempDir, extra: &[&str]) -> Option<Self> {
        let binary = binary()?;
        let place = dir.path().to_str().unwrap();
        let child = Command::new(binary)
            .args([
                "-M",
                "none",
                "-nodefaults",
                "-display",
                "none",
                "-accel",
                "tcg",
            ])
            // Relative: the directory may be deeper than a socket address holds.
            .args(["-qmp", "unix:qmp.sock,server=on,wait=off"])
            .args(extra.iter().map(|arg| arg.replace("{dir}", place)))
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self { child, dir })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Connects as soon as it listens. Its other sockets are there then, too. Nobody knocks before: a client that comes
    /// and goes at once may take the next one's first command along.
    pub(crate) async fn connect(&self) -> (Qmp, Events) {
        let path = self.path("qmp.sock");
        for _ in 0..2000 {
            match Qmp::connect(&path, SECONDS).await {
                Err(QmpError::Connect { .. }) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                connected => return connected.unwrap(),
            }
        }
        panic!("QEMU made no {}", path.display());
    }

    /// Whether it ends by itself.
    pub(crate) async fn ended(&mut self) -> bool {
        for _ in 0..1000 {
            if self.child.try_wait().unwrap().is_some() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
