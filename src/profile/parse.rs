//! One text of the profile language into a tree whose values know their lines.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Fault, Text, Told, dotted, explain, shown};
use super::schema::Layer;
use super::tree::{Branch, Node, Origin, Source, Tree, alternatives};

/// A layer that was read and found well-formed.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) source: Source,
    pub(super) text: String,
    pub(super) tree: Tree,
    /// The names after `extends` and where they stand.
    pub(super) extends: Vec<(String, Range<usize>)>,
}

impl Parsed {
    /// A fault at a span of this file.
    pub(super) fn fault(&self, span: Range<usize>, told: Told) -> Fault {
        Text::new(&self.source, &self.text).fault(span, told)
    }
}

/// Reads a text; the first fault ends it.
pub(super) fn parse(source: &Source, text: String) -> Result<Parsed, Box<Fault>> {
    let lines = Text::new(source, &text);
    let table = DeTable::parse(&text).map_err(|error| Box::new(syntax(&lines, &error)))?;
    if let Some(fault) = typed(&lines, &table) {
        return Err(Box::new(fault.fault));
    }
    if let Some((fault, _)) = two_alternatives(&lines, table.get_ref(), &mut Vec::new()) {
        return Err(Box::new(fault));
    }
    let tree = grow(&lines, table.get_ref(), None, true);
    let extends = extends(table.get_ref());
    drop(table);
    Ok(Parsed {
        source: source.clone(),
        tree,
        extends,
        text,
    })
}

/// Every fault of a text, at most `limit`: after each the key at fault is left out and the rest read
/// again.
pub(super) fn faults(source: &Source, text: &str, limit: usize) -> Vec<Fault> {
    let lines = Text::new(source, text);
    let (mut table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What a broken text means is a guess; its syntax comes first.
        let mut found: Vec<Fault> = errors.iter().map(|error| syntax(&lines, error)).collect();
        found.sort_by_key(|fault| (fault.line, fault.column));
        // Recovery trips over one place several times.
        found.dedup();
        found.truncate(limit);
        return found;
    }
    let mut found = Vec::new();
    while found.len() < limit {
        let next = typed(&lines, &table)
            .map(|typed| (typed.fault, typed.path))
            .or_else(|| two_alternatives(&lines, table.get_ref(), &mut Vec::new()));
        let Some((fault, path)) = next else { break };
        found.push(fault);
        if !remove(table.get_mut(), &path) {
            break;
        }
    }
    found.sort_by_key(|fault| (fault.line, fault.column));
    found
}

fn syntax(lines: &Text<'_>, error: &toml::de::Error) -> Fault {
    let told = Told::new(shown(error.message()));
    lines.fault(error.span().unwrap_or_default(), told)
}

/// A key or value that the schema does not have.
struct Untyped {
    fault: Fault,
    path: Vec<String>,
}

fn typed(lines: &Text<'_>, table: &Spanned<DeTable<'_>>) -> Option<Untyped> {
    let error = Layer::deserialize(toml::Deserializer::from(table.clone())).err()?;
    let span = error.span().unwrap_or_default();
    let mut path = Vec::new();
    find(table.get_ref(), &span, &mut path);
    let told = explain(error.message(), &path);
    Some(Untyped {
        fault: lines.fault(span, told),
        path,
    })
}

/// The path of the key that a span belongs to.
fn find(table: &DeTable<'_>, span: &Range<usize>, path: &mut Vec<String>) -> bool {
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        let holds = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
        // The deepest holder is the one meant: a table's span may cover all that it holds.
        if let DeValue::Table(inner) = value.get_ref() {
            if key.span() != *span && find(inner, span, path) {
                return true;
            }
        }
        if key.span() == *span || holds(value.span()) {
            return true;
        }
        path.pop();
    }
    false
}

fn remove(table: &mut DeTable<'_>, path: &[String]) -> bool {
    let Some((key, rest)) = path.split_first() else {
        return false;
    };
    if rest.is_empty() {
        return table.remove(key.as_str()).is_some();
    }
    match table.get_mut(key.as_str()).map(Spanned::get_mut) {
        Some(DeValue::Table(inner)) => remove(inner, rest),
        _ => false,
    }
}

