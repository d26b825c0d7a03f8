//! What every error of mvm has beside its message: a hint and an exit code.
//!
//! The library never prints. Domain errors are small `thiserror` enums in their own modules; each
//! implements [`Hint`], and the command line renders them once, as `error: …` and `hint: …`.

use std::fmt;

/// The exit codes of the `mvm` command, a contract with scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// The thing was tried and did not work.
    Failed = 1,
    /// The command line itself is wrong.
    Usage = 2,
    /// The profile or machine file is wrong.
    Profile = 3,
    /// This host cannot do it.
    Host = 4,
    /// The guest is not running.
    NotRunning = 5,
    /// The guest has ended, and the init system that started its supervisor is to start it anew.
    Again = 75,
}

impl ExitCode {
    /// The code of that number; [`Self::Failed`] for one that is none of them.
    pub fn from_number(number: i32) -> Self {
        [Self::Usage, Self::Profile, Self::Host, Self::NotRunning]
            .into_iter()
            .find(|code| *code as i32 == number)
            .unwrap_or(Self::Failed)
    }
}

/// What a domain error knows beside its message.
pub trait Hint: std::error::Error {
    /// What the user can do about it, one sentence each, without a full stop.
    fn hints(&self) -> Vec<String> {
        Vec::new()
    }

    /// The exit code that this error ends the command with.
    fn exit_code(&self) -> ExitCode {
        ExitCode::Failed
    }
}

/// Any error on its way to the user: message, chain of causes, hints, exit code.
#[derive(Debug, Clone)]
pub struct Report {
    /// The message, then each cause, outermost first.
    pub chain: Vec<String>,
    /// What the user can do about it.
    pub hints: Vec<String>,
    /// The exit code.
    pub code: ExitCode,
}

impl Report {
    /// A report made of a message alone.
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self {
            chain: vec![message.into()],
            hints: Vec::new(),
            code,
        }
    }

    /// The same with one more hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl<E: Hint> From<E> for Report {
    fn from(error: E) -> Self {
        let mut chain = vec![error.to_string()];
        let mut source = error.source();
        while let Some(cause) = source {
            chain.push(cause.to_string());
            source = cause.source();
        }
        Self {
            chain,
            hints: error.hints(),
            code: error.exit_code(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.chain.join(": "))?;
        for hint in &self.hints {
            writeln!(f, "hint: {hint}")?;
        }
        Ok(())
    }
}

/// "did you mean": the candidate nearest to `wrong`, when it is near enough to be a slip.
pub fn did_you_mean<'a>(
    wrong: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let limit = (wrong.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(wrong, candidate), candidate))
        .filter(|(far, _)| *far <= limit)
        .min_by_key(|(far, _)| *far)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, where two letters swapped count as one slip; words longer than 64 characters are nobody's slip.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut far = (row[j + 1] + 1)
                .min(next[j] + 1)
                .min(row[j] + usize::from(x != y));
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                far = far.min(before[j - 1] + 1);
            }
            next.push(far);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word() {
        assert_eq!(did_you_mean("memroy", ["memory", "cpu"]), Some("memory"));
        assert_eq!(did_you_mean("modle", ["model", "count"]), Some("model"));
        assert_eq!(did_you_mean("disks", ["disk", "display"]), Some("disk"));
        assert_eq!(did_you_mean("xyz", ["memory", "cpu"]), None);
    }

    #[test]
    fn a_report_renders_chain_and_hints() {
        let report = Report {
            chain: vec!["cannot read a".into(), "no such file".into()],
            hints: vec!["make it".into()],
            code: ExitCode::Failed,
        };
        assert_eq!(
            report.to_string(),
            "error: cannot read a: no such file\nhint: make it\n"
        );
    }
}
