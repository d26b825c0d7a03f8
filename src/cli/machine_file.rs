//! The machine files of guests: where they are, and whether what is in one can be run.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{Context, Failure};
use crate::error::{ExitCode, Report};
use crate::ids::GuestName;
use crate::profile::{self, Choices, Origin, Profile};

/// Where this user's machine file of that name belongs.
pub(super) fn path(context: &Context, name: &GuestName) -> PathBuf {
    context
        .dirs
        .config
        .join("machines")
        .join(format!("{name}.toml"))
}

/// The machine file of that name, this user's or the system's.
pub(super) fn find(context: &Context, name: &GuestName) -> Option<PathBuf> {
    let folders = context.dirs.machines().into_iter();
    folders
        .map(|folder| folder.join(format!("{name}.toml")))
        .find(|path| path.symlink_metadata().is_ok())
}

/// Everything that is wrong with the file.
pub(super) fn check(context: &Context, path: &Path) -> Result<(), Failure> {
    // A text with a slash is a path; the folders that files are in are absolute.
    let problems = profile::check(&context.dirs, &path.to_string_lossy())?;
    Failure::collect(problems.into_iter().map(|problem| {
        Report {
            chain: vec![problem.message],
            hints: problem.hints,
            code: ExitCode::Profile,
        }
        .into()
    }))
}

/// A machine file that says what the choices say, over that profile.
pub(super) fn text(
    context: &Context,
    name: &GuestName,
    base: &str,
    choices: &Choices,
) -> Result<String, Failure> {
    let chosen = profile::load(&context.dirs, base, choices)?;
    if chosen.machine_file.is_some() {
        return Err(Report::new(
            ExitCode::Usage,
            format!("`{base}` is a guest of its own and not a profile"),
        )
        .hint("`mvm profile list` shows the profiles")
        .into());
    }
    let mut table = toml::Table::new();
    table.insert("extends".to_owned(), vec![base.to_owned()].into());
    let variants = switched_on(context, base, choices, &chosen)?;
    if !variants.is_empty() {
        table.insert("variants".to_owned(), variants.into());
    }
    for value in profile::values(&chosen) {
        if matches!(value.origin, Origin::Flag(_)) {
            set(&mut table, &value.key, &value.value)?;
        }
    }
    let summary = chosen.layer.summary.unwrap_or_default();
    let mut text = format!("# The guest `{name}`: what stands here lies over the profile {base}");
    // Writing to a String cannot fail.
    let _ = match summary.lines().next() {
        Some(line) => writeln!(text, ",\n# \"{line}\"."),
        None => writeln!(text, "."),
    };
    let _ = writeln!(
        text,
        "#\n\
         #   mvm edit {name}            change this file, with a check afterwards\n\
         #   mvm profile show {name}    everything it comes to, and where each value is from\n\
         #   mvm start {name}\n"
    );
    text.push_str(&table.to_string());
    Ok(text)
}

/// The variants that the choices switch on and the values that are written down would not.
fn switched_on(
    context: &Context,
    base: &str,
    choices: &Choices,
    chosen: &Profile,
) -> Result<Vec<String>, Failure> {
    let plain = Choices {
        firmware: choices.firmware.clone(),
        set: choices.set.clone(),
        ..Choices::default()
    };
    let without = profile::load(&context.dirs, base, &plain)?;
    let on = |profile: &Profile| -> Vec<String> {
        let variants = profile.variants.iter().filter(|variant| variant.on);
        variants.map(|variant| variant.name.clone()).collect()
    };
    let already = on(&without);
    Ok(on(chosen)
        .into_iter()
        .filter(|name| !already.contains(name))
        .collect())
}

/// Sets a dotted key of a table.
fn set(table: &mut toml::Table, key: &str, value: &serde_json::Value) -> Result<(), Failure> {
    let strange = || {
        Failure::message(
            ExitCode::Failed,
            format!("`{key}` cannot be written into a machine file"),
        )
    };
    let value = toml::Value::try_from(value).map_err(|_| strange())?;
    let line: toml::Table = toml::from_str(&format!("{key} = {value}")).map_err(|_| strange())?;
    lay(table, line);
    Ok(())
}

fn lay(under: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => lay(old, new),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}
