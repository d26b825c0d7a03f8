//! The rooms may use each other in one direction only.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What each room may use of the others. The plain vocabulary (`error`, `handover`, `hook`, `ids`, `owner`,
/// `sidecar`, `units`, `dirs`) is free.
const MAY_USE: [(&str, &[&str]); 10] = [
    ("profile", &[]),
    ("host", &[]),
    ("machine", &["profile", "host"]),
    ("qemu", &["machine", "profile"]),
    ("plan", &["ops", "qemu", "machine", "host", "profile"]),
    ("ops", &["plan", "qemu", "profile", "service"]),
    (
        "guest",
        &["plan", "ops", "qemu", "machine", "host", "profile"],
    ),
    ("service", &["host"]),
    ("settings", &[]),
    ("import", &["profile"]),
];

const VOCABULARY: [&str; 8] = [
    "error", "handover", "hook", "ids", "owner", "sidecar", "units", "dirs",
];

#[test]
fn no_room_reaches_up() {
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    let rules: BTreeMap<_, _> = MAY_USE.into_iter().collect();
    let mut wrong = Vec::new();
    for (room, allowed) in &rules {
        for (file, text) in files(source, room) {
            for used in uses(&text) {
                let fine = used == *room
                    || VOCABULARY.contains(&used.as_str())
                    || allowed.contains(&used.as_str());
                if !fine {
                    wrong.push(format!("{file} uses crate::{used}"));
                }
            }
        }
    }
    for (file, text) in files(Path::new(env!("CARGO_MANIFEST_DIR")), "qmp/src") {
        if text.contains("mvm::") {
            wrong.push(format!("{file} uses mvm"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The sources of a room, a file or a folder.
fn files(root: &Path, room: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![root.join(format!("{room}.rs")), root.join(room)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a folder");
            open.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|kind| kind == "rs") && path.is_file() {
            if is_test(&path) {
                continue;
            }
            let text = fs::read_to_string(&path).expect("a source file");
            // Attributes may stand between `cfg(test)` and the module.
            let text = text.split("\nmod tests {").next();
            let text = text.expect("a split has a first part").to_owned();
            let name = path.strip_prefix(root).expect("below the root");
            found.push((name.display().to_string(), text));
        }
    }
    found
}

/// Whether the file is a module for tests only, or in one: those may reach anywhere.
fn is_test(path: &Path) -> bool {
    path.ancestors().take(3).any(|module| {
        let name = module.file_stem().unwrap_or_default().to_string_lossy();
        fs::read_to_string(module.with_file_name("mod.rs"))
            .is_ok_and(|text| text.contains(&format!("#[cfg(test)]\nmod {name};")))
    })
}

/// The first path segments that follow `crate::`, comments left out.
fn uses(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
    {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            // `$crate::` and `pub(in crate::…)` name their own room or a macro's.
            let rest = rest.trim_start_matches('{');
            let name: String = rest
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            if !name.is_empty() && name.starts_with(|c: char| c.is_ascii_lowercase()) {
                found.push(name);
            }
        }
    }
    found
}

#[test]
fn the_reader_of_uses_sees_what_is_there() {
    let text = "use crate::host::Facts;\n// crate::ops\nlet x = crate::plan::build(crate::ids::X);";
    assert_eq!(uses(text), ["host", "plan", "ids"]);
}
