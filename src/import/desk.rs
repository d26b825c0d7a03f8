//! What a person hears and holds: `<sound>`, `<audio>`, `<input>`, `<redirdev>`.

use toml::{Table, Value};

use super::address;
use super::devices::{name, single, virtio};
use super::draft::Draft;
use super::reader::{El, short};

pub(super) fn desk(all: El<'_>, out: &mut Draft) {
    sounds(all, out);
    for (at, one) in all.children("input").into_iter().enumerate() {
        input(one, at, out);
    }
    redirected(all, out);
    for one in all.children("redirfilter") {
        out.left(one, "mvm filters no redirected devices");
    }
}

/// Ports for devices of a viewer's host.
fn redirected(all: El<'_>, out: &mut Draft) {
    let shown = out.get("display", "type").and_then(Value::as_array);
    let spice = shown.is_some_and(|types| types.contains(&Value::from("spice")));
    // Devices alone come to a guest whose display is not known here.
    let spice = spice || !out.prefix.is_empty();
    let mut ports = Vec::new();
    for port in all.children("redirdev") {
        if port.attr("type") != Some("spicevmc") {
            out.left(port, "mvm redirects USB devices by SPICE only");
            continue;
        }
        if !spice {
            out.left(
                port,
                "devices are redirected by SPICE, and the guest has no such display",
            );
            continue;
        }
        let _the_only_bus = port.is("bus", "usb");
        if let Some(boot) = port.child("boot") {
            out.left(boot, "mvm starts guests from disks and cards of its own");
        }
        single(port, "", None, out);
        address::place(port, None, out);
        ports.push(port);
    }
    if let Some(first) = ports.first() {
        let many = i64::try_from(ports.len()).unwrap_or(i64::MAX);
        out.put(*first, "usb-redirect", "ports", many);
    }
}

fn sounds(all: El<'_>, out: &mut Draft) {
    let backends: Vec<(El<'_>, Option<&str>, Option<&str>)> = all
        .children("audio")
        .into_iter()
        .map(|audio| (audio, audio.attr("id"), audio.attr("type")))
        .collect();
    let sounds = all.children("sound");
    let mut played = Vec::new();
    for (at, one) in sounds.iter().enumerate() {
        let table = format!("audio.{}", name(*one, format!("sound{at}"), out));
        let device = match one.peek("model") {
            Some("ich7") => "ich6",
            Some(same @ ("ich9" | "ich6" | "ac97" | "es1370" | "sb16" | "usb" | "virtio")) => same,
            _ => {
                out.left(*one, "mvm has no such sound card");
                continue;
            }
        };
        one.attr("model");
        out.put(*one, &table, "device", device);
        for (number, codec) in one.children("codec").into_iter().enumerate() {
            match codec.attr("type") {
                Some(word) if number == 0 => out.put(codec, &table, "codec", word),
                _ => out.told(codec, "mvm connects one codec"),
            }
        }
        if let Some(streams) = one.attr("streams") {
            out.told(
                *one,
                format!(
                    "mvm leaves the number of streams to QEMU ({})",
                    short(streams)
                ),
            );
        }
        if let Some(driver) = one.child("driver") {
            virtio(driver, &table, out);
        }
        let wanted = one.child("audio").and_then(|audio| audio.attr("id"));
        let backend = backends
            .iter()
            .position(|(_, id, _)| wanted.is_none() || *id == wanted);
        played.extend(backend);
        match backend.and_then(|at| backends.get(at)) {
            Some((audio, _, Some(kind))) => {
                out.put(*audio, &table, "backend", *kind);
            }
            Some((audio, _, None)) => out.told(*audio, "it names no type"),
            None => {}
        }
        address::place(*one, None, out);
    }
    for (at, (audio, _, kind)) in backends.into_iter().enumerate() {
        out.left_attr(
            audio,
            "serverName",
            "mvm finds the sound server of the session that it plays in",
        );
        out.left_attr(audio, "timerPeriod", "mvm leaves it as QEMU has it");
        if !played.contains(&at) {
            if kind == Some("none") {
                out.fine(audio, "no sound card of the guest's plays");
            } else {
                out.told(audio, "no sound card of the guest's plays there");
            }
        }
        for part in audio.all().collect::<Vec<_>>() {
            out.left(part.enter(), "mvm leaves the sound's format to QEMU");
        }
    }
}

fn input(one: El<'_>, at: usize, out: &mut Draft) {
    let usual = format!("input{at}");
    match one.peek("type") {
        Some("evdev") => {
            one.attr("type");
            let table = format!("input.{}", name(one, usual, out));
            let Some(source) = one.child("source") else {
                return out.left(one, "it names no device");
            };
            let mut evdev = Table::new();
            if let Some(path) = source.attr("dev") {
                evdev.insert("path".to_owned(), Value::from(path));
            }
            if source.is("grab", "all") {
                evdev.insert("grab-all".to_owned(), Value::from(true));
            }
            if let Some(on) = source.flag("repeat") {
                evdev.insert("repeat".to_owned(), Value::from(on));
            }
            if let Some(keys) = source.attr("grabToggle") {
                evdev.insert("hotkey".to_owned(), Value::from(keys));
            }
            out.put(one, &table, "device", "evdev");
            out.put(source, &table, "evdev", evdev);
        }
        Some("passthrough") => out.left(one, "mvm's `evdev` hands a device of the host over and back; QEMU's virtio-input-host it has not"),
        Some(kind @ ("tablet" | "mouse" | "keyboard")) => {
            one.attr("type");
            let bus = one.attr("bus").unwrap_or(if kind == "tablet" { "usb" } else { "ps2" });
            if bus == "ps2" {
                out.fine(one, "the board's own");
                return;
            }
            let table = format!("input.{}", name(one, usual, out));
            out.put(one, &table, "device", kind);
            out.put(one, &table, "bus", bus);
            if let Some(driver) = one.child("driver") {
                virtio(driver, &table, out);
            }
            address::place(one, None, out);
            let _ = one.attr("model");
        }
        _ => out.left(one, "mvm has no such device"),
    }
}
