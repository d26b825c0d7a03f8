//! What a domain says to QEMU past libvirt: `<qemu:commandline>`, `<qemu:override>`.

use toml::{Table, Value};

use super::QEMU_NAMESPACE;
use super::draft::{Draft, bare, id};
use super::reader::{El, is_secret, short, truth};

pub(super) fn commandline(root: El<'_>, out: &mut Draft) {
    let elements: Vec<El<'_>> = root.all().filter(|one| !one.is_seen()).collect();
    for one in elements {
        match (one.namespace(), one.name()) {
            (Some(QEMU_NAMESPACE), "commandline") => self::words(one.enter(), out),
            (Some(QEMU_NAMESPACE), "override") => overrides(one.enter(), out),
            (Some(QEMU_NAMESPACE), "capabilities") => {
                out.left(one, "mvm asks QEMU what it can, and is not told otherwise");
            }
            (Some(QEMU_NAMESPACE), "deprecation") => {
                out.left(
                    one,
                    "mvm does not change what QEMU thinks of old switches (`qemu-args` can)",
                );
            }
            (other, "commandline" | "override") => {
                let space = other.map_or_else(
                    || "no name space".to_owned(),
                    |space| format!("the name space `{}`", short(space)),
                );
                let why = format!(
                    "it is in {space} and not in `{QEMU_NAMESPACE}`: libvirt drops it without a word, and so it never was in effect"
                );
                out.left(one, why);
            }
            _ => {}
        }
    }
}

