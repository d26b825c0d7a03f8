//! A directory of a host as lines, to compare what it was with what it is.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Every directory, link and file below `dir`, one line each, sorted; `/.standin` of the root is left out.
pub(crate) fn snapshot(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(at) = dirs.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let rel = path.strip_prefix(dir).unwrap().display().to_string();
            if rel == ".standin" {
                continue;
            }
            let kind = path.symlink_metadata().unwrap();
            all.push(if kind.is_dir() {
                dirs.push(path);
                format!("{rel}/")
            } else if kind.is_symlink() {
                format!("{rel} -> {}", std::fs::read_link(&path).unwrap().display())
            } else {
                let bytes = std::fs::read(&path).unwrap();
                let text = String::from_utf8_lossy(&bytes);
                // Nodes have owners that matter.
                if rel.starts_with("dev/") {
                    format!(
                        "{rel} = {text:?}, {} {:o}",
                        kind.uid(),
                        kind.mode() & 0o7777
                    )
                } else {
                    format!("{rel} = {text:?}")
                }
            });
        }
    }
    all.sort();
    all
}

/// The lines that are in one of two snapshots only: `-` what is gone, `+` what has come.
pub(crate) fn difference(before: &[String], after: &[String]) -> Vec<String> {
    let (was, is): (BTreeSet<_>, BTreeSet<_>) = (before.iter().collect(), after.iter().collect());
    let gone = was.difference(&is).map(|line| format!("- {line}"));
    let come = is.difference(&was).map(|line| format!("+ {line}"));
    gone.chain(come).collect()
}
