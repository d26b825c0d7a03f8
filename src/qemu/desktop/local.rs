//! A window in a session of this host, and the variables by which its toolkit finds it.

use crate::machine::Machine;
use crate::machine::desktop::Window;
use crate::machine::desktop::display::Local;
use crate::profile::schema::{AudioBackend, Toolkit};
use crate::qemu::args::{Options, path};

pub(super) fn window(local: &Local) -> Options {
    let mut options = Options::new(local.toolkit.as_str());
    for (name, on) in &local.switches {
        options = options.set(name, if *on { "on" } else { "off" });
    }
    for (index, connector) in local.connectors.iter().enumerate() {
        options = options.set(&format!("connectors.{index}"), connector);
    }
    options
}

/// The variables that lead QEMU to the session's window system and sound.
pub(in crate::qemu) fn environment(machine: &Machine) -> Vec<(String, String)> {
    let mut found: Vec<(&str, String)> = Vec::new();
    if let Window::Local(local) = &machine.desktop.window {
        let session = &local.session;
        let backend = match local.toolkit {
            Toolkit::Gtk => "GDK_BACKEND",
            Toolkit::Sdl => "SDL_VIDEODRIVER",
        };
        if let Some(socket) = &session.wayland {
            found.push(("WAYLAND_DISPLAY", path(socket)));
            found.push((backend, "wayland".to_owned()));
        } else if let Some(display) = &session.x11 {
            found.push(("DISPLAY", display.clone()));
            found.push((backend, "x11".to_owned()));
            if let Some(cookie) = &session.xauthority {
                found.push(("XAUTHORITY", path(cookie)));
            }
        }
        if let Some(dir) = &session.runtime {
            found.push(("XDG_RUNTIME_DIR", path(dir)));
        }
        // SDL would start a bus of its own, and the sandbox starts no programs.
        let bus = session.bus.as_deref();
        let bus = bus.map_or_else(
            || "disabled:".to_owned(),
            |bus| format!("unix:path={}", path(bus)),
        );
        found.push(("DBUS_SESSION_BUS_ADDRESS", bus));
        // Nobody reads the guest's picture aloud, and the service for it is not there for every user.
        found.push(("NO_AT_BRIDGE", "1".to_owned()));
    }
    let pipewire = machine
        .desktop
        .audio
        .iter()
        .find(|audio| audio.backend == AudioBackend::Pipewire);
    if let Some(dir) = pipewire.and_then(|audio| audio.server.as_ref()?.parent()) {
        found.push(("PIPEWIRE_RUNTIME_DIR", path(dir)));
    }
    found
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
