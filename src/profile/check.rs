//! `mvm profile check`: everything that can be told about a profile without a host.

use serde::Serialize;

use super::error::ProfileError;
use super::load::{Chain, Choices, Profile, load, locate};
use super::parse::faults;
use super::rules::rules;
use super::search;
use crate::dirs::Dirs;
use crate::error::Hint;

/// As many faults of one file as are told; the rest mostly follows from the first.
const LIMIT: usize = 50;

/// Something that is wrong with a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What and where.
    pub message: String,
    /// What can be done about it.
    pub hints: Vec<String>,
}

/// Checks a profile or machine file, by name or by path: the file by itself, then what it extends,
/// then the merged profile, as it is and with each of its variants.
///
/// # Errors
///
/// [`ProfileError`] where there is nothing to check: no such file, or none that can be read.
pub fn check(dirs: &Dirs, name: &str) -> Result<Vec<Problem>, ProfileError> {
    let levels = search::levels(dirs);
    let found = locate(&levels, name)?;
    let own = faults(&found.source, &found.text, LIMIT);
    if !own.is_empty() {
        return Ok(own
            .into_iter()
            .map(|fault| Problem {
                message: fault.to_string(),
                hints: fault.hints,
            })
            .collect());
    }
    if let Err(error) = Chain::new(&levels).visit(found) {
        return Ok(vec![told(&error)]);
    }
    let mut problems = Vec::new();
    let mut add = |loaded: Result<Profile, ProfileError>, variant: Option<&str>| {
        let (found, profile) = match loaded {
            Ok(profile) => (broken(&profile), Some(profile)),
            Err(error) => (vec![told(&error)], None),
        };
        for mut problem in found {
            if problems.contains(&problem) {
                continue;
            }
            // Where the place is in the variant, it says so itself.
            if let Some(variant) = variant.filter(|_| !problem.message.starts_with("variant ")) {
                problem.message = format!("with variant {variant}: {}", problem.message);
            }
            problems.push(problem);
        }
        profile
    };
    let plain = add(load(dirs, name, &Choices::default()), None);
    for variant in plain.map(|plain| plain.variants).unwrap_or_default() {
        let choices = Choices {
            variants: vec![variant.name.clone()],
            ..Choices::default()
        };
        add(load(dirs, name, &choices), Some(&variant.name));
    }
    Ok(problems)
}

fn told(error: &ProfileError) -> Problem {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    Problem {
        message: format!("{error}{}", cause.unwrap_or_default()),
        hints: error.hints(),
    }
}

/// The rules that the merged profile breaks, each with the place of the value.
fn broken(profile: &Profile) -> Vec<Problem> {
    rules(&profile.layer)
        .into_iter()
        .map(|broken| {
            let path: Vec<&str> = broken.path.iter().map(String::as_str).collect();
            let place = profile
                .origins
                .get(&path)
                .map(|origin| format!("{origin}: "))
                .unwrap_or_default();
            Problem {
                message: format!("{place}`{}`: {}", path.join("."), broken.message),
                hints: Vec::new(),
            }
        })
        .collect()
}
