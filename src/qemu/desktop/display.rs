//! `-display`, `-vnc` and `-spice`.

use crate::machine::Machine;
use crate::machine::desktop::display::VNC_BASE;
use crate::machine::desktop::{Address, Server, Spice, Vnc, Window};
use crate::profile::schema::SpiceImages;
use crate::qemu::args::{Args, Object, Options, path};
use crate::qemu::command::FdSource;

/// QEMU's one `-display`.
pub(in crate::qemu) fn window(args: &mut Args, machine: &Machine) {
    let options = match &machine.desktop.window {
        Window::None => Options::new("none"),
        Window::Local(local) => super::local::window(local),
        Window::EglHeadless { rendernode } => some(
            Options::new("egl-headless"),
            "rendernode",
            rendernode.as_deref(),
        ),
        Window::Dbus(dbus) => {
            let options = Options::new("dbus");
            let options = match &dbus.address {
                Some(address) => options.set("addr", address),
                None => options.set("p2p", "on"),
            };
            let options = if dbus.gl {
                options.set("gl", "on")
            } else {
                options
            };
            let options = some(options, "rendernode", dbus.rendernode.as_deref());
            let audio = dbus.audio.as_ref().map(super::sound::backend_id);
            some(options, "audiodev", audio.as_deref())
        }
    };
    args.options("-display", options);
}

/// The servers.
pub(super) fn add(args: &mut Args, machine: &Machine) {
    if let Some(vnc) = &machine.desktop.vnc {
        secret(args, "vnc", &vnc.server);
        if let Some(dir) = &vnc.server.tls {
            let object = Object::new("qom-type", "tls-creds-x509")
                .set("id", "mvm-vnc-tls")
                .set("dir", path(dir))
                .set("endpoint", "server")
                .set("verify-peer", vnc.verify);
            args.json("-object", object);
        }
        args.options("-vnc", self::vnc(vnc));
    }
    if let Some(spice) = &machine.desktop.spice {
        secret(args, "spice", &spice.server);
        args.options("-spice", self::spice(spice));
    }
}

/// The password as an object: a command line is there for everybody to read.
fn secret(args: &mut Args, kind: &str, server: &Server) {
    if let Some(file) = &server.password {
        let id = secret_id(kind);
        let object = Object::new("qom-type", "secret").set("id", id.as_str());
        let real = object
            .clone()
            .set("file", format!("/proc/self/fd/{{fd:{id}}}"));
        args.json_fd("-object", real, object.set("file", path(file)));
        args.fd(id, FdSource::Secret(file.clone()));
    }
}

fn secret_id(kind: &str) -> String {
    format!("mvm-{kind}-password")
}

fn some(options: Options, key: &str, value: Option<&str>) -> Options {
    match value {
        Some(value) => options.set(key, value),
        None => options,
    }
}

fn vnc(vnc: &Vnc) -> Options {
    let options = match &vnc.server.address {
        Address::Unix(socket) => Options::new(&format!("unix:{}", path(socket))),
        Address::Tcp { host, port, to } => {
            let host = if host.contains(':') {
                format!("[{host}]")
            } else {
                host.clone()
            };
            // VNC counts displays from its first port on.
            let options = Options::new(&format!("{host}:{}", port.saturating_sub(VNC_BASE)));
            match to {
                Some(to) => options.set("to", to.saturating_sub(VNC_BASE)),
                None => options,
            }
        }
    };
    let password = vnc.server.password.as_ref().map(|_| secret_id("vnc"));
    let options = some(options, "password-secret", password.as_deref());
    let tls = vnc.server.tls.as_ref().map(|_| "mvm-vnc-tls");
    let options = some(options, "tls-creds", tls);
    let options = some(options, "share", vnc.share.map(|share| share.as_str()));
    let audio = vnc.audio.as_ref().map(super::sound::backend_id);
    some(options, "audiodev", audio.as_deref())
}

fn spice(spice: &Spice) -> Options {
    let on = |on: bool| if on { "on" } else { "off" };
    let mut options = match &spice.server.address {
        Address::Unix(socket) => Options::with("unix", "on").set("addr", path(socket)),
        Address::Tcp { host, port, .. } => {
            let options = Options::with("addr", host);
            match &spice.server.tls {
                Some(dir) => options
                    .set("tls-port", port)
                    .set("x509-dir", path(dir))
                    // Without it a viewer could ask for some channels without.
                    .set("tls-channel", "default"),
                None => options.set("port", port),
            }
        }
    };
    options = match spice.server.password {
        Some(_) => options.set("password-secret", secret_id("spice")),
        None => options.set("disable-ticketing", "on"),
    };
    if let Some(images) = spice.images {
        // QEMU's words have underscores.
        let word = match images {
            SpiceImages::AutoGlz => "auto_glz",
            SpiceImages::AutoLz => "auto_lz",
            other => other.as_str(),
        };
        options = options.set("image-compression", word);
    }
    options = some(
        options,
        "jpeg-wan-compression",
        spice.jpeg.map(|w| w.as_str()),
    );
    options = some(
        options,
        "zlib-glz-wan-compression",
        spice.zlib.map(|w| w.as_str()),
    );
    options = some(options, "playback-compression", spice.playback.map(on));
    options = some(
        options,
        "streaming-video",
        spice.streaming.map(|w| w.as_str()),
    );
    options = some(options, "agent-mouse", spice.agent_mouse.map(on));
    if !spice.clipboard {
        options = options.set("disable-copy-paste", "on");
    }
    if !spice.file_transfer {
        options = options.set("disable-agent-file-xfer", "on");
    }
    if spice.gl {
        options = options.set("gl", "on");
    }
    some(options, "rendernode", spice.rendernode.as_deref())
}
