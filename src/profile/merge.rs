//! Layers into one profile: the files, then the variants that apply, then the files of `--device`, then
//! the flags.

use std::path::PathBuf;

use serde::Deserialize;

use super::device_flags::{self, choice_word, gpu_kind, gpu_of};
use super::display;
use super::error::ProfileError;
use super::fault::{dotted, shown};
use super::load::{Choices, Origins, Profile, VariantState};
use super::parse::Parsed;
use super::rules::device_rule;
use super::schema::{FirmwareWord, Layer};
use super::tree::{self, Branch, Node, Origin, Tree, lay};
use crate::error::did_you_mean;
use crate::ids::Arch;

/// Lays the layers over each other, then the variants, then what lies `over` them, then the flags.
pub(super) fn merge(
    name: &str,
    machine_file: Option<PathBuf>,
    parsed: Vec<Parsed>,
    over: Vec<Parsed>,
    choices: &Choices,
) -> Result<Profile, ProfileError> {
    let mut layers = Vec::new();
    let mut merged = Tree::new();
    for one in parsed {
        layers.push(one.source);
        lay(&mut merged, one.tree);
    }
    let flags = flags(choices)?;
    let mut over_trees = Vec::new();
    for one in over {
        layers.push(one.source);
        over_trees.push(one.tree);
    }
    let by_key = tree::list_at(&merged, &["variants"]);
    let by_key_origin = tree::at(&merged, &["variants"]).map(|node| node.origin.to_string());
    merged.retain(|key, _| key != "extends" && key != "variants");
    let written = take_variants(&mut merged);
    for (flag, names, by) in [
        (true, &choices.variants, "--variant"),
        (false, &by_key, by_key_origin.as_deref().unwrap_or_default()),
    ] {
        let known = || written.iter().map(|(name, _)| name.as_str());
        if let Some(wrong) = names
            .iter()
            .find(|name| known().all(|known| known != *name))
        {
            return Err(ProfileError::NoVariant {
                by: if flag {
                    format!("{by} {}", shown(wrong))
                } else {
                    format!("`variants` ({by}): `{}`", shown(wrong))
                },
                profile: name.to_owned(),
                known: known().map(str::to_owned).collect(),
                near: did_you_mean(wrong, known()).map(str::to_owned),
                flag,
            });
        }
    }
    display::answered(name, choices, &written)?;

    let above = Above {
        flags: &flags,
        files: &over_trees,
    };
    let mut variants = Vec::new();
    for (variant, mut body) in written {
        let when = take_when(&mut body);
        let by_hand = choices.variants.contains(&variant) || by_key.contains(&variant);
        let holds = !when.is_empty()
            && when
                .iter()
                .all(|(key, wanted)| holds(key, wanted, choices, above, &merged));
        let on = by_hand || holds;
        if on {
            lay(&mut merged, body);
        }
        variants.push(VariantState {
            name: variant,
            on,
            when: when
                .iter()
                .map(|(key, wanted)| format!("{key} = \"{wanted}\""))
                .collect(),
        });
    }
    for tree in over_trees {
        lay(&mut merged, tree);
    }
    for flag in device_layers(choices, &merged)?.into_iter().chain(flags) {
        lay(&mut merged, flag);
    }
    tree::prune(&mut merged);
    complete(&merged)?;
    let layer = Layer::deserialize(tree::plain(&merged)).map_err(|error| ProfileError::Merged {
        profile: name.to_owned(),
        message: shown(error.message()),
    })?;
    if let Some(broken) = device_rule(&layer) {
        let path: Vec<&str> = broken.path.iter().map(String::as_str).collect();
        return Err(ProfileError::Rule {
            origin: tree::at(&merged, &path).map(|node| node.origin.clone()),
            path: dotted(&broken.path),
            message: broken.message,
        });
    }
    Ok(Profile {
        layer,
        name: name.to_owned(),
        machine_file,
        origins: Origins { tree: merged },
        layers,
        variants,
    })
}

/// The flags about devices of the host as layers, lowest first; they lie below the others.
pub(super) fn device_layers(choices: &Choices, merged: &Tree) -> Result<Vec<Tree>, ProfileError> {
    let mut layers = device_flags::devices(&choices.pci, &choices.usb, &choices.mdev)?;
    if let Some(gpu) = &choices.gpu {
        layers.push(device_flags::gpu(gpu, merged)?);
    }
    if choices.take_from_host {
        layers.push(device_flags::take_from_host());
    }
    Ok(layers)
}

/// The other flags as layers, lowest first.
pub(super) fn flags(choices: &Choices) -> Result<Vec<Tree>, ProfileError> {
    let mut flags = Vec::new();
    if let Some(firmware) = &choices.firmware {
        let flag = format!("--firmware {}", shown(firmware));
        if !FirmwareWord::ALL
            .iter()
            .any(|word| word.as_str() == firmware)
        {
            let words: Vec<&str> = FirmwareWord::ALL.iter().map(|word| word.as_str()).collect();
            return Err(ProfileError::Flag {
                flag,
                message: format!("expected one of `{}`", words.join("`, `")),
                hints: did_you_mean(firmware, words)
                    .map(|near| format!("did you mean `{near}`?"))
                    .into_iter()
                    .collect(),
            });
        }
        let origin = Origin::Flag(flag);
        let table = Tree::from_iter([(
            "type".to_owned(),
            Node {
                origin: origin.clone(),
                value: Branch::Leaf(toml::Value::String(firmware.clone())),
            },
        )]);
        let value = Branch::Table(table);
        flags.push(Tree::from_iter([(
            "firmware".to_owned(),
            Node { origin, value },
        )]));
    }
    flags.extend(display::flag(choices));
    for text in &choices.set {
        flags.push(super::set::parse(text)?);
    }
    Ok(flags)
}

