//! From a name to the merged profile: the search path and `extends`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::ProfileError;
use super::fault::{Told, shown};
use super::merge::merge;
use super::parse::{Parsed, parse};
use super::schema::Layer;
use super::search::{self, Found, Level};
use super::tree::{self, Origin, Source, Tree};
use crate::dirs::Dirs;
use crate::error::did_you_mean;

/// How deep `extends` may go.
pub const MAX_DEPTH: usize = 32;

/// What the command line chose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choices {
    /// `--gpu`; what comes after a `:` or `@` is not compared with variants.
    pub gpu: Option<String>,
    /// `--pci`, in the order given.
    pub pci: Vec<String>,
    /// `--usb`
    pub usb: Vec<String>,
    /// `--mdev`
    pub mdev: Vec<String>,
    /// `--device`: files that lie over all others and over the variants, each over those before it.
    pub device: Vec<PathBuf>,
    /// `--take-from-host`
    pub take_from_host: bool,
    /// `--display`
    pub display: Option<String>,
    /// `--firmware`: also sets `firmware.type`.
    pub firmware: Option<String>,
    /// `--set KEY=VALUE`, in the order given; each lies over those before it.
    pub set: Vec<String>,
    /// `--variant NAME`: variants switched on by hand.
    pub variants: Vec<String>,
}

/// The merged profile.
#[derive(Debug, Clone)]
pub struct Profile {
    /// The values. `extends`, `variant` and `variants` are used up and not in it.
    pub layer: Layer,
    /// The name it was asked for by; for a file named by its path the path as given.
    pub name: String,
    /// The machine file, where the name is that of one.
    pub machine_file: Option<PathBuf>,
    /// Where each value was said.
    pub origins: Origins,
    /// The files it is made of, lowest first.
    pub layers: Vec<Source>,
    /// The variants, in the order in which they apply.
    pub variants: Vec<VariantState>,
}

/// A variant of a loaded profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VariantState {
    /// Its name.
    pub name: String,
    /// Whether it applies.
    pub on: bool,
    /// The choices it waits for, as in `firmware = "uefi"`.
    pub when: Vec<String>,
}

/// Where each value of a profile was said.
#[derive(Debug, Clone)]
pub struct Origins {
    pub(super) tree: Tree,
}

impl Origins {
    /// The origin of a key, as in `["disk", "system", "cache"]`; `None` where nobody said it.
    pub fn get(&self, path: &[&str]) -> Option<&Origin> {
        tree::at(&self.tree, path).map(|node| &node.origin)
    }
}

/// Loads the machine file of that name or else the profile of that name, with all it extends, the
/// variants that the choices switch on, and the flags.
///
/// A name with a `/` is the path of a file.
///
/// # Errors
///
/// [`ProfileError`]; its exit code says whether a file or a flag is at fault.
pub fn load(dirs: &Dirs, name: &str, choices: &Choices) -> Result<Profile, ProfileError> {
    let levels = search::levels(dirs);
    let found = locate(&levels, name)?;
    let machine_file = match (&found.source, found.level.map(|at| &levels[at])) {
        (Source::File(path), Some(Level::Machines(_))) => Some(path.clone()),
        _ => None,
    };
    let mut chain = Chain::new(&levels);
    chain.visit(found)?;
    let over = fragments(&levels, choices)?;
    merge(name, machine_file, chain.layers, over, choices)
}

/// The files of `--device`.
pub(super) fn fragments(levels: &[Level], choices: &Choices) -> Result<Vec<Parsed>, ProfileError> {
    let mut fragments = Vec::new();
    for path in &choices.device {
        let found = search::file(levels, path)?;
        if found.text.trim_start().starts_with('<') {
            return Err(ProfileError::Flag {
                flag: format!("--device {}", shown(&path.to_string_lossy())),
                message: "this is XML, and a piece of a profile is TOML".to_owned(),
                hints: vec!["`--xml` takes devices as libvirt has them".to_owned()],
            });
        }
        let parsed = parse(&found.source, found.text)?;
        for key in ["extends", "variant", "variants", "summary"] {
            if parsed.tree.contains_key(key) {
                return Err(ProfileError::Flag {
                    flag: format!("--device {}", shown(&path.to_string_lossy())),
                    message: format!("`{key}` is for profiles, and this file lies over one"),
                    hints: Vec::new(),
                });
            }
        }
        fragments.push(parsed);
    }
    Ok(fragments)
}

