//! The text of a machine file: what `mvm create` keeps of the choices made.

use std::path::Path;

use super::error::ProfileError;
use super::fault::shown;
use super::load::{Chain, Choices, fragments, unknown};
use super::merge::{device_layers, flags, merge};
use super::schema::Layer;
use super::search::{self, Found, Level};
use super::show::plain_text;
use super::tree::{Source, Tree, lay};
use crate::dirs::Dirs;

/// The text of a machine file for `path` that extends a profile with these choices. It is loaded once
/// as if it were there, so that it is known to be well-formed; what it comes to is told as well.
///
/// A choice that only a variant answers (`--display`) is kept as the names of the variants that it
/// switches on.
///
/// # Errors
///
/// [`ProfileError`] as from [`super::load`], and where the name is only that of a machine file: that is
/// a guest and not a profile to extend.
pub fn machine_text(
    dirs: &Dirs,
    path: &Path,
    profile: &str,
    choices: &Choices,
) -> Result<(String, Layer), ProfileError> {
    let levels = search::levels(dirs);
    let first = levels
        .iter()
        .position(|level| !matches!(level, Level::Machines(_)))
        .unwrap_or_default();
    let found = if search::is_name(profile) {
        search::find(&levels, first, profile)?
    } else {
        return Err(ProfileError::NotAName(shown(profile)));
    };
    let found = match found {
        Some(found) => found,
        None if search::find(&levels[..first], 0, profile)?.is_some() => {
            return Err(ProfileError::AGuest(profile.to_owned()));
        }
        None => return Err(unknown(&levels[first..], profile)),
    };
    let loaded = merged(&levels, found, profile, choices)?;

    let mut variants = choices.variants.clone();
    for variant in loaded.variants.iter().filter(|variant| variant.on) {
        let by_flag = |when: &String| when.starts_with("display ");
        if variant.when.iter().any(by_flag) && !variants.contains(&variant.name) {
            variants.push(variant.name.clone());
        }
    }
    let mut said = Tree::new();
    for fragment in fragments(&levels, choices)? {
        lay(&mut said, fragment.tree);
    }
    for flag in device_layers(choices, &loaded.origins.tree)?
        .into_iter()
        .chain(flags(choices)?)
    {
        lay(&mut said, flag);
    }
    let list = |names: &[String]| {
        let names = names.iter().cloned().map(toml::Value::String);
        toml::Value::Array(names.collect()).to_string()
    };
    let mut text = format!("extends = {}\n", list(&[profile.to_owned()]));
    if !variants.is_empty() {
        text.push_str(&format!("variants = {}\n", list(&variants)));
    }
    text.push_str(&plain_text(&said));

    let itself = Found {
        source: Source::File(path.to_owned()),
        level: Some(0),
        name: path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        text: text.clone(),
    };
    let layer = merged(&levels, itself, profile, &Choices::default())?.layer;
    Ok((text, layer))
}

fn merged(
    levels: &[Level],
    found: Found,
    name: &str,
    choices: &Choices,
) -> Result<super::Profile, ProfileError> {
    let mut chain = Chain::new(levels);
    chain.visit(found)?;
    let over = fragments(levels, choices)?;
    merge(name, None, chain.layers, over, choices)
}
