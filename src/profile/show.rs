//! `mvm profile list` and `mvm profile show`: what there is, and where each value comes from.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use toml::de::{DeTable, DeValue};

use super::error::ProfileError;
use super::fault::{dotted, key_text};
use super::load::Profile;
use super::search::{self, Level};
use super::tree::{Branch, Origin, Source, Tree};
use crate::dirs::Dirs;

/// A machine file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MachineFile {
    /// The guest's name.
    pub name: String,
    /// The file.
    pub path: PathBuf,
}

/// The machine files, by name. Nothing is read but the folders.
///
/// # Errors
///
/// A folder that is there and cannot be read.
pub fn machines(dirs: &Dirs) -> Result<Vec<MachineFile>, ProfileError> {
    let mut found = BTreeMap::new();
    for dir in dirs.machines() {
        for name in search::names(&dir)? {
            let path = dir.join(format!("{name}.toml"));
            found.entry(name).or_insert(path);
        }
    }
    Ok(found
        .into_iter()
        .map(|(name, path)| MachineFile { name, path })
        .collect())
}

/// A profile that can be run or extended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its own summary, where it has one.
    pub summary: Option<String>,
    /// Where it is from.
    pub source: Source,
    /// The profiles of the same name further down the search path.
    pub shadows: Vec<Source>,
    /// Why it cannot be read.
    pub error: Option<String>,
}

/// The profiles, by name; machine files are guests and not among them.
///
/// # Errors
///
/// A folder that is there and cannot be read.
pub fn list(dirs: &Dirs) -> Result<Vec<Listed>, ProfileError> {
    let levels = search::levels(dirs);
    let mut found: BTreeMap<String, Vec<(Source, Level)>> = BTreeMap::new();
    for level in &levels {
        match level {
            Level::Machines(_) => {}
            Level::Profiles(dir) => {
                for name in search::names(dir)? {
                    let source = Source::File(dir.join(format!("{name}.toml")));
                    found.entry(name).or_default().push((source, level.clone()));
                }
            }
            Level::BuiltIn => {
                for (name, _) in search::built_in() {
                    let source = Source::BuiltIn(name.to_owned());
                    found
                        .entry(name.to_owned())
                        .or_default()
                        .push((source, level.clone()));
                }
            }
        }
    }
    Ok(found
        .into_iter()
        .filter_map(|(name, places)| {
            let mut places = places.into_iter();
            let (source, level) = places.next()?;
            let (summary, error) = match summary(&level, &name) {
                Ok(summary) => (summary, None),
                Err(error) => (None, Some(error)),
            };
            Some(Listed {
                name,
                summary,
                source,
                shadows: places.map(|(source, _)| source).collect(),
                error,
            })
        })
        .collect())
}

/// The summary that a file says itself.
fn summary(level: &Level, name: &str) -> Result<Option<String>, String> {
    let told = |error: ProfileError| crate::error::Report::from(error).chain.join(": ");
    let found = search::find(std::slice::from_ref(level), 0, name).map_err(told)?;
    let text = found.map(|found| found.text).unwrap_or_default();
    let table = DeTable::parse(&text).map_err(|error| error.message().to_owned())?;
    Ok(
        match table.get_ref().get("summary").map(|value| value.get_ref()) {
            Some(DeValue::String(summary)) => Some(summary.to_string()),
            _ => None,
        },
    )
}

/// A value of a loaded profile.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    /// Its key, as `--set` takes it.
    pub key: String,
    /// The value.
    pub value: serde_json::Value,
    /// Where it was said.
    pub origin: Origin,
}

/// Every value of a loaded profile with its origin; a table without values is one itself.
pub fn values(profile: &Profile) -> Vec<Shown> {
    let mut out = Vec::new();
    collect(&profile.origins.tree, &mut Vec::new(), &mut out);
    out
}

fn collect(tree: &Tree, path: &mut Vec<String>, out: &mut Vec<Shown>) {
    for (key, node) in tree {
        path.push(key.clone());
        let value = match &node.value {
            Branch::Table(table) if !table.is_empty() => {
                collect(table, path, out);
                None
            }
            Branch::Table(_) => Some(serde_json::Value::Object(serde_json::Map::new())),
            Branch::Leaf(value) => Some(json(value)),
        };
        out.extend(value.map(|value| Shown {
            key: dotted(path),
            value,
            origin: node.origin.clone(),
        }));
        path.pop();
    }
}

fn json(value: &toml::Value) -> serde_json::Value {
    match value {
        toml::Value::Array(items) => items.iter().map(json).collect(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Boolean(truth) => (*truth).into(),
        toml::Value::String(text) => text.as_str().into(),
        // The schema has none of the other kinds.
        other => other.to_string().into(),
    }
}

/// The merged profile as TOML that could be loaded, with each value's origin behind it.
pub fn render(profile: &Profile) -> String {
    let mut lines: Vec<(String, Option<&Origin>)> = Vec::new();
    section(&profile.origins.tree, &mut Vec::new(), &mut lines);
    let width = lines
        .iter()
        .filter(|(text, origin)| origin.is_some() && text.chars().count() <= 60)
        .map(|(text, _)| text.chars().count())
        .max()
        .unwrap_or_default();
    let mut out = String::new();
    for source in &profile.layers {
        out.push_str(&format!("# layer: {source}\n"));
    }
    for variant in profile.variants.iter().filter(|variant| variant.on) {
        out.push_str(&format!("# variant: {}\n", variant.name));
    }
    for (text, origin) in lines {
        match origin {
            Some(origin) => {
                // A comment ends with its line, and a flag or path may hold anything.
                let origin = super::fault::shown(&origin.to_string());
                out.push_str(&format!("{text:width$}  # from {origin}\n"));
            }
            None => out.push_str(&format!("{text}\n")),
        }
    }
    out
}

/// A tree as TOML without origins.
pub(super) fn plain_text(tree: &Tree) -> String {
    let mut lines = Vec::new();
    section(tree, &mut Vec::new(), &mut lines);
    lines.iter().map(|(text, _)| format!("{text}\n")).collect()
}

/// The lines of a table: its own values first, then the tables in it.
fn section<'a>(
    tree: &'a Tree,
    path: &mut Vec<String>,
    lines: &mut Vec<(String, Option<&'a Origin>)>,
) {
    for (key, node) in tree {
        if let Branch::Leaf(value) = &node.value {
            lines.push((format!("{} = {value}", key_text(key)), Some(&node.origin)));
        }
    }
    for (key, node) in tree {
        let Branch::Table(table) = &node.value else {
            continue;
        };
        path.push(key.clone());
        let own = table
            .values()
            .any(|node| matches!(node.value, Branch::Leaf(_)));
        if own || table.is_empty() {
            lines.push((String::new(), None));
            let origin = table.is_empty().then_some(&node.origin);
            lines.push((format!("[{}]", dotted(path)), origin));
        }
        section(table, path, lines);
        path.pop();
    }
}
