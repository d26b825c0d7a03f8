//! The two sides of a copy.

use std::convert::Infallible;
use std::str::FromStr;

use crate::cli::Failure;
use crate::error::{ExitCode, Report};
use crate::ids::GuestName;

/// One side as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Side {
    /// `NAME:PATH`.
    Guest {
        /// The guest.
        name: String,
        /// The path in it.
        path: String,
    },
    /// A path of this host, or `-`.
    Host(String),
}

impl FromStr for Side {
    type Err = Infallible;

    /// As scp reads it: a colon behind a slash belongs to a path of this host, as in `./a:b`.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.split_once(':') {
            Some((name, path)) if !name.contains('/') => Self::Guest {
                name: name.to_owned(),
                path: path.to_owned(),
            },
            _ => Self::Host(text.to_owned()),
        })
    }
}

/// A copy in one direction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sides<'a> {
    Into {
        from: &'a str,
        guest: &'a str,
        to: &'a str,
    },
    OutOf {
        guest: &'a str,
        from: &'a str,
        to: &'a str,
    },
}

/// Which way it goes.
pub(super) fn sides<'a>(source: &'a Side, destination: &'a Side) -> Result<Sides<'a>, Failure> {
    match (source, destination) {
        (Side::Host(from), Side::Guest { name, path }) => Ok(Sides::Into {
            from: here(from)?,
            guest: checked(name, path)?,
            to: path,
        }),
        (Side::Guest { name, path }, Side::Host(to)) => Ok(Sides::OutOf {
            guest: checked(name, path)?,
            from: path,
            to: here(to)?,
        }),
        (Side::Host(_), Side::Host(_)) => Err(wrong("neither side is in a guest")
            .hint("a path in a guest is written NAME:/path")
            .into()),
        (Side::Guest { name: a, .. }, Side::Guest { name: b, .. }) => {
            Err(wrong("both sides are in a guest")
                .hint(format!(
                    "two steps do it: `mvm cp {a}:… -` into `mvm cp - {b}:…`"
                ))
                .hint("a file of this host with a colon in its name is written ./NAME")
                .into())
        }
    }
}

fn wrong(text: &str) -> Report {
    Report::new(ExitCode::Usage, text)
}

fn here(path: &str) -> Result<&str, Failure> {
    if path.is_empty() {
        return Err(wrong("an empty path is no file").into());
    }
    Ok(path)
}

fn checked<'a>(name: &'a str, path: &str) -> Result<&'a str, Failure> {
    GuestName::from_str(name)?;
    // In Windows a drive comes first.
    let drive = path
        .get(1..3)
        .is_some_and(|sign| sign == ":\\" || sign == ":/");
    if path.starts_with('/') || drive {
        return Ok(name);
    }
    Err(wrong(&format!("`{path}` is no path in a guest"))
        .hint(format!("write it from the root on: {name}:/{path}"))
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &str, destination: &str) -> Result<String, String> {
        let side = |text: &str| text.parse::<Side>().unwrap_or_else(|never| match never {});
        let (source, destination) = (side(source), side(destination));
        match sides(&source, &destination) {
            Ok(Sides::Into { from, guest, to }) => Ok(format!("{from} into {guest} {to}")),
            Ok(Sides::OutOf { guest, from, to }) => Ok(format!("{guest} {from} out to {to}")),
            Err(failure) => Err(failure.reports()[0].to_string()),
        }
    }

    #[test]
    fn names_and_paths_are_told_apart() {
        assert_eq!(read("a", "web:/b"), Ok("a into web /b".into()));
        assert_eq!(read("web:/b", "-"), Ok("web /b out to -".into()));
        assert_eq!(
            read("web:/b:c", "./x:y"),
            Ok("web /b:c out to ./x:y".into())
        );
        assert_eq!(read("/x:y", "web:/b/"), Ok("/x:y into web /b/".into()));
        assert_eq!(read("a", "win:C:\\b"), Ok("a into win C:\\b".into()));
    }

    #[test]
    fn what_is_no_copy_is_refused_with_a_way_out() {
        let error = |source, destination| read(source, destination).expect_err("refused");
        assert!(error("a", "b").contains("NAME:/path"));
        assert!(error("a:/x", "b:/y").contains("mvm cp a:… -"));
        assert!(error("a", "web:etc/x").contains("web:/etc/x"));
        assert!(error("a", "web:").contains("no path in a guest"));
        assert!(error("a", ":/x").contains("not a guest name"));
        assert!(error("", "web:/x").contains("empty path"));
    }
}
