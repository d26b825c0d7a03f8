//! What a person sees, hears and holds of the guest: displays, video, sound, keyboards and pointers.

pub mod display;
mod error;
pub mod input;
mod local;
mod servers;
pub mod shmem;
pub mod sound;
pub mod video;

use serde::{Deserialize, Serialize};

pub use display::{Address, Dbus, Server, Spice, Vnc, Window};
pub use error::DesktopError;
pub use input::{Evdev, Input};
pub use shmem::Shmem;
pub use sound::Audio;
pub use video::Video;

use super::files::{FileError, find, shown};
use super::host_devices::HostDevices;
use super::{Board, BoardKind, RunAs};
use crate::host::{HostFacts, Images, QemuCaps};
use crate::ids::Id;
use crate::profile::schema::{
    AudioBackend, DisplayType, InputBus, Layer, UsbControllerTable, UsbModel, UsbRedirectTable,
};

/// How many ports the USB controller has when the profile does not say.
pub const USB_PORTS: u8 = 15;

/// The parts of the guest that a person deals with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Desktop {
    /// A VNC server.
    pub vnc: Option<Vnc>,
    /// A SPICE server.
    pub spice: Option<Spice>,
    /// What QEMU's one `-display` is.
    pub window: Window,
    /// Whether QEMU's own agent carries the clipboard.
    pub clipboard: bool,
    /// Video devices, the primary one first.
    pub video: Vec<Video>,
    /// Sound cards.
    pub audio: Vec<Audio>,
    /// Keyboards and pointers.
    pub inputs: Vec<Input>,
    /// Shared memory.
    pub shmem: Vec<Shmem>,
    /// How many devices of a SPICE viewer's host there can be.
    pub usb_redirects: u8,
    /// The USB controller's kind.
    pub usb: UsbController,
}

/// The USB controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsbController {
    /// Whether the profile asks for one, devices or not.
    pub asked: bool,
    /// The kind.
    pub model: UsbModel,
    /// How many ports it has.
    pub ports: u8,
}

impl Default for UsbController {
    fn default() -> Self {
        Self {
            asked: false,
            model: UsbModel::Xhci,
            ports: USB_PORTS,
        }
    }
}

impl Desktop {
    /// Whether the guest has a channel of SPICE's agent, whoever answers on the host.
    pub fn has_agent(&self) -> bool {
        self.clipboard || self.spice.as_ref().is_some_and(|spice| spice.agent)
    }

    /// Whether the guest has SPICE's channel of shared folders.
    pub fn has_webdav(&self) -> bool {
        self.spice.as_ref().is_some_and(|spice| spice.webdav)
    }

    /// Whether the guest's pictures go anywhere.
    pub fn is_shown(&self) -> bool {
        self.vnc.is_some() || self.spice.is_some() || self.window != Window::None
    }

    /// How many devices of these are on the USB controller.
    pub fn on_usb(&self) -> usize {
        self.usb_devices().count()
    }

    /// The devices on the USB controller, those that stay first.
    pub fn usb_devices(&self) -> impl Iterator<Item = String> {
        let inputs = self.inputs.iter();
        let inputs = inputs.filter(|input| input.evdev.is_none() && input.bus == InputBus::Usb);
        let audio = self.audio.iter().filter(|audio| audio.is_usb());
        inputs
            .map(|input| input.id.to_string())
            .chain(audio.map(|audio| audio.id.to_string()))
            .chain((0..self.usb_redirects).map(redirect_id))
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// The names of its devices in QEMU, each with its table.
    pub fn ids(&self) -> impl Iterator<Item = (&Id, &'static str)> {
        let videos = self.video.iter().map(|video| (&video.id, "video"));
        let audio = self.audio.iter().map(|audio| (&audio.id, "audio"));
        let inputs = self.inputs.iter().map(|input| (&input.id, "input"));
        let shmem = self.shmem.iter().map(|shmem| (&shmem.id, "shmem"));
        videos
            .filter(|(id, _)| id.as_str() != video::GPU_ID)
            .chain(audio)
            .chain(inputs)
            .chain(shmem)
    }

    /// Whether devices of it sit behind the bridge to conventional PCI.
    pub fn has_bridge(&self) -> bool {
        let mut behind = self.behind().into_iter();
        behind.any(|ids| !ids.is_empty())
    }

    /// What sits behind that bridge: sound cards, shared memory, keyboards and pointers.
    pub fn behind(&self) -> [Vec<&Id>; 3] {
        let virtio = |input: &&Input| input.evdev.is_none() && input.bus == InputBus::Virtio;
        let inputs = self.inputs.iter().filter(virtio);
        let audio = self.audio.iter().filter(|audio| audio.is_pci());
        let shmem = self.shmem.iter().map(|shmem| &shmem.id);
        [
            audio.map(|audio| &audio.id).collect(),
            shmem.collect(),
            inputs.map(|input| &input.id).collect(),
        ]
    }
}

/// Whether the files are there that have passwords.
pub(super) fn has_passwords(desktop: &Desktop, images: &Images) -> Result<(), FileError> {
    let vnc = desktop.vnc.iter().map(|vnc| ("vnc", &vnc.server));
    let spice = desktop.spice.iter().map(|spice| ("spice", &spice.server));
    for (kind, server) in vnc.chain(spice) {
        if let Some(path) = &server.password {
            let text = path.display().to_string();
            let fix = || {
                Some(format!(
                    "`(umask 077; head -c 6 /dev/urandom | base64 > {})` makes one",
                    shown(path)
                ))
            };
            let what = format!("`display.{kind}.password-file`");
            find(images, &what, &text, fix)?;
        }
    }
    Ok(())
}

/// The name of a port for devices of a SPICE viewer's host.
pub fn redirect_id(index: u8) -> String {
    format!("mvm-usb-redirect-{index}")
}

/// Whether what is asked for depends on the sessions and ports of the host.
pub fn wants_host(layer: &Layer) -> bool {
    let display = layer.display.clone().unwrap_or_default();
    let types = display::types(&display);
    types.contains(&DisplayType::Spice)
        || types.contains(&DisplayType::Local)
        || layer.audio.iter().flatten().any(|(_, audio)| {
            matches!(
                audio.backend,
                Some(AudioBackend::Pulseaudio | AudioBackend::Pipewire)
            )
        })
}

/// What the desktop is made from beside the profile.
pub(super) struct Around<'a> {
    pub(super) board: &'a Board,
    pub(super) caps: &'a QemuCaps,
    pub(super) facts: &'a HostFacts,
    pub(super) devices: &'a HostDevices,
    pub(super) run_dir: &'a std::path::Path,
    pub(super) run_as: Option<&'a RunAs>,
}

