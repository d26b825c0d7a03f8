//! `--set KEY=VALUE`: one key from the command line, laid over all layers.

use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use super::error::ProfileError;
use super::fault::{Told, dotted, explain, shown};
use super::schema::Layer;
use super::tree::{Branch, Node, Origin, Tree};

/// Reads what stands after `--set`.
///
/// The value is TOML where that gives the type wanted (`4`, `true`, `["a", "b"]`), and else the text
/// as it is, so that `memory.size=8G` needs no quotes.
pub(super) fn parse(text: &str) -> Result<Tree, ProfileError> {
    let flag = format!("--set {}", shown(text));
    let fail = |told: Told| ProfileError::Flag {
        flag: flag.clone(),
        message: told.message,
        hints: told.hints,
    };
    let Some((key, value)) = split(text) else {
        return Err(fail(
            Told::new("expected KEY=VALUE").hint("as in `--set memory.size=8G`"),
        ));
    };
    let path = keys(key).ok_or_else(|| {
        fail(
            Told::new(format!("`{}` is not a key", shown(key)))
                .hint("keys are joined by dots, as in `disk.system.read-only`"),
        )
    })?;
    if matches!(path[0].as_str(), "extends" | "variant" | "variants") {
        return Err(fail(
            Told::new(format!("`{}` cannot be set by flag", path[0]))
                .hint("write a machine file that extends the profile"),
        ));
    }
    let value_of = |value: toml::Value| typed(&path, value);
    let as_text = || toml::Value::String(value.to_owned());
    let value = match value.trim().parse::<toml::Value>() {
        Ok(read) if !read.is_datetime() => value_of(read.clone()).or_else(|first| {
            // `append=1` is a text; where both fail, what the value looks like decides what is told.
            value_of(as_text()).map_err(|second| if read.is_str() { second } else { first })
        }),
        _ => value_of(as_text()),
    }
    .map_err(fail)?;
    let tree = tree(&path, value, &Origin::Flag(flag.clone()));
    match two_alternatives(&tree, &mut Vec::new()) {
        Some(told) => Err(fail(told)),
        None => Ok(tree),
    }
}

/// A table of the flag that chooses two alternatives.
fn two_alternatives(tree: &Tree, path: &mut Vec<String>) -> Option<Told> {
    let chosen = super::tree::chosen(tree, path);
    if let [first, second, ..] = chosen[..] {
        return Some(Told::new(format!(
            "`{}` has both `{first}` and `{second}`",
            dotted(path)
        )));
    }
    tree.iter().find_map(|(key, node)| match &node.value {
        Branch::Table(inner) => {
            path.push(key.clone());
            let found = two_alternatives(inner, path);
            path.pop();
            found
        }
        Branch::Leaf(_) => None,
    })
}

/// Splits at the first `=` outside quotes.
fn split(text: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '=') => return Some((&text[..at], &text[at + 1..])),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    None
}

/// The parts of a dotted key.
fn keys(text: &str) -> Option<Vec<String>> {
    if text.contains(['\n', '\r']) || text.trim_start().starts_with(['[', '#']) {
        return None;
    }
    let line = format!("{text} = 0");
    let table = DeTable::parse(&line).ok()?;
    let mut table = table.get_ref();
    let mut path = Vec::new();
    loop {
        let (key, value) = table.iter().next()?;
        path.push(key.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => return Some(path),
        }
    }
}

/// The value, if a profile can have it there.
fn typed(path: &[String], value: toml::Value) -> Result<toml::Value, Told> {
    let whole = path.iter().rev().fold(value.clone(), |value, key| {
        toml::Value::Table(toml::Table::from_iter([(key.clone(), value)]))
    });
    match Layer::deserialize(whole) {
        Ok(_) => Ok(value),
        Err(error) => Err(explain(error.message(), &blamed(path, error.message()))),
    }
}

/// The part of the path that an error is about: an unknown key ends it.
fn blamed(path: &[String], message: &str) -> Vec<String> {
    let unknown = message.strip_prefix("unknown field `").and_then(|rest| {
        path.iter()
            .position(|key| rest.starts_with(&format!("{key}`")))
    });
    match unknown {
        Some(at) => path[..=at].to_vec(),
        // The flag itself shows the key.
        None => Vec::new(),
    }
}

fn tree(path: &[String], value: toml::Value, origin: &Origin) -> Tree {
    let branch = path.iter().rev().fold(branch(value, origin), |value, key| {
        Branch::Table(Tree::from_iter([(
            key.clone(),
            Node {
                origin: origin.clone(),
                value,
            },
        )]))
    });
    match branch {
        Branch::Table(tree) => tree,
        Branch::Leaf(_) => Tree::new(),
    }
}

fn branch(value: toml::Value, origin: &Origin) -> Branch {
    match value {
        toml::Value::Table(table) => Branch::Table(
            table
                .into_iter()
                .map(|(key, value)| {
                    let value = branch(value, origin);
                    (
                        key,
                        Node {
                            origin: origin.clone(),
                            value,
                        },
                    )
                })
                .collect(),
        ),
        leaf => Branch::Leaf(leaf),
    }
}
