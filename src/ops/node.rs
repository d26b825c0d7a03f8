//! Device nodes that go to the user as whom QEMU runs, and come back.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::device_error::DeviceError;
use super::driver::Function;
use super::sysfs::{Place, plain};
use super::{mdev, moment, process};
use crate::plan::step::{Node, Owner, VfioDevice};

/// Where a node is; `None` where its device has none, or is gone.
fn find(place: &Place, node: &Node) -> Result<Option<PathBuf>, DeviceError> {
    let dir = |device: &VfioDevice| match device {
        VfioDevice::Pci(pci) => Function::find(place, *pci).map(|function| function.dir),
        VfioDevice::Mdev(uuid) => mdev::exists(place, *uuid).then(|| mdev::dir_of(*uuid)),
    };
    let path = match node {
        Node::Group(device) => dir(device)
            .and_then(|dir| place.link_name(dir.join("iommu_group")))
            .map(|group| place.dev.join("vfio").join(group)),
        Node::Own(device) => dir(device)
            .and_then(|dir| place.list(dir.join("vfio-dev")).into_iter().next())
            .map(|name| place.dev.join("vfio/devices").join(name)),
        // The names that stay are links. Whatever they lead to: what is no keyboard or pointer is nobody's to give.
        Node::Input(path) => path
            .strip_prefix("/dev/input")
            .ok()
            .and_then(|name| place.dev.join("input").join(name).canonicalize().ok())
            .filter(|path| is_event(place, path)),
        Node::Usb { name, .. } => {
            plain(name)?;
            let dir = Path::new("bus/usb/devices").join(name);
            let number = |file| place.number::<u32>(dir.join(file));
            number("busnum")
                .zip(number("devnum"))
                .map(|(bus, device)| place.dev.join(format!("bus/usb/{bus:03}/{device:03}")))
        }
    };
    Ok(path.filter(|path| path.symlink_metadata().is_ok()))
}

fn is_event(place: &Place, path: &Path) -> bool {
    let number = path
        .file_name()
        .and_then(|name| name.to_str()?.strip_prefix("event"));
    let dir = place.dev.join("input").canonicalize();
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
        && dir.is_ok_and(|dir| path.parent() == Some(dir.as_path()))
}

fn owner(place: &Place, path: &Path) -> Result<Owner, DeviceError> {
    let meta = path.symlink_metadata().map_err(DeviceError::read(path))?;
    // Nodes of a host that is a tree are files.
    if !meta.file_type().is_char_device() && (place.is_real() || !meta.is_file()) {
        let odd = io::Error::new(io::ErrorKind::InvalidInput, "it is no device node");
        return Err(DeviceError::read(path)(odd));
    }
    Ok(Owner {
        uid: meta.uid(),
        mode: meta.mode() & 0o7777,
    })
}

/// For udev to have dealt with what is new.
const SETTLE: Duration = Duration::from_secs(10);

/// Lets udev give a new node the owner of its rules first: done later, that would take away what mvm gives.
fn settle(place: &Place) {
    if !place.is_real() || !Path::new("/run/udev/control").exists() {
        return;
    }
    let Some(program) = process::find("udevadm", None) else {
        return;
    };
    let limit = format!("--timeout={}", SETTLE.as_secs());
    let done = process::run(
        &program,
        &["settle", &limit],
        SETTLE + Duration::from_secs(5),
    );
    if let Err(error) = done {
        tracing::debug!(%error, "udev may be at work still");
    }
}

/// Whose it is now.
pub(crate) fn observe(place: &Place, node: &Node) -> Result<Option<Owner>, DeviceError> {
    settle(place);
    match find(place, node)? {
        Some(path) => owner(place, &path).map(Some),
        None => Ok(None),
    }
}

/// Gives it to a user.
pub(crate) fn give(place: &Place, node: &Node, to: Owner) -> Result<(), DeviceError> {
    let path = find(place, node)?.ok_or_else(|| DeviceError::Gone {
        device: node.to_string(),
    })?;
    let now = owner(place, &path)?;
    if now.uid != to.uid {
        change(&path, |path| lchown(path, Some(to.uid), None))?;
    }
    if now.mode != to.mode {
        change(&path, |path| set_mode(path, to.mode))?;
    }
    expect(place, &path, to)
}

/// Puts it back as it was. A node that is another's by now is not the one that was given: the kernel has
/// made a new one under its name, or somebody has decided anew.
pub(crate) fn take_back(
    place: &Place,
    node: &Node,
    to: Owner,
    from: Option<Owner>,
) -> Result<(), DeviceError> {
    let (Some(path), Some(from)) = (find(place, node)?, from) else {
        return Ok(());
    };
    let now = owner(place, &path)?;
    if now.uid != to.uid {
        return Ok(());
    }
    // The user last: until then it is known as given.
    if now.mode != from.mode {
        change(&path, |path| set_mode(path, from.mode))?;
    }
    if now.uid != from.uid {
        change(&path, |path| lchown(path, Some(from.uid), None))?;
    }
    expect(place, &path, from)
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn change(path: &Path, change: impl Fn(&Path) -> io::Result<()>) -> Result<(), DeviceError> {
    moment::pass();
    let done = change(path);
    moment::pass();
    match done {
        // Pulled out meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(|source| DeviceError::Node {
            path: path.to_owned(),
            source,
        }),
    }
}

fn expect(place: &Place, path: &Path, wanted: Owner) -> Result<(), DeviceError> {
    if !path.exists() || owner(place, path)? == wanted {
        return Ok(());
    }
    let source = io::Error::other("the kernel took it without effect");
    Err(DeviceError::Node {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_keyboards_and_pointers_are_found_by_a_name_for_input() {
        let top = tempfile::tempdir().unwrap();
        let input = top.path().join("dev/input");
        fs::create_dir_all(input.join("by-id")).unwrap();
        for name in ["sda", "input/event7", "input/mouse0"] {
            fs::write(top.path().join("dev").join(name), "").unwrap();
        }
        let link = |to: &str, name: &str| {
            std::os::unix::fs::symlink(to, input.join("by-id").join(name)).unwrap();
        };
        link("../event7", "keyboard");
        link("../mouse0", "mouse");
        link("../../sda", "disk");
        crate::ops::set_stand_in(Some(top.path()));
        let place = Place::new(&top.path().join("host"));
        let named = |name: &str| Node::Input(Path::new("/dev/input/by-id").join(name));
        let found = find(&place, &named("keyboard")).unwrap();
        assert_eq!(found, Some(input.join("event7").canonicalize().unwrap()));
        for name in ["mouse", "disk", "none"] {
            assert_eq!(find(&place, &named(name)).unwrap(), None, "{name}");
        }
        crate::ops::set_stand_in(None);
    }
}
