//! QEMU's module files: distributions package displays, audio and some devices apart.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::caps::QemuCaps;
use super::names::Names;

/// Devices that live in a module, in builds that have modules.
const DEVICES: &[(&str, &str)] = &[
    ("ccid-card-emulated", "hw-usb-smartcard"),
    ("ccid-card-passthru", "hw-usb-smartcard"),
    ("qxl", "hw-display-qxl"),
    ("qxl-vga", "hw-display-qxl"),
    ("u2f-passthru", "hw-usb-u2f"),
    ("usb-host", "hw-usb-host"),
    ("usb-redir", "hw-usb-redirect"),
    ("virtio-gpu-device", "hw-display-virtio-gpu"),
    ("virtio-gpu-gl-device", "hw-display-virtio-gpu-gl"),
    ("virtio-gpu-gl-pci", "hw-display-virtio-gpu-pci-gl"),
    ("virtio-gpu-pci", "hw-display-virtio-gpu-pci"),
    ("virtio-vga", "hw-display-virtio-vga"),
    ("virtio-vga-gl", "hw-display-virtio-vga-gl"),
];

/// Devices that only x86 builds have.
const X86_ONLY: &[&str] = &["qxl", "qxl-vga", "virtio-vga", "virtio-vga-gl"];

/// The directories where this QEMU's modules may be, in the order in which QEMU looks.
pub(super) fn directories(binary: &Path) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    if let Some(dir) = std::env::var_os("QEMU_MODULE_DIR").filter(|d| !d.is_empty()) {
        dirs.push(PathBuf::from(dir));
    }
    let real = binary.canonicalize().unwrap_or_else(|_| binary.to_owned());
    // <prefix>/bin/qemu or <prefix>/libexec/qemu-kvm
    if let Some(prefix) = real.parent().and_then(Path::parent) {
        for lib in [
            "lib/x86_64-linux-gnu/qemu",
            "lib/aarch64-linux-gnu/qemu",
            "lib64/qemu",
            "lib64/qemu-kvm",
            "lib/qemu",
        ] {
            dirs.push(prefix.join(lib));
        }
    }
    dirs
}

/// Names what this QEMU was built with and cannot load.
///
/// `built_displays` and `built_audio` are what the schema lists, `caps` what QEMU could load when it
/// was asked.
pub(super) fn unloadable(
    caps: &QemuCaps,
    dirs: &[PathBuf],
    built_displays: &Names,
    built_audio: &Names,
) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (prefix, kind, built, usable) in [
        ("display", "ui", built_displays, &caps.displays),
        ("audiodev", "audio", built_audio, &caps.audiodevs),
    ] {
        for name in built.iter().filter(|n| !usable.contains(n)) {
            // `default` is QEMU's word for whichever there is.
            if name != "default" && !is_there(dirs, kind, name) {
                found.insert(format!("{prefix}.{name}"), format!("{kind}-{name}.so"));
            }
        }
    }
    // Whether a build has modules at all is seen from there being some.
    if dirs.iter().any(|d| has_modules(d)) {
        for (device, module) in DEVICES {
            let fits = caps.arch == crate::ids::Arch::X86_64 || !X86_ONLY.contains(device);
            let file = format!("{module}.so");
            if fits && !caps.has_device(device) && !dirs.iter().any(|d| d.join(&file).exists()) {
                found.insert((*device).to_owned(), file);
            }
        }
    }
    found
}

fn is_there(dirs: &[PathBuf], kind: &str, name: &str) -> bool {
    let file = format!("{kind}-{name}.so");
    dirs.iter().any(|d| d.join(&file).exists())
}

fn has_modules(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|entries| {
        entries.flatten().any(|e| {
            Path::new(&e.file_name())
                .extension()
                .is_some_and(|x| x == "so")
        })
    })
}
