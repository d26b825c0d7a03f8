//! What a person sees, hears and holds: `<graphics>`, `<video>`, `<sound>`, `<audio>`, `<input>`, `<redirdev>`.

use toml::{Table, Value};

use super::address;
use super::devices::{count, name, single, virtio};
use super::draft::Draft;
use super::reader::{El, short};
use super::units::attribute;

pub(super) fn displays(all: El<'_>, out: &mut Draft) {
    let graphics = all.children("graphics");
    let mut kinds: Vec<Value> = Vec::new();
    for one in &graphics {
        let kind = match one.attr("type") {
            Some("vnc") => vnc(*one, out),
            Some("spice") => spice(*one, out),
            Some("egl-headless") => egl(*one, out),
            Some("dbus") => dbus(*one, out),
            Some("sdl") => sdl(*one, out),
            _ => {
                out.left(*one, "mvm has no such display");
                continue;
            }
        };
        if !kinds.contains(&Value::from(kind)) {
            kinds.push(Value::from(kind));
        }
    }
    if let Some(first) = graphics.first().filter(|_| !kinds.is_empty()) {
        out.put(*first, "display", "type", kinds);
    }
    for (at, one) in all.children("video").into_iter().enumerate() {
        video(one, at, out);
    }
    sounds(all, out);
    for (at, one) in all.children("input").into_iter().enumerate() {
        input(one, at, out);
    }
    let ports = all.children("redirdev");
    if let Some(first) = ports.first() {
        for port in &ports {
            let _the_only_bus = port.is("bus", "usb");
            if port.attr("type") != Some("spicevmc") {
                out.told(*port, "mvm redirects USB devices by SPICE only");
            }
            if let Some(boot) = port.child("boot") {
                out.left(boot, "mvm starts guests from disks and cards of its own");
            }
            single(*port, "", None, out);
            address::place(*port, None, out);
        }
        out.put(
            *first,
            "usb-redirect",
            "ports",
            i64::try_from(ports.len()).unwrap_or(i64::MAX),
        );
    }
    for one in all.children("redirfilter") {
        out.left(one, "mvm filters no redirected devices");
    }
}

/// The address that a server listens on: the element's own, or that of the first `<listen>`.
fn listen(one: El<'_>, table: &str, out: &mut Draft) {
    let mut address = one.attr("listen").map(str::to_owned);
    for listen in one.children("listen") {
        match listen.attr("type") {
            Some("address") => {
                let own = listen.attr("address").map(str::to_owned);
                match (&address, own) {
                    (None, own) => address = own,
                    (Some(first), Some(own)) if *first != own => {
                        out.told(listen, "mvm listens on one address");
                    }
                    _ => {}
                }
            }
            Some("socket") => {
                out.put(listen, table, "socket", true);
                if let Some(path) = listen.attr("socket") {
                    let path = short(path);
                    out.told(
                        listen,
                        format!(
                            "mvm's socket is in the guest's run-time directory, and not {path}"
                        ),
                    );
                }
            }
            Some("none") => out.told(listen, "mvm's viewers connect to an address or a socket"),
            Some("network") => out.left(
                listen,
                "mvm has no networks of its own; it listens on 127.0.0.1",
            ),
            _ => out.told(listen, "mvm listens on an address or a socket"),
        }
    }
    if let Some(socket) = one.attr("socket") {
        if !out.has(table, "socket") {
            out.put(one, table, "socket", true);
        }
        out.told(
            one,
            format!(
                "mvm's socket is in the guest's run-time directory, and not {}",
                short(socket)
            ),
        );
    }
    if let Some(address) = address {
        if address == "0.0.0.0" || address == "::" {
            out.say(
                table,
                "Everybody who reaches this host reaches the guest's screen.",
            );
        }
        out.put(one, table, "listen", address);
    }
}

fn port(one: El<'_>, table: &str, out: &mut Draft) {
    let auto = one.flag("autoport");
    if out.has(table, "socket") {
        let _the_socket_takes_its_place = one.attr("port");
        return;
    }
    match one.read("port", |port| port.parse::<i64>().ok()) {
        // With `autoport` the number is that of a running guest.
        Some(number @ 1..) if auto != Some(true) => out.put(one, table, "port", number),
        _ => out.put(one, table, "port", "auto"),
    }
}