/// All of it.
pub(super) fn desktop(
    layer: &Layer,
    around: &Around,
    notes: &mut Vec<String>,
) -> Result<Desktop, DesktopError> {
    let table = layer.display.clone().unwrap_or_default();
    let types = display::types(&table);
    let has = |kind| types.contains(&kind);
    let vnc = if has(DisplayType::Vnc) {
        Some(servers::vnc(&table, around, notes)?)
    } else {
        None
    };
    let spice = if has(DisplayType::Spice) {
        Some(servers::spice(&table, around, notes)?)
    } else {
        None
    };
    let window = display::window(&types, &table, around)?;
    let shown = vnc.is_some() || spice.is_some() || window != Window::None;
    let agent = spice.as_ref().is_some_and(|spice| spice.agent);
    if table.clipboard == Some(true) && !shown {
        return Err(DesktopError::NoDisplay("display.clipboard".to_owned()));
    }
    let usb_redirects = redirects(layer.usb_redirect.as_ref(), spice.is_some())?;
    let desktop = Desktop {
        clipboard: table.clipboard == Some(true) && !agent,
        video: video::videos(layer, table.outputs, shown, around)?,
        audio: sound::audio(layer, spice.is_some(), &window, around)?,
        inputs: input::inputs(layer, shown, around.board.kind)?,
        shmem: shmem::shmem(layer, around.run_dir, around.board.kind)?,
        usb_redirects,
        usb: usb(layer.usb_controller.as_ref(), around.board.kind)?,
        vnc,
        spice,
        window,
    };
    sound::heard(&desktop)?;
    if desktop.video.iter().any(|video| video.accel_3d) && !display::has_gl(&desktop) {
        return Err(DesktopError::NoGl);
    }
    if shown && desktop.video.is_empty() && !around.devices.devices.iter().any(shows) {
        notes.push(
            "the guest has a display and no video device: viewers will see nothing".to_owned(),
        );
    }
    Ok(desktop)
}

/// Whether a device of the host shows its picture in QEMU's displays.
fn shows(device: &super::HostDevice) -> bool {
    device.guest.display
}

fn redirects(table: Option<&UsbRedirectTable>, spice: bool) -> Result<u8, DesktopError> {
    let Some(table) = table else { return Ok(0) };
    let ports = table.ports.unwrap_or(2);
    if ports > 8 {
        return Err(DesktopError::Range {
            key: "usb-redirect.ports".to_owned(),
            value: ports,
            least: 0,
            most: 8,
        });
    }
    if ports > 0 && !spice {
        return Err(DesktopError::NeedsSpice("usb-redirect".to_owned()));
    }
    Ok(u8::try_from(ports).unwrap_or(8))
}

fn usb(
    table: Option<&UsbControllerTable>,
    board: BoardKind,
) -> Result<UsbController, DesktopError> {
    let Some(table) = table else {
        return Ok(UsbController::default());
    };
    if board == BoardKind::Microvm {
        return Err(DesktopError::NoPci("usb-controller".to_owned(), board));
    }
    let model = table.model.unwrap_or(UsbModel::Xhci);
    let ports = match (model, table.ports) {
        (UsbModel::Xhci | UsbModel::NecXhci, ports) => ports.unwrap_or(u32::from(USB_PORTS)),
        (UsbModel::Ehci, None) => 6,
        (UsbModel::Uhci, None) => 2,
        (UsbModel::Ehci | UsbModel::Uhci, Some(_)) => {
            return Err(DesktopError::NotOf {
                key: "usb-controller.ports".to_owned(),
                model: model.as_str(),
            });
        }
    };
    if !(1..=u32::from(USB_PORTS)).contains(&ports) {
        return Err(DesktopError::Range {
            key: "usb-controller.ports".to_owned(),
            value: ports,
            least: 1,
            most: u32::from(USB_PORTS),
        });
    }
    Ok(UsbController {
        asked: true,
        model,
        ports: u8::try_from(ports).unwrap_or(USB_PORTS),
    })
}

#[cfg(test)]
mod tests;
