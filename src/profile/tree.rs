//! Layers as trees of keys, each value with the place it came from, and how one is laid over another.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use toml::map::Map;

/// A file of the profile language, or one of those inside the program.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// The built-in profile of that name.
    BuiltIn(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::BuiltIn(name) => write!(f, "built-in {name}"),
        }
    }
}

/// Where a value of the merged profile was said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// In a file.
    Layer {
        /// Which.
        source: Source,
        /// The line, 1 first.
        line: u32,
        /// The variant of the file that it stands in.
        #[serde(skip_serializing_if = "Option::is_none")]
        variant: Option<String>,
    },
    /// On the command line, as written there.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer {
                source,
                line,
                variant,
            } => {
                if let Some(variant) = variant {
                    write!(f, "variant {variant} of ")?;
                }
                write!(f, "{source}:{line}")
            }
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A key's value and where it was said; a table's origin is that of its first mention.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Branch,
}

/// A value or a table.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Branch {
    Leaf(toml::Value),
    Table(Tree),
}

/// A table of keys in the order written.
pub(super) type Tree = Map<String, Node>;

/// Whether a device must say one of its [`alternatives`]: consoles and channels have one by default.
pub(super) fn must_choose(kind: &str) -> bool {
    !["console", "channel"].contains(&kind)
}

/// The keys of which one table may hold only one: the alternatives of a device.
pub(super) fn alternatives(path: &[&str]) -> &'static [&'static str] {
    match path {
        ["variant", _, rest @ ..] if !rest.is_empty() => alternatives(rest),
        ["network", _] => &["user", "tap", "vhost-user", "none"],
        ["disk", _] => &["file", "empty", "vhost-user", "none"],
        ["console" | "channel", _] => &["backend", "host", "unix", "tcp", "udp", "file"],
        ["pci", _] => &["address", "id", "match", "vf", "none"],
        ["usb", _] => &["id", "serial", "port", "match", "none"],
        ["shmem", _] => &["size", "none"],
        ["mdev", _] => &["uuid", "type", "none"],
        ["tpm"] => &["emulator", "passthrough", "none"],
        ["gpu"] => &["vf", "whole", "upt", "mdev", "virtio", "none"],
        _ => &[],
    }
}

impl Node {
    /// Whether the node, standing under a key of [`alternatives`], chooses it: `empty = false` does not.
    fn chooses(&self) -> bool {
        self.value != Branch::Leaf(toml::Value::Boolean(false))
    }
}

/// The alternatives that a table chooses.
pub(super) fn chosen<'a>(tree: &'a Tree, path: &[String]) -> Vec<&'a str> {
    let group = alternatives(&path.iter().map(String::as_str).collect::<Vec<_>>());
    tree.iter()
        .filter(|(key, node)| group.contains(&key.as_str()) && node.chooses())
        .map(|(key, _)| key.as_str())
        .collect()
}

/// Lays `over` over `under`: tables merge key by key, everything else (lists too) is replaced. Where
/// `over` chooses one of several alternatives, the others go.
///
/// Layers are always folded from the lowest up. Without alternatives the order of folding would not
/// matter; with them it does, since what an upper layer drops must have been laid down before.
pub(super) fn lay(under: &mut Tree, over: Tree) {
    lay_at(under, over, &mut Vec::new());
}

fn lay_at(under: &mut Tree, over: Tree, path: &mut Vec<String>) {
    if !chosen(&over, path).is_empty() {
        let group = alternatives(&path.iter().map(String::as_str).collect::<Vec<_>>());
        under.retain(|key, _| !group.contains(&key) || over.contains_key(key));
    }
    for (key, node) in over {
        match (under.get_mut(&key).map(|old| &mut old.value), node) {
            (
                Some(Branch::Table(old)),
                Node {
                    value: Branch::Table(new),
                    ..
                },
            ) => {
                path.push(key);
                lay_at(old, new, path);
                path.pop();
            }
            (_, node) => {
                under.insert(key, node);
            }
        }
    }
}

/// Takes out what an upper layer took away: texts that are empty, devices that are `none`.
pub(super) fn prune(tree: &mut Tree) {
    tree.retain(|key, node| {
        let may_be_none = alternatives(&[key]).contains(&"none");
        let none = matches!(&node.value, Branch::Table(table) if table.contains_key("none"));
        !(may_be_none && none)
    });
    prune_at(tree, 0);
}

fn prune_at(tree: &mut Tree, depth: usize) {
    tree.retain(|kind, node| match &mut node.value {
        Branch::Leaf(value) => value.as_str() != Some(""),
        Branch::Table(table) => {
            if depth == 0 {
                table.retain(|id, device| {
                    let may_be_none = alternatives(&[kind, id]).contains(&"none");
                    let none =
                        matches!(&device.value, Branch::Table(table) if table.contains_key("none"));
                    !(may_be_none && none)
                });
            }
            prune_at(table, depth + 1);
            true
        }
    });
}

/// The node at a path.
pub(super) fn at<'a>(tree: &'a Tree, path: &[&str]) -> Option<&'a Node> {
    let (key, rest) = path.split_first()?;
    let node = tree.get(*key)?;
    match (&node.value, rest) {
        (_, []) => Some(node),
        (Branch::Table(table), rest) => at(table, rest),
        (Branch::Leaf(_), _) => None,
    }
}

/// The text at a path; an empty one counts as none.
pub(super) fn text_at<'a>(tree: &'a Tree, path: &[&str]) -> Option<&'a str> {
    match &at(tree, path)?.value {
        Branch::Leaf(value) => value.as_str().filter(|text| !text.is_empty()),
        Branch::Table(_) => None,
    }
}

/// The strings of the list at a path.
pub(super) fn list_at(tree: &Tree, path: &[&str]) -> Vec<String> {
    match at(tree, path).map(|node| &node.value) {
        Some(Branch::Leaf(toml::Value::Array(items))) => items
            .iter()
            .filter_map(|item| item.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    }
}

/// The tree without its origins.
pub(super) fn plain(tree: &Tree) -> toml::Table {
    tree.iter()
        .map(|(key, node)| {
            let value = match &node.value {
                Branch::Leaf(value) => value.clone(),
                Branch::Table(table) => toml::Value::Table(plain(table)),
            };
            (key.clone(), value)
        })
        .collect()
}
