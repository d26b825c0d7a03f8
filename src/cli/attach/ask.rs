//! `--disk` and `--network`: what people write, as keys of a profile; and the names of what is asked for.

use std::collections::BTreeMap;
use std::path::Path;

use crate::cli::{Failure, choices};
use crate::error::{ExitCode, Report, did_you_mean};
use crate::ids::Id;
use crate::machine::Machine;
use crate::profile::schema::Layer;

/// The keys of a disk that can be given behind the image.
const DISK: [&str; 9] = [
    "bus",
    "media",
    "cache",
    "aio",
    "format",
    "serial",
    "read-only",
    "discard",
    "ephemeral",
];
/// The keys of a network card.
const NETWORK: [&str; 9] = [
    "user", "tap", "forward", "restrict", "bridge", "address", "vhost", "mac", "model",
];
/// What the name of a disk or card is made from where nothing else gives one.
const FIRST: [&str; 2] = ["disk", "net"];

fn wrong(flag: &str, text: &str, why: &str) -> Report {
    Report::new(ExitCode::Usage, format!("--{flag} {text}: {why}"))
}

/// A key and its value; a key alone is `true`.
fn pair(text: &str) -> (&str, &str) {
    text.split_once('=').unwrap_or((text, "true"))
}

fn text(value: &str) -> String {
    toml::Value::from(value).to_string()
}

/// The keys that `--disk` stands for. What follows the last comma that is no key belongs to the path.
pub(super) fn disk(asked: &str) -> Result<Vec<String>, Failure> {
    let mut path = asked;
    let mut keys = Vec::new();
    while let Some((before, last)) = path.rsplit_once(',') {
        let (key, value) = pair(last);
        if !DISK.contains(&key) {
            if let Some(near) = did_you_mean(key, DISK).filter(|_| !Path::new(path).exists()) {
                let report = wrong("disk", asked, &format!("a disk has no `{key}`"));
                return Err(report.hint(format!("did you mean `{near}`?")).into());
            }
            break;
        }
        keys.push((key, value));
        path = before;
    }
    let place = choices::place(Path::new(path))?;
    let stem = Path::new(path).file_stem().unwrap_or_default();
    let id = id_of(&stem.to_string_lossy(), FIRST[0]);
    let mut set = vec![format!("disk.{id}.file.path={}", text(&place))];
    for (key, value) in keys.into_iter().rev() {
        let key = if key == "format" { "file.format" } else { key };
        set.push(format!("disk.{id}.{key}={value}"));
    }
    Ok(set)
}

/// The keys that `--network` stands for.
pub(super) fn network(asked: &str) -> Result<Vec<String>, Failure> {
    let mut parts = asked.split(',');
    let (kind, name) = pair(parts.next().unwrap_or_default());
    let table = format!("network.{}", FIRST[1]);
    let mut set = match (kind, asked.split(',').next()) {
        ("user", Some("user")) => vec![format!("{table}.user={{}}")],
        ("tap", Some(first)) if first.contains('=') => {
            vec![format!("{table}.tap.name={}", text(name))]
        }
        _ => {
            return Err(wrong(
                "network",
                asked,
                "it begins with neither `user` nor `tap=NAME`",
            )
            .hint("as in `--network user,forward=2222:22` or `--network tap=tap0,bridge=br0`")
            .into());
        }
    };
    let mut forwards = Vec::new();
    for part in parts {
        let (key, value) = pair(part);
        match key {
            "forward" => forwards.push(text(value)),
            "mac" | "model" => set.push(format!("{table}.{key}={}", text(value))),
            "restrict" | "bridge" | "address" | "vhost" => {
                set.push(format!("{table}.{kind}.{key}={value}"));
            }
            _ => {
                let report = wrong("network", asked, &format!("a card has no `{key}`"));
                let near = did_you_mean(key, NETWORK);
                return Err(match near {
                    Some(near) => report.hint(format!("did you mean `{near}`?")),
                    None => report.hint(format!("it has `{}`", NETWORK[2..].join("`, `"))),
                }
                .into());
            }
        }
    }
    if !forwards.is_empty() {
        set.push(format!("{table}.{kind}.forward=[{}]", forwards.join(", ")));
    }
    Ok(set)
}

