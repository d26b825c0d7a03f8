//! The user as whom QEMU runs, and what of his rights it needs.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::desktop::Window;
use super::files::shown;
use super::memory::RamKind;
use super::{
    AccelKind, Addition, Desktop, Disk, End, Firmware, HostDevice, HostDeviceKind, Machine,
    NicBackend, ResolveError,
};
use crate::error::{ExitCode, Hint};
use crate::host::UserFacts;
use crate::host::rights::{self, Denied, Need, Needed};
use crate::host::users::{Asked, Ids};
use crate::profile::schema::{Layer, SecurityModel};

/// Another user than the one who runs mvm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RunAs {
    /// The name.
    pub name: String,
    /// The user.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// The other groups: the user's own, and that of `/dev/kvm`.
    pub groups: Vec<u32>,
}

/// QEMU cannot run as that user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunAsError {
    /// The host knows no such user.
    #[error("QEMU is to run as the user `{0}`, whom this host does not know")]
    Nobody(String),
    /// Only root can become somebody else.
    #[error("QEMU is to run as the user `{0}`, which only root can arrange")]
    NotRoot(String),
    /// Only root may keep other people's owners.
    #[error(
        "share `{share}`: the security model `passthrough` needs root's rights, and QEMU is to run as the user `{user}`"
    )]
    Passthrough {
        /// The share.
        share: String,
        /// The user.
        user: String,
    },
    /// A file that would have to be made for the user in a folder that is not mvm's.
    #[error("`firmware.nvram`: {} is not in mvm's own folders, and QEMU is to run as the user `{user}`", path.display())]
    Nvram {
        /// The file.
        path: PathBuf,
        /// The user.
        user: String,
    },
    /// Files that the user may not open.
    #[error("the user `{user}`, as whom QEMU is to run, may not {}", first(denied))]
    Denied {
        /// The user.
        user: String,
        /// What stands in the way.
        denied: Vec<Denied>,
    },
    /// This process may not ask.
    #[error("what the user `{user}` may open cannot be found out: {why}")]
    Unknown {
        /// The user.
        user: String,
        /// What the system said.
        why: String,
    },
}

fn first(denied: &[Denied]) -> String {
    denied.first().map_or_else(String::new, |denied| {
        let Denied { what, path, need } = denied;
        format!("{} {} ({what})", need.as_str(), path.display())
    })
}

/// What lets the user in.
fn fix(user: &str, denied: &Denied) -> String {
    let path = shown(&denied.path);
    match denied.need {
        _ if denied.path.starts_with("/dev") => {
            format!("`chgrp GROUP {path} && chmod 660 {path}` with a group of {user}'s")
        }
        Need::Search => format!(
            "`chmod o+x {path}` lets everybody through, `setfacl -m u:{user}:x {path}` that user alone"
        ),
        Need::Write | Need::Change => format!("`chown {user} {path}` makes it that user's"),
        Need::Read | Need::Run | Need::List => {
            let mode = if denied.need == Need::Read { "r" } else { "rx" };
            format!(
                "`chmod o+{mode} {path}` lets everybody read it, `setfacl -m u:{user}:{mode} {path}` that user alone"
            )
        }
    }
}

impl Hint for RunAsError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Nobody(name) => vec![format!(
                "`useradd --system --user-group --shell /usr/sbin/nologin {name}` makes one; `security.user` names another"
            )],
            Self::NotRoot(_) => {
                vec!["run mvm as root, or leave `security.user` out of the profile".to_owned()]
            }
            Self::Passthrough { .. } => {
                vec!["`security-model = \"mapped-xattr\"` needs no rights".to_owned()]
            }
            Self::Denied { user, denied } => {
                let mut hints: Vec<String> = denied.iter().map(|no| fix(user, no)).collect();
                hints.dedup();
                hints
            }
            Self::Nvram { .. } => {
                vec!["leave `firmware.nvram` out: mvm keeps a store for each guest".to_owned()]
            }
            Self::Unknown { .. } => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Passthrough { .. } | Self::Nvram { .. } => ExitCode::Profile,
            Self::NotRoot(_) | Self::Unknown { .. } => ExitCode::Failed,
            Self::Nobody(_) | Self::Denied { .. } => ExitCode::Host,
        }
    }
}