/// What the flags and the files of `--device` alone say, over no profile: devices for a guest that runs already.
///
/// # Errors
///
/// A flag or a file says what is wrong.
pub fn flags_alone(dirs: &Dirs, choices: &Choices) -> Result<Layer, ProfileError> {
    let over = fragments(&search::levels(dirs), choices)?;
    merge("the flags", None, Vec::new(), over, choices).map(|profile| profile.layer)
}

/// Finds what a name or a path means.
pub(super) fn locate(levels: &[Level], name: &str) -> Result<Found, ProfileError> {
    if name.contains('/') {
        return search::file(levels, Path::new(name));
    }
    if !search::is_name(name) {
        return Err(ProfileError::NotAName(shown(name)));
    }
    search::find(levels, 0, name)?.ok_or_else(|| unknown(levels, name))
}

pub(super) fn unknown(levels: &[Level], name: &str) -> ProfileError {
    let known = search::all_names(levels);
    // A path is one by its slash only: the file that lies here was most likely meant.
    let here = (name.ends_with(".toml") && Path::new(name).is_file()).then(|| format!("./{name}"));
    let near = || did_you_mean(name, known.iter().map(String::as_str)).map(str::to_owned);
    ProfileError::Unknown {
        name: shown(name),
        near: here.or_else(near),
    }
}

/// The walk down `extends`. Every file is laid down once, at its lowest place: what two profiles both
/// extend does not undo what the first of them says.
pub(super) struct Chain<'a> {
    levels: &'a [Level],
    /// The way down to here.
    stack: Vec<Source>,
    seen: HashSet<Source>,
    /// The layers, lowest first.
    pub(super) layers: Vec<Parsed>,
}

impl<'a> Chain<'a> {
    pub(super) fn new(levels: &'a [Level]) -> Self {
        Self {
            levels,
            stack: Vec::new(),
            seen: HashSet::new(),
            layers: Vec::new(),
        }
    }

    pub(super) fn visit(&mut self, found: Found) -> Result<(), ProfileError> {
        if let Some(at) = self.stack.iter().position(|source| *source == found.source) {
            let mut circle = self.stack[at..].to_vec();
            circle.push(found.source);
            return Err(ProfileError::Cycle(circle));
        }
        if self.seen.contains(&found.source) {
            return Ok(());
        }
        self.stack.push(found.source.clone());
        if self.stack.len() > MAX_DEPTH {
            return Err(ProfileError::TooDeep {
                limit: MAX_DEPTH,
                chain: std::mem::take(&mut self.stack),
            });
        }
        let parsed = parse(&found.source, found.text)?;
        for (base, span) in &parsed.extends {
            // A profile may extend the one of its own name further down the search path.
            let from = match found.level {
                Some(own) if *base == found.name => own + 1,
                _ => 0,
            };
            // Machine files are guests; nobody extends them.
            let first = self
                .levels
                .iter()
                .position(|level| !matches!(level, Level::Machines(_)));
            let from = from.max(first.unwrap_or(0));
            let next = if search::is_name(base) {
                search::find(self.levels, from, base)?
            } else {
                None
            };
            let Some(next) = next else {
                let known = search::all_names(&self.levels[from..]);
                let mut told = Told::new(format!("there is no profile named `{}`", shown(base)));
                if *base == found.name && from > 0 {
                    told.message.push_str(" below this one");
                }
                if let Some(near) = did_you_mean(base, known.iter().map(String::as_str)) {
                    told = told.hint(format!("did you mean `{near}`?"));
                }
                return Err(Box::new(parsed.fault(span.clone(), told)).into());
            };
            self.visit(next)?;
        }
        self.stack.pop();
        self.seen.insert(found.source);
        self.layers.push(parsed);
        Ok(())
    }
}
