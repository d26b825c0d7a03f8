//! Hosts that cannot be had: sysfs trees of real hardware, each written in one text file (`NAME.tree`),
//! made into a directory for a test. `README.md` beside this file tells the format.
//!
//! The same files serve the unit tests in `src/` and the tests through the command in `tests/it`.

#![expect(
    clippy::unwrap_used,
    reason = "this is a part of tests: a panic is a failed test"
)]

pub(crate) mod kernel;
mod parse;
mod pci;
pub(crate) mod replay;
mod snapshot;
mod tree;
mod usb;

use std::path::{Path, PathBuf};

pub(crate) use kernel::Kernel;
pub(crate) use snapshot::{difference, snapshot};
pub(crate) use tree::Tree;

/// Where the hosts are written.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hosts")
}

/// The names of all hosts, sorted.
pub(crate) fn names() -> Vec<String> {
    let mut all: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            Some(name.strip_suffix(".tree")?.to_owned())
        })
        .collect();
    all.sort();
    all
}

/// A host that is a directory: `sys`, `proc`, `dev` and what else its tree names are below it. It goes
/// when this value goes.
#[derive(Debug)]
pub(crate) struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    /// The host that `tests/hosts/NAME.tree` describes.
    pub(crate) fn new(name: &str) -> Self {
        Self::of(&Tree::read(&folder().join(format!("{name}.tree"))))
    }

    /// The host that `tree` describes.
    pub(crate) fn of(tree: &Tree) -> Self {
        // In memory where there is such a place: a tree is a thousand small files.
        let shm = Path::new("/dev/shm");
        let dir = if shm.is_dir() {
            tempfile::tempdir_in(shm).or_else(|_| tempfile::tempdir())
        } else {
            tempfile::tempdir()
        };
        let dir = dir.unwrap();
        tree.materialise(dir.path());
        let host = Self { dir };
        for (path, text) in &tree.boot {
            let at = host.root().join(path.trim_start_matches('/'));
            host.kernel()
                .write(&at, text.as_bytes())
                .unwrap_or_else(|e| panic!("{path} <- {text}: {e}"));
        }
        host
    }

    /// The kernel of this host: what writes to its `/sys`.
    pub(crate) fn kernel(&self) -> Kernel {
        Kernel::at(self.root())
    }

    /// The directory that stands for `/`.
    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    /// The directory that stands for `/sys`: what `MVM_SYSFS` is set to.
    pub(crate) fn sys(&self) -> PathBuf {
        self.dir.path().join("sys")
    }
}

#[cfg(test)]
mod tests;
