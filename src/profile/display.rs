//! `--display`: mvm's own kinds of display, and the words that variants answer to.

use super::error::ProfileError;
use super::fault::shown;
use super::load::Choices;
use super::merge::when_of;
use super::schema::DisplayType;
use super::tree::{self, Branch, Node, Origin, Tree};

const HEADLESS: &str = "headless";
/// The tables of `[display]`, each the settings of a kind.
const TABLES: [&str; 5] = ["vnc", "spice", "local", "egl-headless", "dbus"];

/// The words of the flag.
fn words(flag: &str) -> impl Iterator<Item = &str> {
    flag.split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
}

fn is_kind(word: &str) -> bool {
    DisplayType::ALL.iter().any(|kind| kind.as_str() == word)
}

/// What the flag sets: `display.type`, where its words are mvm's own kinds. A word that only variants know
/// leaves that to them.
pub(super) fn flag(choices: &Choices) -> Option<Tree> {
    let flag = choices.display.as_deref()?;
    if !words(flag).all(is_kind) {
        return None;
    }
    let kinds: Vec<toml::Value> = words(flag).map(toml::Value::from).collect();
    let origin = Origin::Flag(format!("--display {}", shown(flag)));
    let node = |value| Node {
        origin: origin.clone(),
        value,
    };
    let value = match kinds.as_slice() {
        [one] => one.clone(),
        _ => toml::Value::Array(kinds),
    };
    let table = Tree::from_iter([("type".to_owned(), node(Branch::Leaf(value)))]);
    Some(Tree::from_iter([(
        "display".to_owned(),
        node(Branch::Table(table)),
    )]))
}

/// A display that neither mvm nor a variant knows must not pass in silence.
pub(super) fn answered(
    name: &str,
    choices: &Choices,
    written: &[(String, Tree)],
) -> Result<(), ProfileError> {
    let Some(display) = &choices.display else {
        return Ok(());
    };
    let answers: Vec<String> = written
        .iter()
        .flat_map(|(_, body)| when_of(body))
        .filter(|(when, _)| when == "display")
        .map(|(_, wanted)| wanted)
        .collect();
    let known = |word: &str| is_kind(word) || answers.iter().any(|wanted| wanted == word);
    if words(display).all(known) && words(display).next().is_some() {
        return Ok(());
    }
    let kinds = DisplayType::ALL.iter().map(|kind| kind.as_str().to_owned());
    let mut answers: Vec<String> = kinds.chain(answers).collect();
    let mut seen = Vec::new();
    answers.retain(|word| {
        let new = !seen.contains(word);
        seen.push(word.clone());
        new
    });
    Err(ProfileError::NoAnswer {
        flag: format!("--display {}", shown(display)),
        profile: name.to_owned(),
        known: answers,
    })
}

/// The displays that variants are compared with: the flags', else what the files say, the topmost first.
pub(super) fn chosen<'a>(
    choices: &Choices,
    flags: &[Tree],
    files: impl DoubleEndedIterator<Item = &'a Tree>,
) -> Vec<String> {
    let flag = || {
        let words = words(choices.display.as_deref()?);
        Some(words.map(str::to_owned).collect())
    };
    // `--set` lies over `--display`, which among the flags is `display.type` where it can be.
    flags
        .iter()
        .rev()
        .find_map(said)
        .or_else(flag)
        .or_else(|| files.rev().find_map(said))
        .unwrap_or_else(|| vec![HEADLESS.to_owned()])
}

/// The displays that a tree names.
fn said(tree: &Tree) -> Option<Vec<String>> {
    let path = ["display", "type"];
    if let Some(kind) = tree::text_at(tree, &path) {
        return Some(vec![kind.to_owned()]);
    }
    let list = tree::list_at(tree, &path);
    if !list.is_empty() {
        return Some(list);
    }
    let there = |kind: &&str| {
        let node = tree::at(tree, &["display", kind]);
        node.is_some_and(|node| matches!(node.value, Branch::Table(_)))
    };
    let tables: Vec<String> = TABLES
        .into_iter()
        .filter(there)
        .map(str::to_owned)
        .collect();
    (!tables.is_empty()).then_some(tables)
}
