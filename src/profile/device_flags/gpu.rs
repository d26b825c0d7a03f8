//! `--gpu`

use super::{index_value, vf_index, wrong};
use crate::error::did_you_mean;
use crate::ids::Bdf;
use crate::profile::error::ProfileError;
use crate::profile::fault::shown;
use crate::profile::tree::{self, Branch, Node, Origin, Tree};

/// The kinds of GPU that a guest can have.
const GPU_KINDS: [&str; 6] = ["vf", "whole", "upt", "mdev", "virtio", "none"];

/// The same kind by the name that mvm has for it.
pub(in crate::profile) fn gpu_kind(word: &str) -> &str {
    match word {
        "sriov" => "vf",
        "gvtd" => "whole",
        word => word,
    }
}

/// `--gpu TEXT` as a layer. A bare `vf` or `mdev` takes what `merged` says, and else `auto`.
pub(in crate::profile) fn gpu(text: &str, merged: &Tree) -> Result<Tree, ProfileError> {
    let (head, address) = match text.split_once('@') {
        Some((head, address)) => {
            let bdf = address
                .parse::<Bdf>()
                .map_err(|error| wrong("gpu", text, error.to_string(), Vec::new()))?;
            (head, Some(bdf))
        }
        None => (text, None),
    };
    let (word, value) = match head.split_once(':') {
        Some((word, value)) => (word, Some(value)),
        None => (head, None),
    };
    let kind = gpu_kind(word);
    let Some(kind) = GPU_KINDS.into_iter().find(|known| *known == kind) else {
        let known = GPU_KINDS.into_iter().chain(["sriov", "gvtd"]);
        let hint = match did_you_mean(word, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                "the forms are `vf`, `vf:N`, `vf:auto`, `whole`, `upt`, `mdev:TYPE`, `mdev:UUID`, `virtio` and \
                 `none`, and `@ADDRESS` after those of the host"
                    .to_owned()
            }
        };
        return Err(wrong(
            "gpu",
            text,
            format!("there is no GPU `{}`", shown(word)),
            vec![hint],
        ));
    };
    let origin = Origin::Flag(format!("--gpu {}", shown(text)));
    let of_profile = || tree::at(merged, &["gpu", kind]).cloned();
    let leaf = |value: toml::Value| Node {
        origin: origin.clone(),
        value: Branch::Leaf(value),
    };
    let chosen = match (kind, value) {
        ("vf", Some(value)) => leaf(index_value(vf_index("gpu", text, value)?)),
        ("vf", None) => of_profile()
            .or_else(|| tree::at(merged, &["gpu", "default-vf"]).cloned())
            .unwrap_or_else(|| leaf("auto".into())),
        ("mdev", Some("")) => return Err(wrong("gpu", text, "names no type", Vec::new())),
        ("mdev", Some(value)) => leaf(value.into()),
        ("mdev", None) => of_profile().ok_or_else(|| {
            let hint = "`mvm devices mdev` lists the types";
            wrong(
                "gpu",
                text,
                "the profile does not say which",
                vec![hint.to_owned()],
            )
        })?,
        (_, Some(_)) => {
            return Err(wrong(
                "gpu",
                text,
                format!("`{kind}` takes nothing after a `:`"),
                Vec::new(),
            ));
        }
        ("none", None) => Node {
            origin: origin.clone(),
            value: Branch::Table(Tree::new()),
        },
        (_, None) => leaf(true.into()),
    };
    let mut table = Tree::from_iter([(kind.to_owned(), chosen)]);
    if let Some(bdf) = address {
        if matches!(kind, "virtio" | "none") {
            return Err(wrong(
                "gpu",
                text,
                format!("`{kind}` is no device of the host"),
                Vec::new(),
            ));
        }
        table.insert("address".to_owned(), leaf(bdf.to_string().into()));
    }
    let value = Branch::Table(table);
    Ok(Tree::from_iter([(
        "gpu".to_owned(),
        Node { origin, value },
    )]))
}

/// The kind of GPU that a layer chooses.
pub(in crate::profile) fn gpu_of(tree: &Tree) -> Option<&str> {
    match &tree.get("gpu")?.value {
        Branch::Table(table) => tree::chosen(table, &["gpu".to_owned()]).first().copied(),
        Branch::Leaf(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::super::tests::plain;
    use super::*;

    #[test]
    fn a_bare_vf_is_the_profiles_own() {
        let parsed = crate::profile::set::parse("gpu.vf=3").unwrap();
        let usual = crate::profile::set::parse("gpu.default-vf=5").unwrap();
        let none = Tree::new();
        for (text, merged, expected) in [
            ("vf", &parsed, "[gpu] vf = 3"),
            ("sriov", &none, "[gpu] vf = \"auto\""),
            ("sriov", &usual, "[gpu] vf = 5"),
            ("vf:auto", &parsed, "[gpu] vf = \"auto\""),
            (
                "vf:2@03:00.0",
                &none,
                "[gpu] vf = 2 address = \"0000:03:00.0\"",
            ),
            ("gvtd", &none, "[gpu] whole = true"),
            ("none", &none, "[gpu.none]"),
            (
                "mdev:i915-GVTg_V5_4",
                &none,
                "[gpu] mdev = \"i915-GVTg_V5_4\"",
            ),
        ] {
            assert_eq!(plain(&gpu(text, merged).unwrap()), expected);
        }
        for (text, expected) in [
            ("vfs", "--gpu vfs: there is no GPU `vfs`"),
            (
                "whole:1",
                "--gpu whole:1: `whole` takes nothing after a `:`",
            ),
            (
                "virtio@00:02.0",
                "--gpu virtio@00:02.0: `virtio` is no device of the host",
            ),
            (
                "vf:x",
                "--gpu vf:x: `x` is not the number of a virtual function (expected 1 or more, or `auto`)",
            ),
            ("mdev", "--gpu mdev: the profile does not say which"),
        ] {
            assert_eq!(gpu(text, &none).unwrap_err().to_string(), expected);
        }
    }
}
