//! `<disk>`

use super::devices::{count, name, virtio};
use super::draft::{Draft, id};
use super::reader::El;
use super::{address, boot, tuning};

pub(super) fn disks(all: El<'_>, out: &mut Draft) {
    for one in all.children("disk") {
        disk(one, out);
    }
}

pub(super) fn disk(one: El<'_>, out: &mut Draft) {
    let target = one.child("target");
    let dev = target
        .and_then(|target| target.attr("dev"))
        .unwrap_or("disk");
    let bus = target.and_then(|target| target.read("bus", bus));
    let bus = bus.or_else(|| usual_bus(dev));
    // The name is taken before the disk may turn out to be none of mvm's: arguments for QEMU may name it.
    let mut name = name(one, alias(one, dev, bus), out);
    if !name.starts_with("ua-") {
        // The guest's name of the disk is the one that people know.
        let own = id(&format!("{}{dev}", out.prefix));
        out.rename(&name, &own);
        name = own;
    }
    let table = format!("disk.{name}");
    let media = match one.attr("device") {
        None | Some("disk") => "disk",
        Some("cdrom") => "cdrom",
        Some("floppy") => "floppy",
        Some("lun") => {
            return out.left(
                one,
                "mvm hands no SCSI commands through to a disk of the host (`device='lun'`)",
            );
        }
        Some(_) => return out.left(one, "mvm has no such drive"),
    };
    out.left_attr(one, "snapshot", "mvm takes no snapshots");
    for attribute in ["rawio", "sgio"] {
        out.left_attr(one, attribute, "mvm hands no SCSI commands through");
    }
    let Some(bus) = bus else {
        return out.left(one, "mvm has no disks on such a bus");
    };
    if !source(one, &table, media, out) {
        return;
    }
    out.put(
        one,
        &table,
        "bus",
        if media == "floppy" { "floppy" } else { bus },
    );
    if media == "cdrom" {
        out.put(one, &table, "media", "cdrom");
    }
    out.bootable.push((
        match media {
            "cdrom" => "cdrom",
            "floppy" => "fd",
            _ => "hd",
        },
        table.clone(),
    ));
    if bus == "scsi" {
        if let Some(place) = one.all().find(|part| part.name() == "address") {
            let controller = place.peek("controller").unwrap_or("0");
            out.put(one, &table, "controller", format!("scsi{controller}"));
        }
    }
    if let Some(target) = target {
        if let Some(rate) = count(target, "rotation_rate") {
            out.put(target, &table, "rotation-rate", rate);
        }
        // Whether the tray is open now is no part of the definition.
        let _ = target.attr("tray");
        out.left_attr(target, "removable", "mvm's disks are no removable ones");
    }
    if let Some(driver) = one.child("driver") {
        self::driver(driver, &table, out);
    }
    details(one, &table, media, out);
    boot::own(one, &table, out);
    let placed = matches!(bus, "virtio" | "nvme").then_some(table.as_str());
    address::place(one, placed, out);
}

fn bus(bus: &str) -> Option<&'static str> {
    Some(match bus {
        "virtio" => "virtio",
        "scsi" => "scsi",
        "sata" => "sata",
        "ide" => "ide",
        "usb" => "usb",
        "fdc" => "floppy",
        "nvme" => "nvme",
        _ => return None,
    })
}

/// What libvirt takes the first letters of the name for.
fn usual_bus(dev: &str) -> Option<&'static str> {
    Some(match dev.get(..2)? {
        "vd" => "virtio",
        "sd" => "scsi",
        "hd" => "ide",
        "fd" => "floppy",
        _ => return None,
    })
}

/// libvirt's alias, made of the bus and the place there.
fn alias(one: El<'_>, dev: &str, bus: Option<&str>) -> String {
    let place = one
        .all()
        .find(|part| part.name() == "address" && part.peek("type") == Some("drive"));
    let part = |name| place.and_then(|place| place.peek(name)).unwrap_or("0");
    match bus {
        Some("scsi") => format!(
            "scsi{}-{}-{}-{}",
            part("controller"),
            part("bus"),
            part("target"),
            part("unit")
        ),
        Some(bus @ ("sata" | "ide")) => format!(
            "{bus}{}-{}-{}",
            part("controller"),
            part("bus"),
            part("unit")
        ),
        Some("floppy") => format!("fdc{}-{}-{}", part("controller"), part("bus"), part("unit")),
        bus => format!("{}-disk{}", bus.unwrap_or("disk"), letters(dev)),
    }
}

