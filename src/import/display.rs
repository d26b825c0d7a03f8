//! What a person sees: `<graphics>` and `<video>`; the rest of the desk is in [`desk`].

use toml::Value;

use super::devices::{count, name, virtio};
use super::draft::Draft;
use super::reader::{El, short};
use super::units::attribute;
use super::{address, desk};

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
    desk::desk(all, out);
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
            // Nobody but a viewer on this host, as with `<gl>`.
            Some("none") => {
                out.put(listen, table, "socket", true);
                out.told(
                    listen,
                    "mvm's viewers connect to an address or, as here, a socket in the guest's run-time directory",
                );
            }
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
