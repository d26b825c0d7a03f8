//! What QEMU opens by its path.

use std::path::{Path, PathBuf};

use crate::host::rights::{Need, Needed};
use crate::machine::desktop::Window;
use crate::machine::memory::RamKind;
use crate::machine::{
    AccelKind, Desktop, Disk, End, Firmware, HostDevice, HostDeviceKind, Machine, NicBackend,
};

pub(super) fn one(what: &str, path: &Path, need: Need) -> Needed {
    Needed {
        what: what.to_owned(),
        path: path.to_owned(),
        need,
    }
}

/// Everything that QEMU opens by its path and mvm has not made.
pub(super) fn needed(machine: &Machine) -> Vec<Needed> {
    let mut all = vec![one("QEMU", &machine.qemu.binary, Need::Run)];
    for dir in [&machine.run_dir, &machine.state_dir] {
        all.extend(
            above(dir)
                .into_iter()
                .map(|dir| one("mvm's own files", &dir, Need::Search)),
        );
    }
    if machine.accel.chosen == AccelKind::Kvm {
        all.push(one("KVM", Path::new("/dev/kvm"), Need::Write));
    }
    if let Some(kernel) = &machine.kernel {
        all.push(one("kernel", &kernel.image, Need::Read));
        all.extend(
            kernel
                .initrd
                .iter()
                .map(|file| one("initrd", file, Need::Read)),
        );
    }
    match &machine.firmware {
        Firmware::Builtin => {}
        Firmware::Bios(file) | Firmware::Flash { code: file, .. } => {
            all.push(one("firmware", file, Need::Read));
        }
    }
    let splash = machine.boot_menu.splash.iter();
    all.extend(splash.map(|file| one("the boot menu's picture", file, Need::Read)));
    for share in &machine.shares {
        let need = if share.read_only {
            Need::List
        } else {
            Need::Change
        };
        let what = format!("share `{}`", share.id);
        if let Some(virtiofs) = &share.virtiofs {
            all.push(one(&what, &virtiofs.program, Need::Run));
        }
        all.push(one(&what, &share.path, need));
    }
    all.extend(
        machine
            .rng
            .iter()
            .map(|file| one("random numbers", file, Need::Read)),
    );
    if let Some(RamKind::File { path, .. }) = machine.ram.backend.as_ref().map(|b| &b.kind) {
        let need = if path.is_dir() {
            Need::Change
        } else {
            Need::Write
        };
        all.push(one("memory", path, need));
    }
    all.extend(desktop(&machine.desktop));
    all.extend(ends(machine));
    all.extend(disks(&machine.disks));
    all.extend(host(&machine.host_devices, machine.iommufd));
    all
}

/// What displays and shared memory are opened by. A password is handed over open, and the node of a keyboard is
/// given.
fn desktop(desktop: &Desktop) -> Vec<Needed> {
    let mut all = Vec::new();
    let vnc = desktop.vnc.as_ref().map(|vnc| &vnc.server);
    let spice = desktop.spice.as_ref().map(|spice| &spice.server);
    for dir in [vnc, spice]
        .into_iter()
        .flatten()
        .filter_map(|server| server.tls.as_ref())
    {
        let files = ["ca-cert.pem", "server-cert.pem", "server-key.pem"];
        all.extend(
            files.map(|file| one("the display's certificates", &dir.join(file), Need::Read)),
        );
    }
    let nodes = render_nodes(desktop, Path::new("/dev/dri"));
    all.extend(
        nodes
            .iter()
            .map(|node| one("the host's GPU", node, Need::Write)),
    );
    for shmem in desktop.shmem.iter().filter(|shmem| !shmem.own) {
        let what = format!("shared memory `{}`", shmem.id);
        // QEMU makes one that is not there.
        all.push(match shmem.path.parent().filter(|_| !shmem.path.exists()) {
            Some(dir) => one(&what, dir, Need::Change),
            None => one(&what, &shmem.path, Need::Write),
        });
    }
    all
}

