//! The host's state that mvm changes and gives back, read by files/root/usr/sbin/lab-snapshot.

use std::collections::BTreeSet;
use std::fmt;

/// Lines of facts. Equal where all are the same but for what mvm keeps about a guest that has ended.
#[derive(Clone)]
pub(crate) struct Snapshot {
    /// Drivers, overrides, VFs, groups, nodes, mdevs, USB, consoles, pages, links, processes, run-time files.
    pub(crate) facts: BTreeSet<String>,
    /// What is below mvm's state directory.
    pub(crate) kept: BTreeSet<String>,
}

impl Snapshot {
    /// From what the script printed.
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::to_owned);
        let (kept, facts) = lines.partition(|line: &String| line.starts_with("kept "));
        Self { facts, kept }
    }

    /// What is different afterwards: `- ` was, `+ ` is. Empty where nothing is.
    pub(crate) fn diff(&self, after: &Self) -> String {
        let gone = self.facts.difference(&after.facts);
        let new = after.facts.difference(&self.facts);
        let gone = gone.map(|line| format!("- {line}\n"));
        let mut lines: Vec<_> = gone.chain(new.map(|line| format!("+ {line}\n"))).collect();
        lines.sort_by(|a, b| a[2..].cmp(&b[2..]));
        lines.concat()
    }

    /// Whether one line holds all of these words.
    pub(crate) fn has(&self, words: &[&str]) -> bool {
        let mut lines = self.facts.iter().chain(&self.kept);
        lines.any(|line| words.iter().all(|word| line.contains(word)))
    }
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.facts == other.facts
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.facts {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}