/// The password: the file is named where it is to be, and a start without it is refused.
fn password(one: El<'_>, kind: &str, table: &str, out: &mut Draft) {
    if one.attr("passwd").is_some() {
        let path = out.secret(kind);
        out.left.push(super::Told {
            line: one.line(),
            what: format!("<graphics type='{kind}'> passwd='(not shown)', for {path}"),
            why: "a password is not copied: write it into that file for you alone; the guest does not start without it"
                .to_owned(),
        });
        out.say(
            table,
            "The password that libvirt's viewers need is to be written into this file.",
        );
        out.put(one, table, "password-file", path);
    } else if let Some(address) = out.get(table, "listen").and_then(Value::as_str) {
        let loopback = address == "localhost"
            || address
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        if !loopback {
            let why = format!(
                "it says no password, and whoever reaches {} has the screen; `virsh dumpxml` leaves passwords out \
                 without `--security-info`: if the domain has one, name a file with it in `password-file`",
                short(address)
            );
            out.told(one, why);
        }
    }
    out.left_attr(one, "passwdValidTo", "mvm's passwords do not expire");
    out.left_attr(one, "connected", "mvm leaves viewers that are there alone");
    out.left_attr(one, "keymap", "mvm sends the viewer's keys as they are");
    out.left_attr(
        one,
        "powerControl",
        "mvm's viewers cannot switch the guest off",
    );
}