fn words(commandline: El<'_>, out: &mut Draft) {
    let mut words: Vec<(El<'_>, &str)> = Vec::new();
    for one in commandline
        .all()
        .filter(|one| one.namespace() == Some(QEMU_NAMESPACE))
        .collect::<Vec<_>>()
    {
        match one.name() {
            "arg" => {
                if let Some(value) = one.enter().attr("value") {
                    words.push((one, value));
                }
            }
            "env" => {
                let one = one.enter();
                match (one.attr("name"), one.attr("value").unwrap_or_default()) {
                    (Some(name), _) if is_secret(name) => {
                        out.told(one, "a secret is not copied: set it where mvm is started");
                    }
                    (Some(name), value) => out.put(one, "env", &bare(name), value),
                    (None, _) => out.told(one, "it names no variable"),
                }
            }
            _ => {}
        }
    }
    let mut rest: Vec<(El<'_>, &str)> = Vec::new();
    let mut at = 0;
    while let Some((one, word)) = words.get(at).copied() {
        let next = words.get(at + 1).copied();
        at += 1;
        let taken = match (word, next) {
            ("-set", Some((one, value))) => set(one, value, out),
            ("-display", Some((one, value))) => display(one, value, out),
            ("-device", Some((one, value))) => device(one, value, out),
            ("-object", Some((one, value))) if value.starts_with("input-linux,") => {
                evdev(one, value, out)
            }
            _ => false,
        };
        if taken {
            at += 1;
        } else {
            rest.push((one, word));
        }
    }
    let Some((first, _)) = rest.first().copied() else {
        return;
    };
    if let Some((secret, _)) = rest.iter().find(|(_, word)| is_secret(word)) {
        out.told(
            *secret,
            "it holds a password, and none of these arguments is copied: see `qemu-args`",
        );
        return;
    }
    let all: Vec<Value> = rest.iter().map(|(_, word)| Value::from(*word)).collect();
    out.say(
        "",
        "Arguments for QEMU that libvirt passed on as they are, and mvm does, too.",
    );
    out.put(first, "", "qemu-args", all);
}

/// `-set device.ALIAS.PROPERTY=VALUE`
fn set(one: El<'_>, text: &str, out: &mut Draft) -> bool {
    let parsed = text.split_once('=').and_then(|(path, value)| {
        let mut parts = path.splitn(3, '.');
        Some((parts.next()?, parts.next()?, parts.next()?, value))
    });
    let Some((group, alias, property, value)) = parsed else {
        out.told(
            one,
            format!("`-set {}` is none that QEMU takes", short(text)),
        );
        return true;
    };
    if group != "device" {
        out.told(
            one,
            format!(
                "`-set {}`: mvm has no such switches, whose parts could be set",
                short(text)
            ),
        );
        return true;
    }
    property_of(one, alias, property, Value::from(value), out);
    true
}

/// A property of a device, by libvirt's alias.
fn property_of(one: El<'_>, alias: &str, property: &str, value: Value, out: &mut Draft) {
    let Some(device) = out.aliases.get(alias).cloned() else {
        let why = format!(
            "`{}={}`: no device of mvm's is libvirt's `{}`",
            short(property),
            short(&plain(&value)),
            short(alias)
        );
        out.told(one, why);
        return;
    };
    if device == "gpu" {
        let text = plain(&value);
        match (property, truth(&text), text.parse::<i64>()) {
            ("x-igd-opregion", Some(on), _) => return out.over(one, "gpu", "opregion", on),
            ("x-igd-gms", _, Ok(units)) => return out.over(one, "gpu", "gms", units),
            ("x-vga", Some(on), _) => return out.over(one, "gpu", "x-vga", on),
            ("romfile", ..) => return out.over(one, "gpu", "rom", text),
            _ => {}
        }
    }
    let video = format!("video.{device}");
    if out.has(&video, "model") {
        let text = plain(&value);
        match (property, truth(&text), text.parse::<i64>()) {
            ("blob", Some(on), _) => return out.over(one, &video, "blob", on),
            ("max_outputs", _, Ok(many)) => return out.over(one, &video, "outputs", many),
            _ => {}
        }
    }
    out.over(one, &format!("override.{device}"), &bare(property), value);
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// `-display`, in the forms that the documents use.
fn display(one: El<'_>, text: &str, out: &mut Draft) -> bool {
    let mut parts = text.split(',');
    let kind = parts.next().unwrap_or_default();
    let mut all = Vec::new();
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, "on"));
        all.push((key, value));
    }
    let (word, table) = match kind {
        "egl-headless" => ("egl-headless", "display.egl-headless"),
        "gtk" | "sdl" => ("local", "display.local"),
        "none" => ("headless", "display"),
        _ => return false,
    };
    let fits = |key: &str| match word {
        "local" => {
            matches!(
                key,
                "gl" | "full-screen"
                    | "window-close"
                    | "show-cursor"
                    | "zoom-to-fit"
                    | "show-tabs"
                    | "show-menubar"
                    | "show-fps"
                    | "extend-abs-mode"
                    | "hw-cursor"
                    | "input"
            ) || key.starts_with("connectors.")
        }
        "egl-headless" => key == "rendernode",
        _ => false,
    };
    if !all.iter().all(|(key, _)| fits(key)) {
        return false;
    }
    out.add(one, "display", "type", word);
    if word == "local" {
        out.put(one, table, "toolkit", kind);
    }
    let mut connectors: Vec<(String, Value)> = Vec::new();
    for (key, value) in all {
        if let Some(number) = key.strip_prefix("connectors.") {
            connectors.push((number.to_owned(), Value::from(value)));
            continue;
        }
        let key = if key == "input" { "host-input" } else { key };
        match truth(value) {
            Some(on) => out.put(one, table, key, on),
            None => out.put(one, table, key, value),
        }
    }
    connectors.sort_by_key(|(number, _)| number.parse::<u32>().unwrap_or(u32::MAX));
    if !connectors.is_empty() {
        let names: Vec<Value> = connectors.into_iter().map(|(_, name)| name).collect();
        out.put(one, table, "connectors", names);
    }
    true
}