/// The name of the user whom a profile asks for.
pub fn user(layer: &Layer) -> Option<&str> {
    layer.security.as_ref()?.user.as_deref()
}

/// The user whom the profile asks for, unless it is the one who runs mvm.
pub(super) fn resolve(
    layer: &Layer,
    users: &UserFacts,
    accel: AccelKind,
) -> Result<Option<RunAs>, RunAsError> {
    let Some(name) = user(layer) else {
        return Ok(None);
    };
    let asked = users.asked.as_ref().filter(|asked| asked.name == name);
    let Some(Asked {
        found: Some(found), ..
    }) = asked
    else {
        return Err(RunAsError::Nobody(name.to_owned()));
    };
    if found.uid == users.uid {
        return Ok(None);
    }
    if users.uid != 0 {
        return Err(RunAsError::NotRoot(name.to_owned()));
    }
    let mut groups = found.groups.clone();
    let kvm = users.kvm_group.filter(|_| accel == AccelKind::Kvm);
    groups.extend(kvm.filter(|group| *group != found.gid && !found.groups.contains(group)));
    Ok(Some(RunAs {
        name: name.to_owned(),
        uid: found.uid,
        gid: found.gid,
        groups,
    }))
}

/// Shares that another user than root cannot serve.
pub(super) fn check(machine: &Machine) -> Result<(), RunAsError> {
    let Some(user) = &machine.run_as else {
        return Ok(());
    };
    if let Firmware::Flash {
        vars: Some(vars), ..
    } = &machine.firmware
    {
        if !vars.path.starts_with(&machine.state_dir) {
            return Err(RunAsError::Nvram {
                path: vars.path.clone(),
                user: user.name.clone(),
            });
        }
    }
    let passthrough = |model| model == SecurityModel::Passthrough;
    match machine
        .shares
        .iter()
        .find(|share| passthrough(share.security_model))
    {
        Some(share) => Err(RunAsError::Passthrough {
            share: share.id.to_string(),
            user: user.name.clone(),
        }),
        None => Ok(()),
    }
}

impl RunAs {
    fn ids(&self) -> Ids {
        Ids {
            uid: self.uid,
            gid: self.gid,
            groups: self.groups.clone(),
        }
    }

    /// Looks whether the user may open all of that.
    ///
    /// # Errors
    /// What he may not open.
    fn expect(&self, mut needed: Vec<Needed>) -> Result<(), RunAsError> {
        let mut below = Vec::new();
        for Needed { what, path, .. } in &needed {
            if what.starts_with("disk ") {
                below.extend(rights::backing_files(path).into_iter().map(|path| Needed {
                    what: format!("below {what}"),
                    path,
                    need: Need::Read,
                }));
            }
        }
        needed.append(&mut below);
        match rights::denied(&self.ids(), &needed) {
            Ok(denied) if denied.is_empty() => Ok(()),
            Ok(mut denied) => {
                // One directory may be on the way to many files.
                let mut seen: Vec<PathBuf> = Vec::new();
                denied.retain(|no| {
                    let new = !seen.contains(&no.path);
                    seen.push(no.path.clone());
                    new
                });
                Err(RunAsError::Denied {
                    user: self.name.clone(),
                    denied,
                })
            }
            Err(error) => Err(RunAsError::Unknown {
                user: self.name.clone(),
                why: error.to_string(),
            }),
        }
    }
}

impl Machine {
    /// Looks whether the user as whom QEMU runs may open what the guest is made of. It reads the host, as
    /// only the kernel knows what another user may do.
    ///
    /// # Errors
    /// What he may not open.
    pub fn expect_rights(&self) -> Result<(), ResolveError> {
        match &self.run_as {
            Some(user) => Ok(user.expect(needed(self))?),
            None => Ok(()),
        }
    }