fn vnc(one: El<'_>, out: &mut Draft) -> &'static str {
    let table = "display.vnc";
    listen(one, table, out);
    port(one, table, out);
    password(one, "vnc", table, out);
    if let Some(policy) = one.attr("sharePolicy") {
        out.put(one, table, "share", policy);
    }
    out.left_attr(
        one,
        "websocket",
        "mvm has no websockets: websockify on the host does",
    );
    if let Some(audio) = one.child("audio") {
        if let Some(id) = audio.number("id") {
            out.put(
                audio,
                table,
                "audio",
                format!("sound{}", id.saturating_sub(1)),
            );
        }
    }
    "vnc"
}

fn spice(one: El<'_>, out: &mut Draft) -> &'static str {
    let table = "display.spice";
    listen(one, table, out);
    port(one, table, out);
    password(one, "spice", table, out);
    if one.is("tlsPort", "-1") {
        // None, or one of a running guest.
    } else if one.number("tlsPort").is_some() {
        out.told(
            one,
            "mvm's port is encrypted where `tls` names a folder with the host's certificates",
        );
    }
    out.left_attr(one, "defaultMode", "mvm's `tls` is for all channels");
    for channel in one.children("channel") {
        out.left(channel, "mvm's `tls` is for all channels");
    }
    for (element, attribute, key) in [
        ("jpeg", "compression", "jpeg-compression"),
        ("zlib", "compression", "zlib-compression"),
        ("streaming", "mode", "streaming"),
    ] {
        if let Some(found) = one.child(element) {
            if let Some(word) = found.attr(attribute) {
                out.put(found, table, key, word);
            }
        }
    }
    if let Some(image) = one.child("image") {
        if let Some(word) = image.attr("compression") {
            out.put(image, table, "image-compression", word.replace('_', "-"));
        }
    }
    if let Some(found) = one.child("playback") {
        if let Some(on) = found.flag("compression") {
            out.put(found, table, "playback-compression", on);
        }
    }
    if let Some(found) = one.child("clipboard") {
        if let Some(on) = found.flag("copypaste") {
            out.put(found, "display", "clipboard", on);
        }
    }
    if let Some(found) = one.child("mouse") {
        let client = found.read("mode", |mode| match mode {
            "client" => Some(true),
            "server" => Some(false),
            _ => None,
        });
        if let Some(client) = client {
            out.put(found, table, "agent-mouse", client);
        }
    }
    if let Some(found) = one.child("filetransfer") {
        if let Some(on) = found.flag("enable") {
            out.put(found, table, "file-transfer", on);
        }
    }
    if let Some(gl) = one.child("gl") {
        let on = gl.flag("enable");
        if on == Some(true) {
            out.put(gl, table, "gl", true);
        }
        if let Some(node) = gl.attr("rendernode") {
            if on == Some(true) {
                out.put(gl, table, "rendernode", node);
            } else {
                out.told(gl, "without `gl` the render node has no effect");
            }
        }
    }
    "spice"
}

fn egl(one: El<'_>, out: &mut Draft) -> &'static str {
    if let Some(gl) = one.child("gl") {
        let _ = gl.flag("enable");
        if let Some(node) = gl.attr("rendernode") {
            out.put(gl, "display.egl-headless", "rendernode", node);
        }
    }
    "egl-headless"
}

fn dbus(one: El<'_>, out: &mut Draft) -> &'static str {
    let table = "display.dbus";
    if let Some(address) = one.attr("address") {
        out.put(one, table, "address", address);
    }
    let _viewers_connect_through_qmp = one.flag("p2p");
    if let Some(gl) = one.child("gl") {
        if let Some(on) = gl.flag("enable") {
            out.put(gl, table, "gl", on);
        }
        if let Some(node) = gl.attr("rendernode") {
            out.put(gl, table, "rendernode", node);
        }
    }
    "dbus"
}

fn sdl(one: El<'_>, out: &mut Draft) -> &'static str {
    let table = "display.local";
    out.put(one, table, "toolkit", "sdl");
    if let Some(on) = one.flag("fullscreen") {
        out.put(one, table, "full-screen", on);
    }
    for attribute in ["display", "xauth"] {
        out.left_attr(
            one,
            attribute,
            "mvm finds the session of the user that `display.local.user` names",
        );
    }
    if let Some(on) = one.child("gl").and_then(|gl| gl.flag("enable")) {
        out.put(one, table, "gl", on);
    }
    "local"
}

fn video(one: El<'_>, at: usize, out: &mut Draft) {
    let table = format!("video.{}", name(one, format!("video{at}"), out));
    let Some(model) = one.child("model") else {
        return out.left(one, "it names no model");
    };
    let primary = model.flag("primary");
    let word = match model.peek("type") {
        Some("virtio") if out.arm => "virtio-gpu",
        Some("virtio") if primary == Some(true) || (primary.is_none() && at == 0) => "virtio-vga",
        Some("virtio") => "virtio-gpu",
        Some("vga") => "std",
        Some(same @ ("qxl" | "cirrus" | "bochs" | "ramfb" | "none")) => same,
        _ => return out.left(one, "mvm has no such graphics"),
    };
    model.attr("type");
    out.put(model, &table, "model", word);
    if primary == Some(true) && at > 0 {
        out.put(model, &table, "primary", true);
    }
    // One is what it has anyhow.
    if !model.is("heads", "1") {
        if let Some(heads) = count(model, "heads") {
            out.put(model, &table, "outputs", heads);
        }
    }
    // libvirt's `vram` is the screen's memory of all but QXL.
    let sizes: &[(&str, &str)] = match word {
        "qxl" => &[("ram", "ram"), ("vram", "vram"), ("vgamem", "vgamem")],
        _ => &[("vram", "vgamem")],
    };
    for (attribute, key) in sizes {
        if word.starts_with("virtio") {
            let _it_has_no_memory_of_its_own = model.attr(attribute);
        } else if let Some(size) = self::attribute(model, attribute) {
            out.put(model, &table, key, size.to_string());
        }
    }
    let _none = model.is("vram64", "0");
    if let Some(on) = model.flag("blob") {
        out.put(model, &table, "blob", on);
    }
    if let Some(acceleration) = model.child("acceleration") {
        if let Some(on) = acceleration.flag("accel3d") {
            out.put(acceleration, &table, "accel-3d", on);
        }
        let _ = acceleration.flag("accel2d");
        out.left_attr(
            acceleration,
            "rendernode",
            "the render node is the display's (`display.….rendernode`)",
        );
    }
    if let Some(resolution) = model.child("resolution") {
        for (attribute, key) in [("x", "xres"), ("y", "yres")] {
            if let Some(many) = count(resolution, attribute) {
                out.put(resolution, &table, key, many);
            }
        }
    }
    if let Some(driver) = one.child("driver") {
        out.left_attr(
            driver,
            "name",
            "mvm draws in QEMU itself, and not in vhost-user",
        );
        virtio(driver, &table, out);
    }
    address::place(one, None, out);
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
