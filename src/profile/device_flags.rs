//! `--pci`, `--usb`, `--mdev`, `--gpu`: what people write for a device of the host, as tables of a profile.

mod gpu;

use crate::ids::{Bdf, UsbPort};

use super::error::ProfileError;
use super::fault::shown;
use super::schema::{DeviceId, VfIndex};
use super::tree::{Branch, Node, Origin, Tree};
pub(super) use gpu::{gpu, gpu_kind, gpu_of};

/// The names of tables made from flags are this long at most: QEMU ids are, with a function's number.
const NAME: usize = 28;

/// What a choice is compared by: `vf:1@0000:00:02.0` is a `vf`.
pub(super) fn choice_word(choice: &str) -> &str {
    choice.split([':', '@']).next().unwrap_or(choice)
}

/// A flag's value that cannot be understood.
fn wrong(flag: &str, text: &str, message: impl Into<String>, hints: Vec<String>) -> ProfileError {
    ProfileError::Flag {
        flag: format!("--{flag} {}", shown(text)),
        message: message.into(),
        hints,
    }
}

/// The keys of one device.
type Keys = Vec<(&'static str, toml::Value)>;

/// The table that `--pci TEXT` stands for.
fn pci(text: &str) -> Result<Keys, ProfileError> {
    if let Some(rest) = vf_of(text) {
        let Some((index, of)) = rest.split_once('@') else {
            return Err(wrong(
                "pci",
                text,
                "does not say of which device",
                vec!["as in `vf:1@0000:01:00.0` or `vf:auto@x550`".to_owned()],
            ));
        };
        let index = match index.strip_prefix(':') {
            Some(index) => vf_index("pci", text, index)?,
            None => VfIndex::Auto,
        };
        let of = match of.parse::<Bdf>() {
            Ok(bdf) => bdf.to_string(),
            Err(_) => of.to_owned(),
        };
        let vf = toml::Table::from_iter([
            ("of".to_owned(), of.into()),
            ("index".to_owned(), index_value(index)),
        ]);
        return Ok(vec![("vf", vf.into())]);
    }
    if let Ok(bdf) = text.parse::<Bdf>() {
        return Ok(vec![("address", bdf.to_string().into())]);
    }
    by_words("pci", text)
}

/// What follows `vf`, where that is all of the first word.
fn vf_of(text: &str) -> Option<&str> {
    text.strip_prefix("vf")
        .filter(|rest| rest.starts_with([':', '@']))
}

/// The table that `--usb TEXT` stands for.
fn usb(text: &str) -> Result<Keys, ProfileError> {
    if let Some(serial) = text.strip_prefix("serial:") {
        return Ok(vec![("serial", serial.into())]);
    }
    match text.parse::<UsbPort>() {
        Ok(port) => Ok(vec![("port", port.to_string().into())]),
        Err(_) => by_words("usb", text),
    }
}

/// The table that `--mdev TEXT` stands for.
fn mdev(text: &str) -> Keys {
    if let Ok(uuid) = text.parse::<uuid::Uuid>() {
        return vec![("uuid", uuid.to_string().into())];
    }
    match text.split_once('@') {
        Some((kind, parent)) => vec![("type", kind.into()), ("parent", parent.into())],
        None => vec![("type", text.into())],
    }
}

/// Ids or words, and which of those they match.
fn by_words(flag: &str, text: &str) -> Result<Keys, ProfileError> {
    let whole = |text: &str| match text.parse::<DeviceId>() {
        Ok(id) => ("id", id.to_string().into()),
        Err(_) => ("match", text.into()),
    };
    if let (key @ "id", id) = whole(text) {
        return Ok(vec![(key, id)]);
    }
    let digits = |nth: &str| !nth.is_empty() && nth.bytes().all(|b| b.is_ascii_digit());
    Ok(match text.rsplit_once(':') {
        Some((words, nth)) if digits(nth) && !words.is_empty() => {
            let number = nth.parse::<u32>().ok().filter(|nth| *nth > 0);
            let number = number
                .ok_or_else(|| wrong(flag, text, "devices are counted from 1", Vec::new()))?;
            vec![whole(words), ("nth", i64::from(number).into())]
        }
        _ => vec![whole(text)],
    })
}

fn vf_index(flag: &str, text: &str, index: &str) -> Result<VfIndex, ProfileError> {
    index
        .parse()
        .map_err(|message: String| wrong(flag, text, message, Vec::new()))
}

fn index_value(index: VfIndex) -> toml::Value {
    match index {
        VfIndex::Auto => "auto".into(),
        VfIndex::Number(number) => i64::from(number).into(),
    }
}

/// The devices of the flags as layers: `--pci wi-fi` is `[pci.pci-wi-fi] match = "wi-fi"`.
pub(super) fn devices(
    pcis: &[String],
    usbs: &[String],
    mdevs: &[String],
) -> Result<Vec<Tree>, ProfileError> {
    let mut trees = Vec::new();
    for (kind, texts) in [("pci", pcis), ("usb", usbs), ("mdev", mdevs)] {
        let mut names: Vec<String> = Vec::new();
        for text in texts {
            if text.trim().is_empty() {
                return Err(wrong(kind, text, "names no device", Vec::new()));
            }
            let keys = match kind {
                "pci" => pci(text)?,
                "usb" => usb(text)?,
                _ => mdev(text),
            };
            let name = name(kind, text, &names);
            let origin = Origin::Flag(format!("--{kind} {}", shown(text)));
            trees.push(tree_of(&[kind, &name], keys, &origin));
            names.push(name);
        }
    }
    Ok(trees)
}

/// A name for the table of a device: the flag and what people wrote, as far as an id can hold it.
pub fn name(kind: &str, text: &str, taken: &[String]) -> String {
    let mut name = format!("{kind}-");
    for c in text.chars() {
        match c {
            c if c.is_ascii_alphanumeric() => name.push(c.to_ascii_lowercase()),
            _ if name.ends_with('-') => {}
            _ => name.push('-'),
        }
    }
    name.truncate(NAME);
    let name = name.trim_end_matches('-').to_owned();
    let mut free = name.clone();
    let mut number = 1;
    while taken.contains(&free) {
        number += 1;
        let suffix = format!("-{number}");
        free = name[..name.len().min(NAME - suffix.len())].to_owned() + &suffix;
    }
    free
}

/// `--take-from-host` as a layer.
pub(super) fn take_from_host() -> Tree {
    let origin = Origin::Flag("--take-from-host".to_owned());
    let value = Branch::Leaf(true.into());
    Tree::from_iter([("take-from-host".to_owned(), Node { origin, value })])
}

/// A tree with one table.
fn tree_of(path: &[&str], keys: Keys, origin: &Origin) -> Tree {
    let table = keys
        .into_iter()
        .map(|(key, value)| (key.to_owned(), grown(value, origin)))
        .collect();
    path.iter().rev().fold(table, |table, key| {
        let node = Node {
            origin: origin.clone(),
            value: Branch::Table(table),
        };
        Tree::from_iter([((*key).to_owned(), node)])
    })
}

fn grown(value: toml::Value, origin: &Origin) -> Node {
    let value = match value {
        toml::Value::Table(table) => Branch::Table(
            table
                .into_iter()
                .map(|(key, value)| (key, grown(value, origin)))
                .collect(),
        ),
        leaf => Branch::Leaf(leaf),
    };
    Node {
        origin: origin.clone(),
        value,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    pub(super) fn plain(tree: &Tree) -> String {
        toml::to_string(&crate::profile::tree::plain(tree))
            .unwrap()
            .replace('\n', " ")
            .trim()
            .to_owned()
    }

    fn table(kind: &str, text: &str) -> String {
        let one = [text.to_owned()];
        let none: &[String] = &[];
        let of = |this| if kind == this { &one[..] } else { none };
        match devices(of("pci"), of("usb"), of("mdev")) {
            Ok(trees) => plain(&trees[0]),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_people_write_for_a_device() {
        for (kind, text, expected) in [
            (
                "pci",
                "01:00.0",
                "[pci.pci-01-00-0] address = \"0000:01:00.0\"",
            ),
            ("pci", "8086:15F3", "[pci.pci-8086-15f3] id = \"8086:15f3\""),
            (
                "pci",
                "8086:15f3:2",
                "[pci.pci-8086-15f3-2] id = \"8086:15f3\" nth = 2",
            ),
            (
                "pci",
                "Network controller:2",
                "[pci.pci-network-controller-2] match = \"Network controller\" nth = 2",
            ),
            ("pci", "wi-fi", "[pci.pci-wi-fi] match = \"wi-fi\""),
            (
                "pci",
                "vf:auto@01:00.0",
                "[pci.pci-vf-auto-01-00-0.vf] of = \"0000:01:00.0\" index = \"auto\"",
            ),
            (
                "pci",
                "vf@x550:2",
                "[pci.pci-vf-x550-2.vf] of = \"x550:2\" index = \"auto\"",
            ),
            (
                "pci",
                "vf:0@x550",
                "--pci vf:0@x550: `0` is not the number of a virtual function (expected 1 or more, or `auto`)",
            ),
            ("pci", "vf:1", "--pci vf:1: does not say of which device"),
            ("pci", "i225:0", "--pci i225:0: devices are counted from 1"),
            (
                "usb",
                "keyboard:0",
                "--usb keyboard:0: devices are counted from 1",
            ),
            ("pci", " ", "--pci  : names no device"),
            ("usb", "1-3.2", "[usb.usb-1-3-2] port = \"1-3.2\""),
            (
                "usb",
                "serial:4C530001",
                "[usb.usb-serial-4c530001] serial = \"4C530001\"",
            ),
            (
                "usb",
                "keyboard:2",
                "[usb.usb-keyboard-2] match = \"keyboard\" nth = 2",
            ),
            (
                "mdev",
                "mtty-2@mtty",
                "[mdev.mdev-mtty-2-mtty] type = \"mtty-2\" parent = \"mtty\"",
            ),
            (
                "mdev",
                "83B8F4F2-509F-382F-3C1E-E6BFE0FA1001",
                "[mdev.mdev-83b8f4f2-509f-382f-3c1e] uuid = \"83b8f4f2-509f-382f-3c1e-e6bfe0fa1001\"",
            ),
        ] {
            assert_eq!(table(kind, text), expected);
        }
    }

    #[test]
    fn names_differ() {
        let twice = ["wi-fi".to_owned(), "wi fi".to_owned()];
        let trees = devices(&twice, &[], &[]).unwrap();
        assert_eq!(plain(&trees[1]), "[pci.pci-wi-fi-2] match = \"wi fi\"");
    }
}
