//! Bytes in and out: `<serial>`, `<console>`, `<channel>`, `<parallel>`.

use toml::{Table, Value};

use super::address;
use super::devices::{count, name, single};
use super::draft::{Draft, id};
use super::reader::{El, short};

/// The guest agent's port.
const AGENT: &str = "org.qemu.guest_agent.0";

/// What libvirt calls serial ports.
const SERIALS: [&str; 8] = [
    "isa-serial",
    "system-serial",
    "isa-debug",
    "usb-serial",
    "pci-serial",
    "spapr-vio-serial",
    "sclp-serial",
    "serial",
];

pub(super) fn channels(all: El<'_>, out: &mut Draft) {
    let serials = all.children("serial");
    for (at, one) in serials.iter().enumerate() {
        // `mvm run` and `mvm console` go to the one that is called `main`.
        let table = if at == 0 {
            "main".to_owned()
        } else {
            format!("serial{at}")
        };
        single(*one, "", None, out);
        let table = format!("console.{table}");
        let fits = match one.child("target") {
            Some(target) => {
                let kind = target.read("type", |kind| SERIALS.contains(&kind).then_some(kind));
                target.attr("port");
                // The same once more, by the device's name.
                let _ = target.child("model").and_then(|model| model.attr("name"));
                match kind {
                    Some(
                        "usb-serial" | "pci-serial" | "spapr-vio-serial" | "sclp-serial"
                        | "isa-debug",
                    ) => {
                        out.told(target, "mvm's serial ports are the board's own");
                        true
                    }
                    _ => true,
                }
            }
            None => true,
        };
        if fits {
            out.put(
                *one,
                &table,
                "device",
                if at == 0 { "serial" } else { "isa" },
            );
            end(*one, &table, out);
        }
    }
    for (at, one) in all.children("console").into_iter().enumerate() {
        console(one, at, !serials.is_empty(), out);
    }
    for (at, one) in all.children("channel").into_iter().enumerate() {
        channel(one, at, out);
    }
    for one in all.children("parallel") {
        out.left(one, "mvm has no parallel ports");
    }
}

fn console(one: El<'_>, at: usize, serial: bool, out: &mut Draft) {
    let target = one.child("target");
    let kind = target.and_then(|target| target.attr("type"));
    if let Some(target) = target {
        target.attr("port");
    }
    let usual = format!("console{at}");
    match kind {
        None | Some("serial") if at == 0 && serial => {
            out.fine(one, "libvirt's second word for the first serial port");
        }
        None | Some("serial") => {
            single(one, "", None, out);
            let table = if at == 0 {
                "console.main".to_owned()
            } else {
                format!("console.serial{at}")
            };
            out.put(
                one,
                &table,
                "device",
                if at == 0 { "serial" } else { "isa" },
            );
            end(one, &table, out);
        }
        Some("virtio") => {
            let table = format!("console.{}", name(one, usual.clone(), out));
            out.aliases.remove(&usual);
            out.put(one, &table, "device", "virtio");
            end(one, &table, out);
        }
        Some(_) => out.left(one, "mvm has no such console"),
    }
    address::place(one, None, out);
}

fn channel(one: El<'_>, at: usize, out: &mut Draft) {
    let target = one.child("target");
    let port = target.and_then(|target| target.attr("name"));
    if let Some(target) = target {
        let _ = target.attr("state");
        if !target.is("type", "virtio") {
            return out.left(one, "mvm's channels are virtio-serial ports");
        }
    }
    let Some(port) = port else {
        return out.left(one, "it names no port");
    };
    let kind = one.peek("type");
    match (kind, port) {
        (_, AGENT) => {
            // The socket is mvm's, which speaks to the agent itself.
            out.put(one, "agent", "enabled", true);
            out.fine(
                one,
                "`[agent]`; `mvm exec`, `mvm cp`, `mvm agent` and others speak to it",
            );
        }
        (Some("spicevmc"), "com.redhat.spice.0") => {
            out.fine(
                one,
                "every guest with SPICE has it, unless `display.spice.agent = false`",
            );
        }
        (Some("spiceport"), "org.spice-space.webdav.0") => {
            out.put(one, "display.spice", "webdav", true);
            one.attr("type");
            let _the_same_name = one.child("source").map(|source| source.is("channel", port));
            single(one, "", None, out);
        }
        (Some("qemu-vdagent"), _) => {
            let source = one.child("source");
            let paste = source.and_then(|source| source.child("clipboard"));
            let on = paste
                .and_then(|paste| paste.flag("copypaste"))
                .unwrap_or(false);
            if !out.has("display", "clipboard") {
                out.put(one, "display", "clipboard", on);
            }
            one.attr("type");
            single(one, "", None, out);
        }
        _ => {
            let name = name(one, format!("channel{at}"), out);
            let table = format!(
                "channel.{}",
                if name.starts_with("ua-") {
                    name
                } else {
                    id(port)
                }
            );
            out.put(one, &table, "port", port);
            end(one, &table, out);
        }
    }
    address::place(one, None, out);
}