/// The number of a disk by its letters: `vda` is 0, `vdaa` 26.
fn letters(dev: &str) -> usize {
    let letters = dev.get(2..).unwrap_or_default().bytes();
    let letters = letters.take_while(u8::is_ascii_lowercase).take(6);
    let sum = letters.fold(0, |sum, letter| sum * 26 + usize::from(letter - b'a') + 1);
    sum.saturating_sub(1)
}

/// What the disk is on the host; `false` where mvm cannot have it.
fn source(one: El<'_>, table: &str, media: &str, out: &mut Draft) -> bool {
    let kind = one.attr("type").unwrap_or("file");
    let why = match kind {
        "file" | "block" => "",
        "vhostuser" => "",
        "network" => {
            "mvm opens no images over the network (rbd, nbd, iscsi, http …); a block device that the host maps does"
        }
        "volume" => {
            "mvm knows no pools: `virsh vol-path` tells the path of a volume, for `file.path`"
        }
        "dir" => "mvm makes no disk of a folder (vvfat); a `[share.NAME]` shows one to the guest",
        "nvme" => "mvm gives a whole NVMe disk to a guest as a PCI device, `[pci.NAME]`",
        _ => "mvm has no such kind of disk",
    };
    if !why.is_empty() {
        out.left(one, why);
        return false;
    }
    let source = one.child("source");
    if kind == "vhostuser" {
        if let Some(path) = source.and_then(|source| source.attr("path")) {
            source.and_then(|source| source.attr("type"));
            out.put(one, table, "vhost-user.socket", path);
        }
        return true;
    }
    let path = source.and_then(|source| source.attr(if kind == "file" { "file" } else { "dev" }));
    let Some(path) = path else {
        if media == "disk" {
            out.left(one, "it has no image");
            return false;
        }
        out.put(one, table, "empty", true);
        return true;
    };
    let within = source.into_iter().flat_map(El::all).chain(one.all());
    if within.into_iter().any(|part| part.name() == "encryption") {
        // Its bytes as they are would be no disk to the guest.
        out.left(one, "mvm opens no encrypted images, and copies no secrets");
        return false;
    }
    let driver = one.all().find(|part| part.name() == "driver");
    let format = match driver.and_then(|driver| driver.peek("type")) {
        None => "raw",
        Some(format @ ("raw" | "qcow2")) => format,
        Some(_) => {
            out.left(
                one,
                "mvm opens raw and qcow2 images: `mvm disk import` makes one of it",
            );
            return false;
        }
    };
    if let Some(source) = source {
        source.attr("index");
        out.left_attr(
            source,
            "startupPolicy",
            "a guest of mvm does not start without its disks",
        );
        for inner in source.all().collect::<Vec<_>>() {
            let why = match inner.name() {
                "seclabel" => "mvm gives no labels to images",
                "slices" => "mvm opens whole images",
                _ => "mvm's images have no such part",
            };
            out.left(inner.enter(), why);
        }
    }
    out.put(source.unwrap_or(one), table, "file.path", path);
    out.put(driver.unwrap_or(one), table, "file.format", format);
    true
}

fn driver(driver: El<'_>, table: &str, out: &mut Draft) {
    let _the_only_one = driver.is("name", "qemu");
    driver.attr("type");
    let cache = driver.read("cache", |cache| (cache != "default").then_some(cache));
    if let Some(cache) = cache {
        out.put(driver, table, "cache", cache);
    }
    let _ = driver.is("cache", "default");
    if let Some(io) = driver.attr("io") {
        out.put(driver, table, "aio", io);
    }
    if let Some(policy) = driver.read("error_policy", policy) {
        out.put(driver, table, "werror", policy);
        if policy != "enospc" && driver.peek("rerror_policy").is_none() {
            out.put(driver, table, "rerror", policy);
        }
    }
    if let Some(policy) = driver.read("rerror_policy", policy) {
        out.put(driver, table, "rerror", policy);
    }
    match driver.attr("discard") {
        Some("unmap") => out.put(driver, table, "discard", true),
        Some("ignore") => out.put(driver, table, "discard", false),
        Some(_) => out.told(driver, "mvm knows no such `discard`"),
        None => {}
    }
    if let Some(word) = driver.attr("detect_zeroes") {
        out.put(driver, table, "detect-zeroes", word);
    }
    if let Some(thread) = driver.attr("iothread") {
        out.put(driver, table, "iothread", tuning::iothread(thread));
    }
    for (attribute, key) in [("queues", "queues"), ("queue_size", "queue-size")] {
        if let Some(many) = count(driver, attribute) {
            out.put(driver, table, key, many);
        }
    }
    if driver.flag("copy_on_read") == Some(true) {
        out.told(driver, "mvm does not copy into an overlay what is read");
    }
    virtio(driver, table, out);
}

