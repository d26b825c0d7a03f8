//! The machine file as it grows: keys with the place of the XML that they are from, and the lists of what has
//! no key.

use std::collections::BTreeMap;
use std::path::PathBuf;

use toml::Value;

use super::reader::{El, short};
use crate::ids::GuestName;
use crate::profile;

/// The tables of a machine file, in the order in which they are written.
const ORDER: [&str; 46] = [
    "",
    "machine",
    "cpu",
    "pin",
    "scheduler",
    "memory",
    "numa",
    "hyperv",
    "clock",
    "smbios",
    "firmware",
    "boot",
    "tpm",
    "iothread",
    "controller",
    "usb-controller",
    "disk",
    "network",
    "share",
    "console",
    "serial",
    "channel",
    "agent",
    "display",
    "video",
    "audio",
    "input",
    "usb-redirect",
    "shmem",
    "gpu",
    "pci",
    "usb",
    "mdev",
    "vfio",
    "rng",
    "balloon",
    "watchdog",
    "panic",
    "vsock",
    "iommu",
    "power",
    "lifecycle",
    "security",
    "qemu",
    "env",
    "override",
];

/// Something of the XML, and what is said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The line of the XML, 1 first; 0 for what has no place of its own.
    pub line: u32,
    /// It, in one short line, as in `<watchdog model='itco'/>`.
    pub what: String,
    /// Why it is not carried over, or why it needs no key.
    pub why: String,
}

/// A key and its value.
#[derive(Debug, Clone)]
struct Entry {
    key: String,
    value: Value,
    line: u32,
    what: String,
}

#[derive(Debug, Clone)]
enum Item {
    Entry(Entry),
    Comment(String),
}

/// The machine file as it grows.
#[derive(Debug, Default)]
pub(super) struct Draft {
    sections: BTreeMap<(usize, usize), (String, Vec<Item>)>,
    /// What is not carried over.
    pub(super) left: Vec<Told>,
    /// What needs no key.
    pub(super) fine: Vec<Told>,
    /// The aliases by which libvirt's arguments for QEMU call devices, and mvm's names of them.
    pub(super) aliases: BTreeMap<String, String>,
    /// Devices whose place on a PCI bus below a bridge is mvm's to choose.
    pub(super) placed: Vec<u32>,
    /// Disks and network cards in the order of the file, for `<boot dev='…'/>`.
    pub(super) bootable: Vec<(&'static str, String)>,
    /// Whether a device says its place in the boot order itself.
    pub(super) ordered: bool,
    /// Whether it is a guest of the architecture aarch64, for which libvirt chooses other devices.
    pub(super) arm: bool,
    /// What the names of devices begin with that come to a guest with devices of its own.
    pub(super) prefix: String,
    /// The guest's name.
    pub(super) guest: Option<GuestName>,
    /// The folder for files with passwords.
    pub(super) secrets: PathBuf,
}

impl Draft {
    /// A key of a table, and the element that it is from.
    pub(super) fn put(&mut self, from: El<'_>, table: &str, key: &str, value: impl Into<Value>) {
        let entry = Entry {
            key: key.to_owned(),
            value: value.into(),
            line: from.line(),
            what: from.shown(),
        };
        let items = self.items(table);
        let before = items.iter().find_map(|item| match item {
            Item::Entry(one) if one.key == key => Some(&one.value),
            _ => None,
        });
        match before {
            None => items.push(Item::Entry(entry)),
            Some(same) if *same == entry.value => self.fine.push(Told {
                line: entry.line,
                what: entry.what,
                why: "it says once more what is said before".to_owned(),
            }),
            Some(_) => {
                let why = format!(
                    "`{}` is said twice, and the first one counts",
                    dotted(table, key)
                );
                self.told(from, why);
            }
        }
    }

    /// The same, where what was said before does not count.
    pub(super) fn over(&mut self, from: El<'_>, table: &str, key: &str, value: impl Into<Value>) {
        let value = value.into();
        let mut before = Vec::new();
        self.items(table).retain(|item| match item {
            Item::Entry(one) if one.key == key => {
                before.push(one.clone());
                false
            }
            _ => true,
        });
        let other = before.into_iter().filter(|one| one.value != value);
        self.fine.extend(other.map(|one| Told {
            line: one.line,
            what: one.what,
            why: format!(
                "`{}` is what the arguments for QEMU say",
                dotted(table, key)
            ),
        }));
        self.put(from, table, key, value);
    }