/// A name made from a text.
fn id_of(from: &str, otherwise: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let made: String = from
        .trim_start_matches(|c: char| !c.is_ascii_alphabetic())
        .chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .take(24)
        .collect();
    // Such names are mvm's own.
    if made.is_empty() || made.starts_with("mvm-") {
        otherwise.to_owned()
    } else {
        made
    }
}

/// The layer with the name that is asked for, or with one that the guest has not got yet.
pub(super) fn named(
    mut layer: Layer,
    wanted: Option<&Id>,
    running: &Machine,
) -> Result<Layer, Failure> {
    let mut count = 0;
    let mut rename = |id: &Id| {
        count += 1;
        wanted.cloned().unwrap_or_else(|| free(id, running))
    };
    rekey(&mut layer.disk, &mut rename);
    rekey(&mut layer.network, &mut rename);
    rekey(&mut layer.pci, &mut rename);
    rekey(&mut layer.usb, &mut rename);
    rekey(&mut layer.mdev, &mut rename);
    if count > 1 && wanted.is_some() {
        return Err(Failure::message(
            ExitCode::Usage,
            "`--name` is for one device, and the file has several",
        ));
    }
    Ok(layer)
}

fn rekey<T>(tables: &mut Option<BTreeMap<Id, T>>, rename: &mut impl FnMut(&Id) -> Id) {
    if let Some(all) = tables.take() {
        *tables = Some(
            all.into_iter()
                .map(|(id, table)| (rename(&id), table))
                .collect(),
        );
    }
}

/// The name itself where the guest has none of it, else the next one with a number.
fn free(id: &Id, running: &Machine) -> Id {
    let shares = running.shares.iter().map(|share| &share.id);
    let taken: Vec<&str> = running.parts().chain(shares).map(Id::as_str).collect();
    if !taken.contains(&id.as_str()) {
        return id.clone();
    }
    let stem: String = id.as_str().chars().take(27).collect();
    (2..1000)
        .map(|number| format!("{stem}-{number}"))
        .find(|name| !taken.contains(&name.as_str()))
        .and_then(|name| name.parse().ok())
        .unwrap_or_else(|| id.clone())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_disk_as_people_write_it() {
        let set = |text: &str| disk(text).unwrap();
        assert_eq!(set("data.qcow2"), ["disk.data.file.path=\"data.qcow2\""]);
        assert_eq!(
            set("/a/b, c.img,bus=usb,read-only"),
            [
                "disk.b--c.file.path=\"/a/b, c.img\"",
                "disk.b--c.bus=usb",
                "disk.b--c.read-only=true"
            ]
        );
        assert!(set("x.raw,format=raw")[1].ends_with("file.format=raw"));
        assert_eq!(set("/dev/0")[0], "disk.disk.file.path=\"/dev/0\"");
        let slip = disk("x.raw,buss=usb").unwrap_err().reports()[0].to_string();
        assert!(slip.contains("did you mean `bus`?"), "{slip}");
    }

    #[test]
    fn a_card_as_people_write_it() {
        let set = |text: &str| network(text).unwrap();
        assert_eq!(set("user"), ["network.net.user={}"]);
        assert_eq!(
            set("user,forward=2222:22,forward=udp:5353:53,restrict"),
            [
                "network.net.user={}",
                "network.net.user.restrict=true",
                "network.net.user.forward=[\"2222:22\", \"udp:5353:53\"]"
            ]
        );
        assert_eq!(
            set("tap=tap7,bridge=br0,mac=52:54:00:00:00:01"),
            [
                "network.net.tap.name=\"tap7\"",
                "network.net.tap.bridge=br0",
                "network.net.mac=\"52:54:00:00:00:01\""
            ]
        );
        for bad in ["", "tap", "user=x", "bridge=br0", "user,nic=e1000"] {
            assert!(network(bad).is_err(), "{bad}");
        }
    }
}
