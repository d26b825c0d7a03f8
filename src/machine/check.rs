//! What the machine needs of this QEMU, found missing before anything is touched.

use super::drivers::{RNG_SOURCE, VFIO, needed};
use super::{HostDeviceKind, Machine, NicBackend};
use crate::error::{ExitCode, Hint};
use crate::host::QemuCaps;
use crate::host::qemu::Lacks;

/// This QEMU lacks something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LackError {
    /// A device type.
    #[error("{what} needs the device {name}, which this QEMU ({version}) lacks: {why}")]
    Device {
        /// Which part of the profile needs it.
        what: String,
        /// The device type.
        name: &'static str,
        /// QEMU's version.
        version: String,
        /// Why it is not there.
        why: Lacks,
    },
    /// A property of a device.
    #[error(
        "{what} needs the property {property} of {name}, which this QEMU ({version}) does not have"
    )]
    Property {
        /// Which part of the profile needs it.
        what: String,
        /// The property.
        property: &'static str,
        /// The device type.
        name: &'static str,
        /// QEMU's version.
        version: String,
    },
    /// A part of QEMU.
    #[error("{what} needs {name}, which this QEMU ({version}) lacks: {why}")]
    Part {
        /// Which part of the profile needs it.
        what: String,
        /// The part.
        name: String,
        /// QEMU's version.
        version: String,
        /// Why it is not there.
        why: Lacks,
    },
    /// A backend or an option.
    #[error("{what} needs {name}, which this QEMU ({version}) is built without")]
    Backend {
        /// Which part of the profile needs it.
        what: String,
        /// The backend.
        name: &'static str,
        /// QEMU's version.
        version: String,
    },
}

impl Hint for LackError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Device {
                why: Lacks::Since(version),
                ..
            } => vec![format!(
                "install QEMU {version} or later, or name one in `qemu.binary`"
            )],
            Self::Device {
                why: Lacks::Module(file),
                ..
            } => vec![module(file)],
            Self::Part {
                why: Lacks::Module(file),
                ..
            } => vec![module(file)],
            Self::Part {
                why: Lacks::Since(version),
                ..
            } => vec![format!(
                "install QEMU {version} or later, or name one in `qemu.binary`"
            )],
            Self::Part { .. } | Self::Device { .. } | Self::Property { .. } => Vec::new(),
            Self::Backend { name, .. } if name.contains("sandbox") => {
                vec!["leave `qemu.sandbox` out: it is used where QEMU has it".to_owned()]
            }
            Self::Backend { .. } => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Host
    }
}

/// Which package has a module of QEMU's. The names are Debian's and Fedora's.
fn module(file: &str) -> String {
    let package = match file.trim_end_matches(".so") {
        // Debian 12 has SPICE's and the GPU's with QEMU itself, 13 in packages of their own.
        "ui-spice-app" | "ui-spice-core" | "chardev-spice" | "audio-spice" | "hw-display-qxl"
        | "hw-usb-redirect" => {
            "Debian and Ubuntu: `apt install qemu-system-modules-spice`; Fedora: `dnf install qemu-ui-spice-core qemu-device-display-qxl`"
        }
        "ui-egl-headless" | "ui-opengl" | "ui-dbus" => {
            "Debian and Ubuntu: `apt install qemu-system-modules-opengl`; Fedora: `dnf install qemu-ui-opengl qemu-ui-egl-headless`"
        }
        name if name.starts_with("hw-display-virtio") => {
            "Debian and Ubuntu: `apt install qemu-system-modules-opengl`; Fedora: `dnf install qemu-device-display-virtio-gpu`"
        }
        name if name.starts_with("ui-") || name.starts_with("audio-") => {
            "Debian and Ubuntu: `apt install qemu-system-gui`; Fedora: `dnf install qemu-ui-gtk qemu-audio-pa`"
        }
        _ => "it is in a package of its own",
    };
    format!("install the package of your distribution that has this module ({package})")
}