/// `-device`, of what mvm has a table for.
fn device(one: El<'_>, text: &str, out: &mut Draft) -> bool {
    let Some((driver, properties)) = properties(text) else {
        return false;
    };
    let taken = |key: &str| match driver.as_str() {
        // Where it sits is mvm's to choose.
        "virtio-iommu-pci" => matches!(key, "id" | "bus" | "addr"),
        "intel-iommu" => matches!(
            key,
            "id" | "caching-mode" | "device-iotlb" | "intremap" | "aw-bits"
        ),
        _ => false,
    };
    // What the table cannot say stays as it is for QEMU.
    let said = |key: &str, value: &str| match key {
        "id" | "bus" | "addr" => true,
        "aw-bits" => value.parse::<i64>().is_ok(),
        _ => truth(value).is_some(),
    };
    let fits = |(key, value): &(String, String)| taken(key) && said(key, value);
    if !matches!(driver.as_str(), "virtio-iommu-pci" | "intel-iommu")
        || !properties.iter().all(fits)
    {
        return false;
    }
    let model = if driver == "intel-iommu" {
        "intel"
    } else {
        "virtio"
    };
    out.over(one, "iommu", "model", model);
    for (key, value) in properties {
        match key.as_str() {
            "id" | "bus" | "addr" => {}
            "intremap" => {
                if let Some(on) = truth(&value) {
                    out.over(one, "iommu", "interrupt-remapping", on);
                }
            }
            _ => match (truth(&value), value.parse::<i64>()) {
                (Some(on), _) => out.over(one, "iommu", &key, on),
                (None, Ok(number)) => out.over(one, "iommu", &key, number),
                _ => {}
            },
        }
    }
    true
}

/// The driver of `-device` and its properties, in either of QEMU's forms.
fn properties(text: &str) -> Option<(String, Vec<(String, String)>)> {
    if text.starts_with('{') {
        let all: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
        let words = all.iter().map(|(key, value)| {
            let value = match value {
                serde_json::Value::Bool(on) => if *on { "on" } else { "off" }.to_owned(),
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            (key.clone(), value)
        });
        let mut words: Vec<_> = words.collect();
        let at = words.iter().position(|(key, _)| key == "driver")?;
        let (_, driver) = words.remove(at);
        return Some((driver, words));
    }
    let mut parts = text.split(',');
    let driver = parts.next()?.to_owned();
    let words = parts.map(|part| part.split_once('=').unwrap_or((part, "on")));
    Some((
        driver,
        words
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
    ))
}

/// `-object input-linux,id=…,evdev=…,grab_all=on,repeat=on`
fn evdev(one: El<'_>, text: &str, out: &mut Draft) -> bool {
    let mut table = Table::new();
    let mut name = "evdev".to_owned();
    for part in text.split(',').skip(1) {
        let Some((key, value)) = part.split_once('=') else {
            return false;
        };
        let (key, value) = match (key, truth(value)) {
            ("id", _) => {
                name = id(value);
                continue;
            }
            ("evdev", _) => ("path", Value::from(value)),
            ("grab_all" | "grab-all", Some(on)) => ("grab-all", Value::from(on)),
            ("repeat", Some(on)) => ("repeat", Value::from(on)),
            ("grab-toggle", _) => ("hotkey", Value::from(value)),
            _ => return false,
        };
        table.insert(key.to_owned(), value);
    }
    let section = format!("input.{name}");
    out.put(one, &section, "device", "evdev");
    out.put(one, &section, "evdev", table);
    true
}

/// The elements of that name in QEMU's name space.
fn own<'a>(of: El<'a>, name: &str) -> Vec<El<'a>> {
    let all = of.all();
    let own = all.filter(|one| one.namespace() == Some(QEMU_NAMESPACE) && one.name() == name);
    own.map(El::enter).collect()
}

/// `<qemu:override><qemu:device alias='…'><qemu:frontend><qemu:property …/>`
fn overrides(element: El<'_>, out: &mut Draft) {
    for device in own(element, "device") {
        let Some(alias) = device.attr("alias") else {
            continue;
        };
        for front in own(device, "frontend") {
            for property in own(front, "property") {
                let (Some(name), Some(kind)) = (property.attr("name"), property.attr("type"))
                else {
                    continue;
                };
                let value = property.attr("value").unwrap_or_default();
                let value = match kind {
                    "string" => Some(Value::from(value)),
                    "bool" => truth(value).map(Value::from),
                    "signed" | "unsigned" => value.parse::<i64>().ok().map(Value::from),
                    _ => None,
                };
                match value {
                    Some(value) => property_of(property, alias, name, value, out),
                    None if kind == "remove" => out.told(
                        property,
                        "mvm's overrides set a property, and take none away",
                    ),
                    None => out.told(property, "its value is none of its type"),
                }
            }
        }
    }
}