    /// The same for one file that QEMU is to read.
    ///
    /// # Errors
    /// What he may not open.
    pub fn expect_rights_to_read(&self, what: &str, path: &Path) -> Result<(), ResolveError> {
        match &self.run_as {
            Some(user) => Ok(user.expect(vec![one(what, path, Need::Read)])?),
            None => Ok(()),
        }
    }

    /// The same for devices that come while the guest runs.
    ///
    /// # Errors
    /// What he may not open.
    pub fn expect_rights_for(&self, addition: &Addition) -> Result<(), ResolveError> {
        let Some(user) = &self.run_as else {
            return Ok(());
        };
        let mut needed = disks(&addition.disks);
        needed.extend(host(&addition.host.devices, addition.iommufd));
        Ok(user.expect(needed)?)
    }
}

fn one(what: &str, path: &Path, need: Need) -> Needed {
    Needed {
        what: what.to_owned(),
        path: path.to_owned(),
        need,
    }
}

/// Everything that QEMU opens by its path and mvm has not made.
fn needed(machine: &Machine) -> Vec<Needed> {
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
    for (what, end) in super::ports::ends(machine) {
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

fn disks(disks: &[Disk]) -> Vec<Needed> {
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

fn host(devices: &[HostDevice], iommufd: bool) -> Vec<Needed> {
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
    use crate::profile::schema::SecurityTable;

    fn layer(user: &str) -> Layer {
        Layer {
            security: Some(SecurityTable {
                user: Some(user.to_owned()),
            }),
            ..Layer::default()
        }
    }

    fn users(uid: u32, found: Option<u32>) -> UserFacts {
        UserFacts {
            uid,
            asked: Some(Asked {
                name: "ann".to_owned(),
                found: found.map(|uid| Ids {
                    uid,
                    gid: 100,
                    groups: vec![7],
                }),
            }),
            kvm_group: Some(104),
            kvm_for_all: false,
        }
    }

    #[test]
    fn only_root_becomes_another_user() {
        let ann = layer("ann");
        let as_ann = |users: &UserFacts, accel| resolve(&ann, users, accel);
        let user = as_ann(&users(0, Some(1000)), AccelKind::Tcg).unwrap();
        assert_eq!(user.unwrap().groups, [7]);
        // Its node is for that group.
        let user = as_ann(&users(0, Some(1000)), AccelKind::Kvm).unwrap();
        assert_eq!(user.unwrap().groups, [7, 104]);
        assert_eq!(as_ann(&users(1000, Some(1000)), AccelKind::Tcg), Ok(None));
        assert_eq!(as_ann(&users(0, Some(0)), AccelKind::Tcg), Ok(None));
        let refused = |users: &UserFacts| as_ann(users, AccelKind::Tcg).unwrap_err();
        assert_eq!(
            refused(&users(1001, Some(1000))),
            RunAsError::NotRoot("ann".to_owned())
        );
        assert_eq!(
            refused(&users(0, None)),
            RunAsError::Nobody("ann".to_owned())
        );
        let nobody_asks = resolve(&Layer::default(), &users(0, None), AccelKind::Kvm);
        assert_eq!(nobody_asks, Ok(None));
    }

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

    #[test]
    fn each_way_that_is_closed_has_a_fix() {
        let denied = |path: &str, need| Denied {
            what: "disk `a`".to_owned(),
            path: path.into(),
            need,
        };
        let error = RunAsError::Denied {
            user: "ann".to_owned(),
            denied: vec![
                denied("/srv", Need::Search),
                denied("/srv/a b", Need::Write),
                denied("/dev/kvm", Need::Write),
            ],
        };
        assert_eq!(
            error.to_string(),
            "the user `ann`, as whom QEMU is to run, may not search the directory /srv (disk `a`)"
        );
        let hints = error.hints();
        assert!(hints[0].starts_with("`chmod o+x /srv`"), "{hints:?}");
        assert!(hints[1].contains("chown ann '/srv/a b'"), "{hints:?}");
        assert!(hints[2].contains("chgrp GROUP /dev/kvm"), "{hints:?}");
    }
}
