//! A text that is not in a file yet: which of its keys profiles do not take.

use super::parse::{faults, parse};
use super::rules::rules;
use super::schema::Layer;
use super::tree::{self, Origin, Source};

/// A key of a draft that profiles do not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The line of the key or of its table's head, 1 first.
    pub line: u32,
    /// Why.
    pub message: String,
}

/// As many as are told at once; who takes them out asks again.
const LIMIT: usize = 50;

/// The keys of the draft that profiles do not take, by themselves or, where each by itself is right, beside the
/// others. Empty for a text that can be a machine file of its own.
pub fn refused(text: &str) -> Vec<Refused> {
    let source = Source::BuiltIn("draft".to_owned());
    let own = faults(&source, text, LIMIT);
    if !own.is_empty() {
        return own
            .into_iter()
            .map(|fault| Refused {
                line: fault.line,
                message: fault.message,
            })
            .collect();
    }
    let (Ok(parsed), Ok(layer)) = (
        parse(&source, text.to_owned()),
        toml::from_str::<Layer>(text),
    ) else {
        return Vec::new();
    };
    rules(&layer)
        .into_iter()
        .map(|broken| {
            // A key that is missing is one of its table.
            let mut path: Vec<&str> = broken.path.iter().map(String::as_str).collect();
            let node = loop {
                match tree::at(&parsed.tree, &path) {
                    None if path.pop().is_some() => {}
                    found => break found,
                }
            };
            let line = match node.map(|node| &node.origin) {
                Some(Origin::Layer { line, .. }) => *line,
                _ => 0,
            };
            Refused {
                line,
                message: format!("`{}`: {}", broken.path.join("."), broken.message),
            }
        })
        .collect()
}