/// The same for displays and what belongs to them.
fn desktop(machine: &Machine, caps: &QemuCaps) -> Result<(), LackError> {
    let version = || caps.version.to_string();
    for video in &machine.desktop.video {
        let name = video.driver(machine.board.kind);
        if !caps.properties_known(name) {
            continue;
        }
        let lacks = |property| caps.device_property(name, property).is_none();
        let properties = video.properties().into_iter().map(|(property, _)| property);
        if let Some(property) = properties.into_iter().find(|property| lacks(property)) {
            return Err(LackError::Property {
                what: format!("video `{}`", video.id),
                property,
                name,
                version: version(),
            });
        }
    }
    let evdev = machine
        .desktop
        .inputs
        .iter()
        .find(|input| input.evdev.is_some());
    if let Some(input) = evdev {
        if !caps.objects.is_empty() && !caps.has_object("input-linux") {
            return Err(LackError::Backend {
                what: format!("input `{}`", input.id),
                name: "input-linux",
                version: version(),
            });
        }
    }
    for (wanted, key, name) in [
        (
            machine.desktop.clipboard,
            "display.clipboard",
            "qemu-vdagent",
        ),
        (
            machine.desktop.usb_redirects > 0,
            "usb-redirect",
            "spicevmc",
        ),
    ] {
        if wanted && !caps.chardevs.is_empty() && !caps.chardevs.contains(name) {
            return Err(LackError::Part {
                what: format!("`{key}`"),
                name: format!("the character device {name}"),
                version: version(),
                why: caps.why_lacks(name),
            });
        }
    }
    Ok(())
}

/// Whether this QEMU has every device, backend and object that the machine needs. What it did not tell
/// is not held against it.
pub(super) fn check(machine: &Machine, caps: &QemuCaps) -> Result<(), LackError> {
    let version = || caps.version.to_string();
    if !caps.devices.is_empty() {
        let missing = needed(machine)
            .into_iter()
            .find(|needed| !caps.has_device(needed.driver));
        if let Some(missing) = missing {
            return Err(LackError::Device {
                what: missing.what,
                name: missing.driver,
                version: version(),
                why: caps.why_lacks(missing.driver),
            });
        }
    }
    for device in &machine.host_devices {
        let vfio = !matches!(device.kind, HostDeviceKind::Usb(_));
        let guest = &device.guest;
        let needs = [
            ("x-vga", guest.x_vga),
            ("x-igd-opregion", guest.igd.is_some()),
            ("x-igd-gms", guest.igd.is_some_and(|igd| igd.gms.is_some())),
            ("sysfsdev", matches!(device.kind, HostDeviceKind::Mdev(_))),
        ];
        let lacks = |property| caps.device_property(VFIO, property).is_none();
        let missing = needs
            .into_iter()
            .find(|(property, needed)| *needed && lacks(property));
        if let Some((property, _)) = missing.filter(|_| vfio && caps.properties_known(VFIO)) {
            return Err(LackError::Property {
                what: format!("`[{}]`", device.key()),
                property,
                name: VFIO,
                version: version(),
            });
        }
    }
    desktop(machine, caps)?;
    if machine.rng.is_some() && !caps.objects.is_empty() && !caps.has_object(RNG_SOURCE) {
        return Err(LackError::Backend {
            what: "`[rng]`".to_owned(),
            name: RNG_SOURCE,
            version: version(),
        });
    }
    if let Some(backend) = &machine.ram.backend {
        let name = backend.kind.object();
        if !caps.objects.is_empty() && !caps.has_object(name) {
            return Err(LackError::Backend {
                what: "`[memory]`".to_owned(),
                name,
                version: version(),
            });
        }
    }
    for nic in &machine.nics {
        let name = match nic.backend {
            NicBackend::User { .. } => "user",
            NicBackend::Tap { .. } => "tap",
            NicBackend::VhostUser { .. } => "vhost-user",
        };
        if !caps.netdevs.is_empty() && !caps.netdevs.contains(name) {
            return Err(LackError::Backend {
                what: format!("network `{}`", nic.id),
                name: match name {
                    "user" => "user networking (libslirp)",
                    "tap" => "tap networking",
                    _ => "vhost-user networking",
                },
                version: version(),
            });
        }
    }
    if let Some((what, name)) = super::ports::backends(machine)
        .find(|(_, name)| !caps.chardevs.is_empty() && !caps.chardevs.contains(name))
    {
        return Err(LackError::Backend {
            what,
            name,
            version: version(),
        });
    }
    Ok(())
}
