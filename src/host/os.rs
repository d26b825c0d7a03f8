//! Which distribution this is: only to name the right package in an advice.

use serde::{Deserialize, Serialize};

use super::facts::Roots;

/// From `/etc/os-release` (see os-release(5)).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OsRelease {
    /// `ID`: `debian`, `fedora`, …; empty where unknown.
    pub id: String,
    /// `ID_LIKE`: the distributions it descends from.
    pub like: Vec<String>,
    /// `PRETTY_NAME`.
    pub name: String,
}

impl OsRelease {
    /// Reads `/etc/os-release`, else `/usr/lib/os-release`; empty where there is neither.
    pub fn read(roots: &Roots) -> Self {
        ["/etc/os-release", "/usr/lib/os-release"]
            .iter()
            .find_map(|f| std::fs::read_to_string(roots.path(f)).ok())
            .map(|text| Self::parse(&text))
            .unwrap_or_default()
    }

    /// Parses the text of such a file.
    pub fn parse(text: &str) -> Self {
        let value = |key: &str| {
            let raw = text
                .lines()
                .find_map(|l| l.trim().strip_prefix(key)?.strip_prefix('='))?;
            // The file is in shell syntax; a value that is not is taken as it stands.
            Some(shlex::split(raw).map_or_else(|| raw.to_owned(), |words| words.join(" ")))
        };
        Self {
            id: value("ID").unwrap_or_default(),
            like: value("ID_LIKE")
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
            name: value("PRETTY_NAME").unwrap_or_default(),
        }
    }

    /// Whether this is `family` or descends from it.
    pub fn is_like(&self, family: &str) -> bool {
        self.id == family || self.like.iter().any(|l| l == family)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_and_plain_values() {
        let os = OsRelease::parse(
            "PRETTY_NAME=\"Ubuntu 24.04 LTS\"\nID=ubuntu\nID_LIKE='debian'\nVERSION_ID=24.04\n",
        );
        assert_eq!(
            (os.id.as_str(), os.name.as_str()),
            ("ubuntu", "Ubuntu 24.04 LTS")
        );
        assert!(os.is_like("debian") && os.is_like("ubuntu") && !os.is_like("fedora"));
        assert_eq!(OsRelease::parse(""), OsRelease::default());
    }
}