    /// One more word in a list.
    pub(super) fn add(&mut self, from: El<'_>, table: &str, key: &str, word: &str) {
        let items = self.items(table).iter_mut();
        let mut entries = items.filter_map(|item| match item {
            Item::Entry(one) if one.key == key => Some(one),
            _ => None,
        });
        match entries.next().map(|entry| &mut entry.value) {
            Some(Value::Array(list)) => {
                if !list.contains(&Value::from(word)) {
                    list.push(Value::from(word));
                }
            }
            Some(_) => {}
            None => self.put(from, table, key, vec![Value::from(word)]),
        }
    }

    /// Whether the table has the key.
    pub(super) fn has(&self, table: &str, key: &str) -> bool {
        self.get(table, key).is_some()
    }

    /// What the table says for the key.
    pub(super) fn get(&self, table: &str, key: &str) -> Option<&Value> {
        let mut sections = self.sections.values();
        let (_, items) = sections.find(|(head, _)| head == table)?;
        items.iter().find_map(|item| match item {
            Item::Entry(one) if one.key == key => Some(&one.value),
            _ => None,
        })
    }

    /// A comment in a table, before what comes next.
    pub(super) fn say(&mut self, table: &str, text: &str) {
        // One line, whatever the domain says.
        let comment: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        self.items(table).push(Item::Comment(comment));
    }

    fn items(&mut self, table: &str) -> &mut Vec<Item> {
        let family = table.split('.').next().unwrap_or_default();
        let rank = ORDER
            .iter()
            .position(|one| *one == family)
            .unwrap_or(ORDER.len());
        let at = self
            .sections
            .iter()
            .find(|(_, (head, _))| head == table)
            // A table stands before those in it.
            .map_or(
                (
                    rank,
                    usize::from(table != family) * (self.sections.len() + 1),
                ),
                |(at, _)| *at,
            );
        let section = self.sections.entry(at);
        &mut section.or_insert_with(|| (table.to_owned(), Vec::new())).1
    }

    /// The file for a password, of the guest or, where devices come to any guest, of their file.
    pub(super) fn secret(&self, kind: &str) -> String {
        let owner = match &self.guest {
            Some(guest) => guest.to_string(),
            None => id(self.prefix.trim_end_matches('-')),
        };
        let file = self.secrets.join(format!("{owner}.{kind}-password"));
        file.display().to_string()
    }

    /// A device has another name than libvirt's alias of it.
    pub(super) fn rename(&mut self, old: &str, new: &str) {
        for name in self.aliases.values_mut().filter(|name| *name == old) {
            new.clone_into(name);
        }
    }

    /// The element and all in it is not carried over.
    pub(super) fn left(&mut self, what: El<'_>, why: impl Into<String>) {
        what.whole();
        self.told(what, why);
    }

    /// Something of the element is not carried over; the rest of it is looked at by itself.
    pub(super) fn told(&mut self, what: El<'_>, why: impl Into<String>) {
        self.left.push(told(what, why));
    }

    /// An attribute is not carried over.
    pub(super) fn left_attr(&mut self, of: El<'_>, name: &str, why: impl Into<String>) {
        if let Some(value) = of.attr(name) {
            let what = format!("<{}> {name}='{}'", of.name(), short(value));
            self.left.push(Told {
                line: of.line(),
                what,
                why: why.into(),
            });
        }
    }

    /// An attribute needs no key.
    pub(super) fn fine_attr(&mut self, of: El<'_>, name: &str, why: impl Into<String>) {
        if let Some(value) = of.attr(name) {
            self.fine.push(Told {
                line: of.line(),
                what: format!("<{}> {name}='{}'", of.name(), short(value)),
                why: why.into(),
            });
        }
    }

    /// The element and all in it needs no key.
    pub(super) fn fine(&mut self, what: El<'_>, why: impl Into<String>) {
        what.whole();
        self.fine.push(told(what, why));
    }

    /// Takes out what profiles do not take, and tells it.
    pub(super) fn settle(&mut self) {
        loop {
            let (text, places) = self.render();
            let mut refused = profile::refused(&text);
            // From the last one on, so that the places of those before it stay right.
            refused.sort_by_key(|refused| std::cmp::Reverse(refused.line));
            refused.dedup_by_key(|refused| refused.line);
            let mut gone = false;
            for refused in refused {
                let line = (refused.line as usize).checked_sub(1);
                let Some(Some((section, item))) = line.and_then(|line| places.get(line)) else {
                    continue;
                };
                let (section, item) = (*section, *item);
                gone |= self.refuse(section, item, &refused.message);
            }
            if !gone {
                return;
            }
        }
    }