/// Takes the variants out of a merged tree, in the order written.
fn take_variants(merged: &mut Tree) -> Vec<(String, Tree)> {
    let mut found = Vec::new();
    if let Some(Branch::Table(table)) = merged.get("variant").map(|node| &node.value) {
        for (name, node) in table {
            if let Branch::Table(body) = &node.value {
                found.push((name.clone(), body.clone()));
            }
        }
    }
    merged.retain(|key, _| key != "variant");
    found
}

pub(super) fn when_of(body: &Tree) -> Vec<(String, String)> {
    match body.get("when").map(|node| &node.value) {
        Some(Branch::Table(when)) => when
            .iter()
            .filter_map(|(key, node)| match &node.value {
                Branch::Leaf(toml::Value::String(value)) => Some((key.clone(), value.clone())),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn take_when(body: &mut Tree) -> Vec<(String, String)> {
    let when = when_of(body);
    body.retain(|key, _| key != "when");
    when
}

const GPU: &str = "none";

/// The value of a condition by the name that mvm has for it.
fn normal<'a>(key: &str, wanted: &'a str) -> &'a str {
    match key {
        "gpu" => gpu_kind(wanted),
        _ => wanted,
    }
}

/// What lies over the variants and so decides before them, each lowest first.
#[derive(Clone, Copy)]
struct Above<'a> {
    flags: &'a [Tree],
    files: &'a [Tree],
}

/// Whether a variant's condition holds.
fn holds(key: &str, wanted: &str, choices: &Choices, above: Above<'_>, merged: &Tree) -> bool {
    if key == "display" {
        // A guest may have several.
        let trees = above.files.iter().chain([merged]);
        return display::chosen(choices, above.flags, trees)
            .iter()
            .any(|kind| kind == wanted);
    }
    chosen(key, choices, above, merged) == normal(key, wanted)
}

/// The value that a variant's condition is compared with: the flag's, or what the profile says.
fn chosen(key: &str, choices: &Choices, above: Above<'_>, merged: &Tree) -> String {
    match key {
        "gpu" => {
            let said = |trees: &[Tree]| {
                trees
                    .iter()
                    .rev()
                    .find_map(|tree| gpu_of(tree).map(str::to_owned))
            };
            let flag = || {
                choices
                    .gpu
                    .as_deref()
                    .map(|flag| gpu_kind(choice_word(flag)).to_owned())
            };
            said(above.flags)
                .or_else(flag)
                .or_else(|| said(above.files))
                .or_else(|| gpu_of(merged).map(str::to_owned))
                .unwrap_or_else(|| GPU.to_owned())
        }
        _ => firmware(above, merged),
    }
}

/// The kind of firmware that the guest will have, by what is known without the host.
fn firmware(above: Above<'_>, merged: &Tree) -> String {
    let said = |path: &[&str]| {
        let files = above.files.iter().rev();
        above
            .flags
            .iter()
            .rev()
            .chain(files)
            .chain([merged])
            .find_map(|tree| tree::text_at(tree, path))
    };
    if let Some(kind) = said(&["firmware", "type"]) {
        return kind.to_owned();
    }
    // A variable store is UEFI's.
    if said(&["firmware", "nvram-template"]).is_some() {
        return "uefi".to_owned();
    }
    let arch = said(&["machine", "arch"]).and_then(|arch| arch.parse().ok());
    match (arch.unwrap_or_else(Arch::host), said(&["boot", "kernel"])) {
        (Arch::X86_64, _) => "bios",
        (Arch::Aarch64, Some(_)) => "none",
        (Arch::Aarch64, None) => "uefi",
    }
    .to_owned()
}

/// Every device says which of its alternatives it is.
fn complete(merged: &Tree) -> Result<(), ProfileError> {
    for (kind, node) in merged {
        let Branch::Table(devices) = &node.value else {
            continue;
        };
        let wanted = tree::alternatives(&[kind]);
        // What a flag would take is not taken yet.
        let only_usual = kind == "gpu" && devices.keys().all(|key| key == "default-vf");
        if !only_usual && !wanted.is_empty() && !wanted.iter().any(|key| devices.contains_key(*key))
        {
            return Err(ProfileError::NoAlternative {
                path: kind.clone(),
                wanted,
                origin: node.origin.to_string(),
            });
        }
        for (id, node) in devices {
            let wanted = tree::alternatives(&[kind, id]);
            let Branch::Table(device) = &node.value else {
                continue;
            };
            let must = !wanted.is_empty() && tree::must_choose(kind);
            if must && !wanted.iter().any(|key| device.contains_key(*key)) {
                return Err(ProfileError::NoAlternative {
                    path: dotted(&[kind.clone(), id.clone()]),
                    wanted,
                    origin: node.origin.to_string(),
                });
            }
        }
    }
    Ok(())
}
