//! Where the guest's pictures go.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Around, Desktop, DesktopError};
use crate::host::Session;
use crate::ids::Id;
use crate::machine::check::LackError;
use crate::profile::schema::{
    AudioBackend, DisplayTable, DisplayType, SpiceImages, SpiceStreaming, SpiceWan, Toolkit,
    VncShare,
};

/// VNC's display 0.
pub const VNC_BASE: u16 = 5900;
/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Address {
    /// On a TCP port.
    Tcp {
        /// The address.
        host: String,
        /// The port.
        port: u16,
        /// The last port that is taken instead.
        to: Option<u16>,
    },
    /// On a Unix socket.
    Unix(PathBuf),
}

/// What VNC and SPICE have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Where it listens.
    pub address: Address,
    /// The file that has the password.
    pub password: Option<PathBuf>,
    /// The folder that has the certificates.
    pub tls: Option<PathBuf>,
}

/// The VNC server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vnc {
    /// Where, and who may.
    pub server: Server,
    /// Whether viewers need a certificate.
    pub verify: bool,
    /// What a second viewer means.
    pub share: Option<VncShare>,
    /// The sound card that viewers hear.
    pub audio: Option<Id>,
}

/// The SPICE server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spice {
    /// Where, and who may.
    pub server: Server,
    /// How pictures are compressed.
    pub images: Option<SpiceImages>,
    /// Losses on slow connections.
    pub jpeg: Option<SpiceWan>,
    /// More compression on slow connections.
    pub zlib: Option<SpiceWan>,
    /// Whether sound is compressed.
    pub playback: Option<bool>,
    /// Which parts are video.
    pub streaming: Option<SpiceStreaming>,
    /// Whether the guest has the agent's channel.
    pub agent: bool,
    /// Whether the pointer goes through it.
    pub agent_mouse: Option<bool>,
    /// Whether the clipboard does.
    pub clipboard: bool,
    /// Whether files do.
    pub file_transfer: bool,
    /// Whether the guest has the channel of shared folders.
    pub webdav: bool,
    /// Whether the host's GPU computes pictures.
    pub gl: bool,
    /// The GPU.
    pub rendernode: Option<String>,
    /// Whether mvm chose the port, and can choose another one.
    #[serde(default)]
    pub any_port: bool,
}

/// QEMU's one `-display`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Window {
    /// None.
    #[default]
    None,
    /// A window in a session.
    Local(Box<Local>),
    /// The host's GPU, shown by others.
    EglHeadless {
        /// The GPU.
        rendernode: Option<String>,
    },
    /// D-Bus.
    Dbus(Dbus),
}

/// A window in a session of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    /// What draws it.
    pub toolkit: Toolkit,
    /// The session.
    pub session: Session,
    /// Switches, with QEMU's names.
    pub switches: Vec<(String, bool)>,
    /// The host's connectors.
    pub connectors: Vec<String>,
}

/// A display on D-Bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dbus {
    /// The bus; without one viewers connect through QMP.
    pub address: Option<String>,
    /// Whether the host's GPU computes pictures.
    pub gl: bool,
    /// The GPU.
    pub rendernode: Option<String>,
    /// The sound card that viewers hear.
    pub audio: Option<Id>,
}

/// The kinds of display that a table asks for.
pub(super) fn types(table: &DisplayTable) -> Vec<DisplayType> {
    if let Some(types) = &table.r#type {
        let shown = |kind: &DisplayType| *kind != DisplayType::Headless;
        return types.0.iter().copied().filter(shown).collect();
    }
    [
        (DisplayType::Vnc, table.vnc.is_some()),
        (DisplayType::Spice, table.spice.is_some()),
        (DisplayType::Local, table.local.is_some()),
        (DisplayType::EglHeadless, table.egl_headless.is_some()),
        (DisplayType::Dbus, table.dbus.is_some()),
    ]
    .into_iter()
    .filter_map(|(kind, there)| there.then_some(kind))
    .collect()
}