    /// Takes one key out, or with the head of a table the table.
    fn refuse(&mut self, section: (usize, usize), item: Option<usize>, why: &str) -> bool {
        let Some((head, items)) = self.sections.get_mut(&section) else {
            return false;
        };
        let whole = item.is_none();
        let mut out = Vec::new();
        let kept = std::mem::take(items)
            .into_iter()
            .enumerate()
            .filter_map(|(at, one)| {
                if !whole && item != Some(at) {
                    return Some(one);
                }
                match one {
                    Item::Entry(entry) => out.push(entry),
                    Item::Comment(_) if whole => {}
                    comment @ Item::Comment(_) => return Some(comment),
                }
                None
            });
        *items = kept.collect();
        let gone = !out.is_empty();
        for entry in out {
            let why = format!("it would be `{}`: {why}", said(head, &entry));
            self.left.push(Told {
                line: entry.line,
                what: entry.what,
                why,
            });
        }
        let empty = !items.iter().any(|item| matches!(item, Item::Entry(_)));
        if empty {
            self.sections.remove(&section);
        }
        gone || empty
    }

    /// The keys as TOML, and for each line the section and item that it shows.
    #[expect(
        clippy::type_complexity,
        reason = "a line's place: its section and, within, its item"
    )]
    fn render(&self) -> (String, Vec<Option<((usize, usize), Option<usize>)>>) {
        let (mut text, mut places) = (String::new(), Vec::new());
        for (at, (head, items)) in &self.sections {
            if !head.is_empty() {
                text.push_str(&format!("\n[{head}]\n"));
                places.extend([None, Some((*at, None))]);
            }
            for (number, item) in items.iter().enumerate() {
                match item {
                    Item::Comment(comment) => text.push_str(&format!("# {comment}\n")),
                    Item::Entry(entry) => {
                        text.push_str(&format!("{} = {}\n", entry.key, written(&entry.value)));
                    }
                }
                places.push(Some((*at, Some(number))));
            }
        }
        (text, places)
    }

    /// The keys as TOML.
    pub(super) fn toml(&self) -> String {
        self.render().0
    }

    /// The keys as `--set` takes them.
    pub(super) fn sets(&self) -> Vec<String> {
        let all = self.sections.values();
        all.flat_map(|(head, items)| {
            items.iter().filter_map(move |item| match item {
                Item::Entry(entry) => {
                    let key = dotted(head, &entry.key);
                    Some(format!("{key}={}", written(&entry.value)))
                }
                Item::Comment(_) => None,
            })
        })
        .collect()
    }
}

fn told(what: El<'_>, why: impl Into<String>) -> Told {
    Told {
        line: what.line(),
        what: what.shown(),
        why: why.into(),
    }
}

fn dotted(head: &str, key: &str) -> String {
    if head.is_empty() {
        key.to_owned()
    } else {
        format!("{head}.{key}")
    }
}

fn said(head: &str, entry: &Entry) -> String {
    let value: String = written(&entry.value).chars().take(60).collect();
    format!("{} = {value}", dotted(head, &entry.key))
}

/// A value on one line.
fn written(value: &Value) -> String {
    match value {
        Value::Table(table) if table.is_empty() => "{}".to_owned(),
        Value::Table(table) => {
            let pairs = table
                .iter()
                .map(|(key, value)| format!("{} = {}", bare(key), written(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => {
            let items = items.iter().map(written);
            format!("[{}]", items.collect::<Vec<_>>().join(", "))
        }
        // On one line: the writer would spread a text with line breaks over several.
        Value::String(text) if text.contains(['\n', '\r']) => {
            serde_json::Value::String(text.clone()).to_string()
        }
        leaf => leaf.to_string(),
    }
}

/// A key as TOML writes it.
pub(super) fn bare(key: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !key.is_empty() && key.bytes().all(plain) {
        key.to_owned()
    } else {
        Value::String(key.to_owned()).to_string()
    }
}

/// A text as the name of a table: an id of QEMU's.
pub(super) fn id(text: &str) -> String {
    let fits = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' || c == '_' {
            c
        } else {
            '-'
        }
    };
    let name: String = text.chars().map(fits).take(32).collect();
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        name
    } else {
        format!("x{name}").chars().take(32).collect()
    }
}