/// The GPUs that compute pictures. Where none is named, QEMU takes the first that it may open: that is known where
/// there is one.
fn render_nodes(desktop: &Desktop, dri: &Path) -> Vec<PathBuf> {
    let window = match &desktop.window {
        Window::EglHeadless { rendernode } => Some(rendernode),
        Window::Dbus(dbus) if dbus.gl => Some(&dbus.rendernode),
        _ => None,
    };
    let spice = desktop.spice.as_ref().filter(|spice| spice.gl);
    let asked = window
        .into_iter()
        .chain(spice.map(|spice| &spice.rendernode));
    let there = || {
        let entries = std::fs::read_dir(dri).into_iter().flatten().flatten();
        let mut nodes = entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("renderD"))
            .map(|entry| entry.path());
        nodes.next().filter(|_| nodes.next().is_none())
    };
    asked
        .filter_map(|node| node.as_ref().map(PathBuf::from).or_else(there))
        .collect()
}

/// The ports, files and sockets that bytes of the guest go to.
fn ends(machine: &Machine) -> Vec<Needed> {
    let mut all = Vec::new();
    for (what, end) in crate::machine::ports::ends(machine) {
        match end {
            End::Host(path)
            | End::Unix {
                path,
                listen: false,
                ..
            } => all.push(one(&what, path, Need::Write)),
            End::File { path, .. } if path.exists() => all.push(one(&what, path, Need::Write)),
            End::File { path, .. } => {
                let dir = path.parent().unwrap_or(path);
                all.push(one(&what, dir, Need::Change));
            }
            _ => {}
        }
    }
    for nic in &machine.nics {
        if let Some(rom) = &nic.options.rom {
            let what = format!("the option ROM of network `{}`", nic.id);
            all.push(one(&what, rom, Need::Read));
        }
        if let NicBackend::VhostUser {
            socket,
            server: false,
        } = &nic.backend
        {
            all.push(one(&format!("network `{}`", nic.id), socket, Need::Write));
        }
    }
    all
}

pub(super) fn disks(disks: &[Disk]) -> Vec<Needed> {
    let image = |disk: &Disk| {
        if let Some(socket) = &disk.options.vhost_user {
            return Some(one(&format!("disk `{}`", disk.id), socket, Need::Write));
        }
        let image = disk.image.as_ref()?;
        let need = if disk.read_only || disk.overlay.is_some() {
            Need::Read
        } else {
            Need::Write
        };
        Some(one(&format!("disk `{}`", disk.id), &image.path, need))
    };
    disks.iter().filter_map(image).collect()
}

pub(super) fn host(devices: &[HostDevice], iommufd: bool) -> Vec<Needed> {
    let mut all = Vec::new();
    for device in devices {
        if let Some(rom) = &device.guest.rom {
            all.push(one(&format!("the ROM of `{}`", device.id), rom, Need::Read));
        }
    }
    // The device's own node mvm gives to the user, and `/dev/iommu` is handed over open.
    let vfio = |device: &HostDevice| !matches!(device.kind, HostDeviceKind::Usb(_));
    if !iommufd && devices.iter().any(vfio) {
        all.push(one("VFIO", Path::new("/dev/vfio/vfio"), Need::Write));
    }
    all
}

/// The directory above mvm's own; mvm opens what it made itself.
fn above(dir: &Path) -> Option<PathBuf> {
    let own = dir.parent()?;
    own.ancestors()
        .skip(1)
        .find(|dir| dir.exists())
        .map(Path::to_owned)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_gpu_that_computes_pictures_is_among_what_is_opened() {
        let dri = tempfile::tempdir().unwrap();
        let at = |name: &str| dri.path().join(name);
        std::fs::write(at("card0"), "").unwrap();
        std::fs::write(at("renderD128"), "").unwrap();
        let with = |rendernode: Option<&str>| Desktop {
            window: Window::EglHeadless {
                rendernode: rendernode.map(str::to_owned),
            },
            ..Desktop::default()
        };
        let nodes = |desktop: &Desktop| render_nodes(desktop, dri.path());
        assert!(nodes(&Desktop::default()).is_empty());
        assert_eq!(nodes(&with(None)), [at("renderD128")]);
        assert_eq!(nodes(&with(Some("/dev/x"))), [Path::new("/dev/x")]);
        // QEMU takes whichever it may.
        std::fs::write(at("renderD129"), "").unwrap();
        assert!(nodes(&with(None)).is_empty());
    }
}
