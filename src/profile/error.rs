//! What can be wrong with a profile or with the choices made for it.

use std::io;
use std::path::PathBuf;

use super::fault::Fault;
use super::search::MAX_SIZE;
use super::tree::{Origin, Source};
use crate::error::{ExitCode, Hint};

/// A profile that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// No machine file and no profile of that name.
    #[error("there is no machine file and no profile named `{name}`")]
    Unknown {
        /// The name.
        name: String,
        /// One that is near to it.
        near: Option<String>,
    },
    /// A machine file where a profile is wanted.
    #[error("`{0}` is a guest of its own and not a profile")]
    AGuest(String),
    /// A name that can be no file's.
    #[error("`{0}` is not the name of a profile (expected letters, digits, `-`, `_` or `.`)")]
    NotAName(String),
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is something else than a file.
    #[error("{} is {what} and not a profile", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// More than anybody writes.
    #[error("{} is larger than a profile may be ({} KiB)", path.display(), MAX_SIZE >> 10)]
    TooBig {
        /// The file.
        path: PathBuf,
    },
    /// Not a text.
    #[error("{}:{line}: not UTF-8 text", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The line of the first wrong byte, 1 first.
        line: usize,
    },
    /// Something is wrong at one place of a file.
    #[error("{0}")]
    At(Box<Fault>),
    /// Profiles extend each other in a circle.
    #[error("profiles extend each other in a circle: {}", arrows(.0))]
    Cycle(Vec<Source>),
    /// Profiles extend each other further than makes sense.
    #[error("`extends` goes deeper than {limit} profiles: {}", arrows(chain))]
    TooDeep {
        /// How deep it may go.
        limit: usize,
        /// The way down to the one that is too deep.
        chain: Vec<Source>,
    },
    /// A device without one of its alternatives.
    #[error("`{path}` says none of `{}` ({origin})", wanted.join("`, `"))]
    NoAlternative {
        /// The device's table.
        path: String,
        /// What it could be.
        wanted: &'static [&'static str],
        /// Where the table was first mentioned.
        origin: String,
    },
    /// A switched-on variant that the profile does not have.
    #[error("{by} names no variant of {profile}")]
    NoVariant {
        /// What asked for it: the flag or the place of the key.
        by: String,
        /// The profile.
        profile: String,
        /// What the profile has.
        known: Vec<String>,
        /// One that is near.
        near: Option<String>,
        /// Whether a flag asked for it.
        flag: bool,
    },
    /// A choice that changes nothing, which is not what was asked for.
    #[error("neither mvm nor a variant of {profile} knows {flag}")]
    NoAnswer {
        /// The flag.
        flag: String,
        /// The profile.
        profile: String,
        /// The values that a variant answers to.
        known: Vec<String>,
    },
    /// A flag that says something wrong.
    #[error("{flag}: {message}")]
    Flag {
        /// The flag as written.
        flag: String,
        /// What is wrong with it.
        message: String,
        /// What can be done.
        hints: Vec<String>,
    },
    /// Keys that do not go together.
    #[error("{}`{path}`: {message}", place(origin.as_ref()))]
    Rule {
        /// Where the key was said.
        origin: Option<Origin>,
        /// The key.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// The layers, each well-formed, do not fit together.
    #[error("the merged profile {profile} is not well-formed: {message}")]
    Merged {
        /// The profile.
        profile: String,
        /// What is wrong.
        message: String,
    },
}

fn place(origin: Option<&Origin>) -> String {
    origin
        .map(|origin| format!("{origin}: "))
        .unwrap_or_default()
}

/// The chain, shortened in the middle where it is long.
fn arrows(chain: &[Source]) -> String {
    let names: Vec<String> = chain.iter().map(Source::to_string).collect();
    match names.as_slice() {
        [first, second, .., before, last] if names.len() > 8 => {
            format!(
                "{first} → {second} → … ({} more) → {before} → {last}",
                names.len() - 4
            )
        }
        all => all.join(" → "),
    }
}

impl From<Box<Fault>> for ProfileError {
    fn from(fault: Box<Fault>) -> Self {
        Self::At(fault)
    }
}

impl Hint for ProfileError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Unknown {
                near: Some(near), ..
            } => vec![format!("did you mean `{near}`?")],
            Self::Unknown { .. } | Self::AGuest(_) => {
                vec!["`mvm profile list` shows the profiles".to_owned()]
            }
            Self::At(fault) => fault.hints.clone(),
            Self::Flag { hints, .. } => hints.clone(),
            Self::NoVariant { near, known, .. } => match near {
                Some(near) => vec![format!("did you mean `{near}`?")],
                None => vec![list_or("its variants are", known, "it has no variants")],
            },
            Self::NoAnswer { known, .. } => {
                vec![list_or("there are", known, "it has none for that flag")]
            }
            _ => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::AGuest(_)
            | Self::Flag { .. }
            | Self::NoAnswer { .. }
            | Self::Rule {
                origin: Some(Origin::Flag(_)),
                ..
            }
            | Self::NoVariant { flag: true, .. } => ExitCode::Usage,
            _ => ExitCode::Profile,
        }
    }
}

fn list_or(lead: &str, known: &[String], none: &str) -> String {
    if known.is_empty() {
        none.to_owned()
    } else {
        format!("{lead} `{}`", known.join("`, `"))
    }
}