/// Where the bytes go on the host.
fn end(one: El<'_>, table: &str, out: &mut Draft) {
    let source = one.child("source");
    let read = |what: &str| source.and_then(|source| source.attr(what));
    let kind = one.attr("type").unwrap_or("pty");
    // Of a running guest: where its pseudo-terminal is.
    one.attr("tty");
    match kind {
        "pty" => {
            read("path");
            // mvm's own socket: `mvm console` with any number of readers, and a log.
            if !table.starts_with("channel.") {
                out.put(one, table, "backend", "mvm");
            }
        }
        "null" => out.put(one, table, "backend", "null"),
        "dev" => {
            if let Some(path) = read("path") {
                out.put(one, table, "host.device", path);
            }
        }
        "file" => {
            if let Some(path) = read("path") {
                out.put(one, table, "file.path", path);
            }
            if source.and_then(|source| source.flag("append")) == Some(true) {
                out.put(one, table, "file.append", true);
            }
        }
        "unix" => match read("path").map(str::to_owned) {
            Some(path) => {
                out.put(one, table, "unix.path", path);
                if source.and_then(listens) != Some(false) {
                    out.put(one, table, "unix.listen", true);
                }
            }
            None => {
                source.and_then(listens);
            }
        },
        "tcp" => tcp(one, table, out),
        "udp" => udp(one, table, out),
        _ => {
            if let Some(source) = source {
                source.whole();
            }
            out.told(
                one,
                format!(
                    "mvm has no end like `{}`; the port leads to a socket of mvm's",
                    short(kind)
                ),
            );
        }
    }
    if let Some(reconnect) = source.and_then(|source| source.child("reconnect")) {
        if reconnect.flag("enabled") == Some(true) {
            let seconds = count(reconnect, "timeout");
            out.put(
                reconnect,
                table,
                &format!("{kind}.reconnect"),
                seconds.unwrap_or(1),
            );
        }
    }
    if let Some(protocol) = one.child("protocol") {
        if protocol.is("type", "telnet") {
            out.put(protocol, table, "tcp.telnet", true);
        } else if !protocol.is("type", "raw") {
            out.told(protocol, "mvm's connections are plain, or telnet's");
        }
    }
    if let Some(log) = one.child("log") {
        if log.attr("file").is_some() {
            let _ = log.flag("append");
            if table.starts_with("console.") {
                out.fine(log, "mvm keeps a log of each console: `mvm log`");
            } else {
                out.told(log, "mvm keeps no log of a channel");
            }
        }
    }
    address::place(one, None, out);
}

/// Whether QEMU waits at that end, and does not go there.
fn listens(source: El<'_>) -> Option<bool> {
    source.read("mode", |mode| match mode {
        "bind" => Some(true),
        "connect" => Some(false),
        _ => None,
    })
}

fn connection(source: El<'_>) -> Table {
    let mut end = Table::new();
    if let Some(host) = source.attr("host") {
        end.insert("address".to_owned(), Value::from(host));
    }
    if let Some(port) = count(source, "service") {
        end.insert("port".to_owned(), Value::from(port));
    }
    end
}

fn tcp(one: El<'_>, table: &str, out: &mut Draft) {
    let Some(source) = one.all().find(|part| part.name() == "source") else {
        return;
    };
    for (key, value) in connection(source) {
        out.put(source, table, &format!("tcp.{key}"), value);
    }
    if listens(source) == Some(true) {
        out.put(source, table, "tcp.listen", true);
    }
    out.left_attr(source, "tls", "mvm's connections are not encrypted");
}

fn udp(one: El<'_>, table: &str, out: &mut Draft) {
    let more = one.children("source");
    let first = one.all().find(|part| part.name() == "source");
    for source in first.into_iter().chain(more) {
        let local = listens(source) == Some(true);
        for (key, value) in connection(source) {
            let key = if local {
                format!("udp.local-{key}")
            } else {
                format!("udp.{key}")
            };
            out.put(source, table, &key, value);
        }
    }
}