/// A table that chooses two alternatives, and the path of the second.
fn two_alternatives(
    lines: &Text<'_>,
    table: &DeTable<'_>,
    path: &mut Vec<String>,
) -> Option<(Fault, Vec<String>)> {
    let group = alternatives(&path.iter().map(String::as_str).collect::<Vec<_>>());
    let chosen: Vec<_> = table
        .iter()
        .filter(|(key, value)| {
            group.contains(&key.get_ref().as_ref())
                && !matches!(value.get_ref(), DeValue::Boolean(false))
        })
        .map(|(key, _)| key)
        .collect();
    if let [first, second, ..] = chosen[..] {
        let told = Told::new(format!(
            "`{}` has both `{}` (line {}) and `{}`",
            dotted(path),
            first.get_ref(),
            lines.line(first.span().start),
            second.get_ref(),
        ))
        .hint(format!("keep one of `{}`", group.join("`, `")));
        let mut at = path.clone();
        at.push(second.get_ref().to_string());
        return Some((lines.fault(second.span(), told), at));
    }
    for (key, value) in table {
        if let DeValue::Table(inner) = value.get_ref() {
            path.push(key.get_ref().to_string());
            let found = two_alternatives(lines, inner, path);
            path.pop();
            if found.is_some() {
                return found;
            }
        }
    }
    None
}

fn extends(table: &DeTable<'_>) -> Vec<(String, Range<usize>)> {
    match table.get("extends").map(Spanned::get_ref) {
        Some(DeValue::Array(items)) => items
            .iter()
            .filter_map(|item| match item.get_ref() {
                DeValue::String(name) => Some((name.to_string(), item.span())),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// The tree of a table. `top` is the file itself, whose `variant` holds trees of their own.
fn grow(lines: &Text<'_>, table: &DeTable<'_>, variant: Option<&str>, top: bool) -> Tree {
    table
        .iter()
        .map(|(key, value)| {
            let name = key.get_ref().to_string();
            let value = match value.get_ref() {
                DeValue::Table(variants) if top && name == "variant" => {
                    Branch::Table(variants_of(lines, variants))
                }
                DeValue::Table(inner) => Branch::Table(grow(lines, inner, variant, false)),
                leaf => Branch::Leaf(plain(leaf)),
            };
            let origin = origin(lines, key.span().start, variant);
            (name, Node { origin, value })
        })
        .collect()
}

fn variants_of(lines: &Text<'_>, variants: &DeTable<'_>) -> Tree {
    variants
        .iter()
        .map(|(key, value)| {
            let name = key.get_ref().to_string();
            let value = match value.get_ref() {
                DeValue::Table(inner) => Branch::Table(grow(lines, inner, Some(&name), false)),
                leaf => Branch::Leaf(plain(leaf)),
            };
            let origin = origin(lines, key.span().start, Some(&name));
            (name, Node { origin, value })
        })
        .collect()
}

fn origin(lines: &Text<'_>, at: usize, variant: Option<&str>) -> Origin {
    Origin::Layer {
        source: lines.source.clone(),
        line: lines.line(at),
        variant: variant.map(str::to_owned),
    }
}

/// A value without its spans. Only what the schema has can come here; the rest is told by [`typed`].
fn plain(value: &DeValue<'_>) -> toml::Value {
    match value {
        DeValue::String(text) => toml::Value::String(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(
                |_| toml::Value::String(number.to_string()),
                toml::Value::Integer,
            ),
        DeValue::Float(number) => number.as_str().parse().map_or_else(
            |_| toml::Value::String(number.to_string()),
            toml::Value::Float,
        ),
        DeValue::Boolean(truth) => toml::Value::Boolean(*truth),
        DeValue::Datetime(time) => toml::Value::Datetime(*time),
        DeValue::Array(items) => {
            toml::Value::Array(items.iter().map(|item| plain(item.get_ref())).collect())
        }
        DeValue::Table(table) => toml::Value::Table(
            table
                .iter()
                .map(|(key, value)| (key.get_ref().to_string(), plain(value.get_ref())))
                .collect(),
        ),
    }
}