/// Whether a display of the guest's has the host's GPU.
pub(super) fn has_gl(desktop: &Desktop) -> bool {
    let window = match &desktop.window {
        Window::None => false,
        Window::EglHeadless { .. } => true,
        Window::Local(local) => local.switches.contains(&("gl".to_owned(), true)),
        Window::Dbus(dbus) => dbus.gl,
    };
    window || desktop.spice.as_ref().is_some_and(|spice| spice.gl)
}

/// QEMU's one `-display`.
pub(super) fn window(
    types: &[DisplayType],
    table: &DisplayTable,
    around: &Around,
) -> Result<Window, DesktopError> {
    let of_qemu = |kind: &&DisplayType| {
        matches!(
            kind,
            DisplayType::Local | DisplayType::EglHeadless | DisplayType::Dbus
        )
    };
    let mut windows = types.iter().filter(of_qemu);
    let (first, second) = (windows.next(), windows.next());
    if let (Some(first), Some(second)) = (first, second.filter(|second| Some(*second) != first)) {
        return Err(DesktopError::TwoWindows {
            first: first.as_str(),
            second: second.as_str(),
        });
    }
    let need = |name: &'static str| {
        let caps = around.caps;
        if caps.displays.is_empty() || caps.has_display(name) {
            return Ok(());
        }
        let key = format!("display.{name}");
        Err(lack(around, &key, &format!("the display {name}"), &key))
    };
    match first {
        Some(DisplayType::EglHeadless) => {
            need("egl-headless")?;
            if !types.contains(&DisplayType::Vnc) && !types.contains(&DisplayType::Spice) {
                return Err(DesktopError::EglAlone);
            }
            let egl = table.egl_headless.clone().unwrap_or_default();
            Ok(Window::EglHeadless {
                rendernode: egl.rendernode,
            })
        }
        Some(DisplayType::Dbus) => {
            need("dbus")?;
            let dbus = table.dbus.clone().unwrap_or_default();
            let gl = dbus.gl == Some(true);
            if dbus.rendernode.is_some() && !gl {
                return Err(DesktopError::Without {
                    key: "display.dbus.rendernode",
                    other: "display.dbus.gl",
                });
            }
            Ok(Window::Dbus(Dbus {
                address: dbus.address,
                gl,
                rendernode: dbus.rendernode,
                audio: dbus.audio,
            }))
        }
        Some(DisplayType::Local) => super::local::window(table, around),
        _ => Ok(Window::None),
    }
}

/// This QEMU lacks it; `known` is what the probe calls it.
pub(super) fn lack(around: &Around, key: &str, name: &str, known: &str) -> DesktopError {
    DesktopError::Lacks(LackError::Part {
        what: format!("`{key}`"),
        name: name.to_owned(),
        version: around.caps.version.to_string(),
        why: around.caps.why_lacks(known),
    })
}

/// The socket of the sound server that a backend wants.
pub(super) fn sound_server(
    key: &str,
    backend: AudioBackend,
    window: &Window,
    around: &Around,
) -> Result<Option<PathBuf>, DesktopError> {
    if !matches!(backend, AudioBackend::Pulseaudio | AudioBackend::Pipewire) {
        return Ok(None);
    }
    let uid = around
        .run_as
        .map_or(around.facts.users.uid, |user| user.uid);
    let session = match window {
        Window::Local(local) => Some(&local.session),
        _ => around
            .facts
            .sessions
            .iter()
            .find(|session| session.uid == uid),
    };
    let socket = session.and_then(|session| match backend {
        AudioBackend::Pulseaudio => session.pulse.clone(),
        _ => session.pipewire.clone(),
    });
    socket.map(Some).ok_or_else(|| DesktopError::NoSoundServer {
        key: format!("{key}.backend"),
        backend: backend.as_str(),
        user: session.map_or_else(|| uid.to_string(), |session| session.user.clone()),
    })
}
