//! `<devices>`: each to the file of its family.

use super::draft::{Draft, id};
use super::error::ImportError;
use super::reader::El;
use super::{channels, controllers, disk, display, domain, hostdev, net, small};

/// How many of a kind there have been, as libvirt numbers its aliases.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) hostdev: usize,
    pub(super) net: usize,
}

/// What this importer has a file for.
const DEVICES: [&str; 28] = [
    "disk",
    "controller",
    "interface",
    "hostdev",
    "input",
    "graphics",
    "video",
    "sound",
    "audio",
    "channel",
    "serial",
    "console",
    "parallel",
    "rng",
    "memballoon",
    "tpm",
    "watchdog",
    "panic",
    "vsock",
    "filesystem",
    "shmem",
    "iommu",
    "redirdev",
    "redirfilter",
    "hub",
    "smartcard",
    "memory",
    "lease",
];

/// Whether the outermost element is a device by itself. A network interface of the host has a name.
pub(super) fn is_device(root: El<'_>) -> bool {
    DEVICES.contains(&root.name()) && !(root.name() == "interface" && root.peek("name").is_some())
}

/// Refuses a list of what is not devices: several domains in one file, and what is no XML at all.
pub(super) fn refuse_others(list: El<'_>) -> Result<(), ImportError> {
    let domains = list.all().filter(|one| one.name() == "domain").count();
    let more = list.all().count() > domains;
    match list.all().next() {
        None => Err(ImportError::NotXml),
        Some(_) if domains > 0 => Err(ImportError::Domains { domains, more }),
        Some(first) if !list.all().any(is_device) => Err(domain::not_one(first)),
        Some(_) => Ok(()),
    }
}

/// The devices of a domain.
pub(super) fn devices(all: El<'_>, out: &mut Draft) {
    if let Some(emulator) = all.child("emulator") {
        self::emulator(emulator, out);
    }
    fragment(all, out);
    small::without_balloon(all, out);
}

/// Devices that come to a guest.
pub(super) fn fragment(all: El<'_>, out: &mut Draft) {
    let mut counts = Counts::default();
    controllers::controllers(all, out);
    disk::disks(all, out);
    for one in all.children("interface") {
        net::interface(one, &mut counts, out);
    }
    for one in all.children("hostdev") {
        hostdev::hostdev(one, all, &mut counts, out);
    }
    display::displays(all, out);
    channels::channels(all, out);
    small::small(all, out);
}

/// The outermost element is one device.
pub(super) fn one(root: El<'_>, out: &mut Draft) {
    let mut counts = Counts::default();
    match root.name() {
        "hostdev" => hostdev::hostdev(root, root, &mut counts, out),
        "interface" => net::interface(root, &mut counts, out),
        "disk" => disk::disk(root, out),
        _ => out.left(
            root,
            "by itself it is no device that mvm adds; put it into `<devices>`",
        ),
    }
}

/// The name of a device's table: the alias that the user gave it, else the one that libvirt would.
pub(super) fn name(device: El<'_>, usual: String, out: &mut Draft) -> String {
    let alias = device.child("alias").and_then(|alias| alias.attr("name"));
    let name = match alias {
        Some(own) if own.starts_with("ua-") => id(own),
        _ => id(&format!("{}{usual}", out.prefix)),
    };
    if let Some(alias) = alias {
        out.aliases.insert(alias.to_owned(), name.clone());
    }
    out.aliases.insert(usual, name.clone());
    name
}

/// A device of which a guest has one, which mvm names itself; `None` where arguments for QEMU cannot lead to it.
pub(super) fn single(device: El<'_>, usual: &str, id: Option<&str>, out: &mut Draft) {
    let alias = device.child("alias").and_then(|alias| alias.attr("name"));
    if let Some(id) = id {
        for alias in alias.into_iter().chain([usual]) {
            out.aliases.insert(alias.to_owned(), id.to_owned());
        }
    }
}

fn emulator(emulator: El<'_>, out: &mut Draft) {
    let path = emulator.text();
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", &path));
    let usual = ["/usr/bin", "/usr/libexec", "/bin", "/usr/sbin"].contains(&folder)
        && (file.starts_with("qemu-system-") || ["kvm", "qemu-kvm", "kvm-spice"].contains(&file));
    if usual {
        out.fine(emulator, "the distribution's QEMU, which mvm finds");
    } else {
        out.put(emulator, "qemu", "binary", path.as_str());
    }
}

/// libvirt's switches of a virtio device that mvm has, too, and those that it leaves to QEMU.
pub(super) fn virtio(driver: El<'_>, table: &str, out: &mut Draft) {
    for key in ["iommu", "ats", "packed"] {
        if let Some(on) = driver.flag(key) {
            out.put(driver, table, key, on);
        }
    }
    for key in ["event_idx", "ioeventfd", "page_per_vq"] {
        out.left_attr(driver, key, "mvm leaves it as QEMU has it");
    }
}

/// A number for a key.
pub(super) fn count(element: El<'_>, name: &str) -> Option<i64> {
    element.read(name, |text| text.parse::<i64>().ok())
}
