//! A set of names in one text: what QEMU knows is long, and a start looks at a handful of it.

use serde::{Deserialize, Serialize};

/// A set of names without white space, kept sorted in one text with spaces between.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Names(String);

impl Names {
    /// Whether `name` is in the set.
    pub fn contains(&self, name: &str) -> bool {
        !name.is_empty() && self.iter().any(|n| n == name)
    }

    /// The names, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split(' ').filter(|n| !n.is_empty())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<S: Into<String>> FromIterator<S> for Names {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Self {
        let mut all: Vec<String> = names.into_iter().map(Into::into).collect();
        all.retain(|n| !n.is_empty() && !n.contains(' '));
        all.sort_unstable();
        all.dedup();
        Self(all.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_names_only() {
        let names: Names = ["nvme-ns", "e1000", "nvme", "nvme", ""]
            .into_iter()
            .collect();
        assert!(names.contains("nvme") && names.contains("nvme-ns"));
        assert!(!names.contains("nv") && !names.contains("") && !names.contains("e1000 nvme"));
        assert_eq!(
            names.iter().collect::<Vec<_>>(),
            ["e1000", "nvme", "nvme-ns"]
        );
        assert!(Names::default().is_empty() && Names::default().iter().next().is_none());
    }
}
