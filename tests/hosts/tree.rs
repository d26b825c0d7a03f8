//! A tree in memory, and made into files.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// A directory that holds nothing of its own, perhaps.
    Dir,
    /// A file and its bytes.
    File(Vec<u8>),
    /// A link: to an absolute path of the tree, which is written as a relative one like the kernel's, or to
    /// a relative path, which is written as it is.
    Link(String),
}

/// A host's files by their absolute paths, and what its kernel was told while it booted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    /// `/sys/...`, `/proc/...` and so on.
    pub(crate) nodes: BTreeMap<String, Node>,
    /// Writes that the stand-in kernel carries out once the files are there.
    pub(crate) boot: Vec<(String, String)>,
}

impl Tree {
    /// The tree that a `.tree` file describes; panics with file and line where it is wrong.
    pub(crate) fn read(path: &Path) -> Self {
        super::parse::read(path)
    }

    /// Puts a file; its content is `text` as it stands.
    pub(crate) fn file(&mut self, path: impl Into<String>, text: impl Into<Vec<u8>>) {
        self.nodes.insert(path.into(), Node::File(text.into()));
    }

    /// Puts an attribute: one line.
    pub(crate) fn attr(&mut self, dir: &str, name: &str, text: impl std::fmt::Display) {
        self.file(format!("{dir}/{name}"), format!("{text}\n"));
    }

    /// Puts a link to an absolute path of the tree.
    pub(crate) fn link(&mut self, path: impl Into<String>, target: impl Into<String>) {
        self.nodes.insert(path.into(), Node::Link(target.into()));
    }

    /// Puts a directory, if nothing is there yet.
    pub(crate) fn dir(&mut self, path: impl Into<String>) {
        self.nodes.entry(path.into()).or_insert(Node::Dir);
    }

    /// Takes `path` and everything below it away.
    pub(crate) fn remove(&mut self, path: &str) {
        let below = format!("{path}/");
        self.nodes
            .retain(|at, _| at != path && !at.starts_with(&below));
    }

    /// Writes everything below `root`.
    pub(crate) fn materialise(&self, root: &Path) {
        let base = root.to_str().unwrap();
        let mut made = String::new();
        for (path, node) in &self.nodes {
            let at = format!("{base}{path}");
            let parent = match node {
                Node::Dir => at.as_str(),
                _ => at.rsplit_once('/').unwrap().0,
            };
            // Sorted: what one directory holds comes together, mostly.
            if parent != made {
                fs::create_dir_all(parent).unwrap_or_else(|e| panic!("{parent}: {e}"));
                made = parent.to_owned();
            }
            match node {
                Node::Dir => Ok(()),
                Node::File(bytes) => fs::write(&at, bytes),
                Node::Link(target) if target.starts_with('/') => {
                    symlink(relative(path, target), &at)
                }
                Node::Link(target) => symlink(target, &at),
            }
            .unwrap_or_else(|e| panic!("{at}: {e}"));
        }
    }
}

/// How a link at `from` reaches `to`, both absolute, as the kernel writes it: up to what the link's directory
/// and the directory of `to` share, then down. The last name is always there.
pub(crate) fn relative(from: &str, to: &str) -> String {
    let from: Vec<&str> = from.trim_matches('/').split('/').collect();
    let to: Vec<&str> = to.trim_matches('/').split('/').collect();
    let dir = &from[..from.len() - 1];
    let shared = dir
        .iter()
        .zip(&to[..to.len() - 1])
        .take_while(|(a, b)| a == b)
        .count();
    let mut parts = vec![".."; dir.len() - shared];
    parts.extend(&to[shared..]);
    parts.join("/")
}