fn policy(word: &str) -> Option<&'static str> {
    Some(match word {
        "stop" => "stop",
        "report" => "report",
        "ignore" => "ignore",
        "enospace" => "enospc",
        _ => return None,
    })
}

fn details(one: El<'_>, table: &str, media: &str, out: &mut Draft) {
    if let Some(found) = one.child("readonly") {
        if media == "cdrom" {
            out.fine(found, "every CD-ROM is");
        } else {
            out.put(found, table, "read-only", true);
        }
    }
    if let Some(found) = one.child("transient") {
        out.left_attr(
            found,
            "shareBacking",
            "QEMU's locks keep two guests from one image, whoever of them writes",
        );
        out.put(found, table, "ephemeral", true);
    }
    for key in ["serial", "wwn", "vendor", "product"] {
        if let Some(found) = one.child(key) {
            out.put(found, table, key, found.text());
        }
    }
    if let Some(sizes) = one.child("blockio") {
        for (attribute, key) in [
            ("logical_block_size", "logical-block-size"),
            ("physical_block_size", "physical-block-size"),
        ] {
            if let Some(bytes) = count(sizes, attribute) {
                out.put(sizes, table, key, bytes);
            }
        }
        out.left_attr(sizes, "discard_granularity", "mvm leaves it as QEMU has it");
    }
    if let Some(tune) = one.child("iotune") {
        throttle(tune, table, out);
    }
    for (part, why) in [
        ("shareable", "mvm lets no two guests write to one image"),
        (
            "auth",
            "mvm opens no images over the network, and copies no secrets",
        ),
        ("geometry", "mvm leaves the geometry to QEMU"),
        ("mirror", "a job of a running guest"),
        (
            "throttlefilters",
            "groups of limits are said at the disk: `throttle.group`",
        ),
    ] {
        if let Some(found) = one.child(part) {
            out.left(found, why);
        }
    }
    if let Some(found) = one.child("backingStore") {
        out.fine(found, "an image says itself what lies below it");
    }
}

fn throttle(tune: El<'_>, table: &str, out: &mut Draft) {
    for limit in tune.all().collect::<Vec<_>>() {
        let name = limit.name();
        let key = match name {
            "group_name" => "group".to_owned(),
            "size_iops_sec" => "iops-size".to_owned(),
            _ => match key(name) {
                Some(key) => key,
                None => continue,
            },
        };
        let limit = limit.enter();
        let key = format!("throttle.{key}");
        if name == "group_name" {
            out.put(limit, table, &key, id(&limit.text()));
            continue;
        }
        let number = limit.value(|text| text.parse().ok().filter(|number| *number >= 0));
        // 0 is no limit, which is what a limit that is left out is.
        let Some(number @ 1i64..) = number else {
            continue;
        };
        let is_size = key.contains("bps") && !key.ends_with("length") || name == "size_iops_sec";
        if is_size {
            out.put(
                limit,
                table,
                &key,
                crate::units::Size::bytes(number.unsigned_abs()).to_string(),
            );
        } else {
            out.put(limit, table, &key, number);
        }
    }
}

/// `total_bytes_sec_max_length` is `bps-total-max-length`.
fn key(name: &str) -> Option<String> {
    let (which, rest) = name.split_once('_')?;
    if !["total", "read", "write"].contains(&which) {
        return None;
    }
    let (what, tail) = rest.split_once("_sec")?;
    let what = match what {
        "bytes" => "bps",
        "iops" => "iops",
        _ => return None,
    };
    let tail = match tail {
        "" | "_max" | "_max_length" => tail.replace('_', "-"),
        _ => return None,
    };
    Some(format!("{what}-{which}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_names_of_their_own() {
        for (name, is) in [
            ("total_bytes_sec", Some("bps-total")),
            ("read_iops_sec_max", Some("iops-read-max")),
            ("write_bytes_sec_max_length", Some("bps-write-max-length")),
            ("total_bytes_sec_often", None),
            ("all_bytes_sec", None),
        ] {
            assert_eq!(key(name).as_deref(), is, "{name}");
        }
        for (dev, number) in [("vda", 0), ("sdz", 25), ("vdaa", 26), ("vd", 0), ("ä", 0)] {
            assert_eq!(letters(dev), number, "{dev}");
        }
    }
}
