//! `<hostdev>`: devices of the host.

use super::address;
use super::boot;
use super::devices::{Counts, name};
use super::draft::Draft;
use super::reader::{El, short};

/// A device of the host; `all` are the devices of the domain.
pub(super) fn hostdev(one: El<'_>, all: El<'_>, counts: &mut Counts, out: &mut Draft) {
    let usual = format!("hostdev{}", counts.hostdev);
    counts.hostdev += 1;
    // mvm takes a device from its driver and gives it back, whoever asks.
    let _ = one.flag("managed");
    let _the_usual_mode = one.is("mode", "subsystem");
    match one.peek("type") {
        _ if one.peek("mode") == Some("capabilities") => out.left(one, "that is for containers"),
        Some("pci") => pci(one, all, usual, out),
        Some("usb") => usb(one, usual, out),
        Some("mdev") => mdev(one, usual, out),
        Some("scsi") => out.left(one, "mvm hands no single SCSI device through; a disk of the host is `[disk.NAME]`, its controller `[pci.NAME]`"),
        Some("scsi_host") => out.left(one, "mvm has no vhost-scsi"),
        _ => out.left(one, "mvm has no such device of the host"),
    }
}

/// The address of a function of the host, as in `0000:01:00.0`.
fn bdf(source: El<'_>) -> Option<(u64, u64, u64, u64)> {
    let at = source.child("address")?;
    // One that is not understood is another device, and not that of the first domain.
    let domain = match at.peek("domain") {
        Some(_) => at.number("domain")?,
        None => 0,
    };
    let found = (
        domain,
        at.number("bus")?,
        at.number("slot")?,
        at.number("function")?,
    );
    let _ = at.is("type", "pci");
    Some(found)
}

fn pci(one: El<'_>, all: El<'_>, usual: String, out: &mut Draft) {
    one.attr("type");
    let source = one.child("source");
    let Some((domain, bus, slot, function)) = source.and_then(bdf) else {
        return out.left(one, "it names no device");
    };
    if let Some(source) = source {
        if !source.is("writeFiltering", "yes") {
            out.left_attr(
                source,
                "writeFiltering",
                "QEMU filters what the guest writes to the device's configuration",
            );
        }
    }
    let text = format!("{domain:04x}:{bus:02x}:{slot:02x}.{function:x}");
    // Intel's integrated GPU is at this address on every host that has one.
    let table =
        if (domain, bus, slot) == (0, 0, 2) && !out.has("gpu", "vf") && !out.has("gpu", "whole") {
            let guest = one.all().find(|part| part.name() == "address");
            let guest = guest
                .and_then(|guest| guest.peek("slot"))
                .and_then(super::reader::number);
            let beside = all.all().any(|other| {
                let model = other.all().find(|part| part.name() == "model");
                other.name() == "video"
                    && model.and_then(|model| model.peek("type")) != Some("none")
            });
            let id = name(one, usual, out);
            out.rename(&id, "gpu");
            if function > 0 {
                out.say(
                "gpu",
                "Intel's integrated GPU is 0000:00:02.0; its functions from 1 on are virtual ones.",
            );
                out.put(
                    one,
                    "gpu",
                    "vf",
                    i64::try_from(function).unwrap_or(i64::MAX),
                );
            } else if beside && guest != Some(2) {
                out.say(
                    "gpu",
                    "0000:00:02.0 is Intel's integrated GPU, here beside another display.",
                );
                out.put(one, "gpu", "upt", true);
            } else {
                out.say("gpu", "0000:00:02.0 is Intel's integrated GPU.");
                out.put(one, "gpu", "whole", true);
            }
            if let Some(place) = one.child("address") {
                out.fine(place, "mvm puts Intel's GPU where its drivers look for it");
            }
            "gpu".to_owned()
        } else {
            let table = format!("pci.{}", name(one, usual, out));
            out.put(one, &table, "address", text);
            table
        };
    details(one, &table, out);
}

/// What libvirt says of a function beside its address.
fn details(one: El<'_>, table: &str, out: &mut Draft) {
    if let Some(rom) = one.child("rom") {
        if let Some(file) = rom.attr("file") {
            out.put(rom, table, "rom", file);
        }
        let shown = rom.flag("bar").or_else(|| rom.flag("enabled"));
        if shown == Some(false) {
            out.put(rom, table, "rom-bar", false);
        }
        let _ = rom.flag("enabled");
    }
    if let Some(driver) = one.child("driver") {
        let _the_only_one = driver.is("name", "vfio");
        if let Some(model) = driver.attr("model") {
            out.put(driver, table, "driver", model);
        }
        if driver.is("iommufd", "yes") {
            out.put(driver, "vfio", "backend", "iommufd");
        }
    }
    if let Some(boot) = one.child("boot") {
        out.left(boot, "mvm starts guests from disks and cards of its own, and leaves other devices to the firmware");
    }
    if let Some(teaming) = one.child("teaming") {
        out.left(teaming, "mvm pairs no cards");
    }
    address::place(one, None, out);
}

/// `<interface type='hostdev'>`: a function of a network card, with an address of its own.
pub(super) fn interface(one: El<'_>, counts: &mut Counts, out: &mut Draft) {
    let usual = format!("hostdev{}", counts.hostdev);
    counts.hostdev += 1;
    let _ = one.flag("managed");
    let source = one.child("source");
    let Some((domain, bus, slot, function)) = source.and_then(bdf) else {
        return out.left(one, "it names no device");
    };
    let table = format!("pci.{}", name(one, usual, out));
    out.put(
        one,
        &table,
        "address",
        format!("{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"),
    );
    for (part, what) in [("mac", "mac"), ("vlan", "vlan")] {
        if let Some(found) = one.child(part) {
            let why = format!(
                "mvm sets it where the function is named by its card: `vf = {{ of = …, index = …, {what} = … }}`"
            );
            out.left(found, why);
        }
    }
    boot::own(one, &table, out);
    details(one, &table, out);
}

fn usb(one: El<'_>, usual: String, out: &mut Draft) {
    one.attr("type");
    let Some(source) = one.child("source") else {
        return out.left(one, "it names no device");
    };
    let hex = |part: Option<El<'_>>| {
        let part = part?;
        part.read("id", |text| {
            let digits = text.strip_prefix("0x").unwrap_or(text);
            u16::from_str_radix(digits, 16).ok()
        })
    };
    let ids = (hex(source.child("vendor")), hex(source.child("product")));
    let place = source.child("address");
    let (Some(vendor), Some(product)) = ids else {
        let why = "a USB device's number changes when it is plugged in again; `mvm devices usb` tells its port, for \
                   `[usb.NAME] port = …`";
        return out.left(one, why);
    };
    let table = format!("usb.{}", name(one, usual, out));
    out.put(one, &table, "id", format!("{vendor:04x}:{product:04x}"));
    if let Some(place) = place {
        if let Some(port) = place
            .attr("port")
            .filter(|_| place.peek("device").is_none())
        {
            let bus = place.attr("bus").unwrap_or_default();
            out.told(place, format!("the device is found by its ids; by its place it would be `port = \"{bus}-{}\"`", short(port)));
        } else {
            out.left(
                place,
                "a USB device's number changes when it is plugged in again; it is found by its ids",
            );
        }
    }
    out.left_attr(
        source,
        "startupPolicy",
        "a guest of mvm does not start without its devices",
    );
    out.left_attr(source, "guestReset", "mvm leaves resets to QEMU");
    if let Some(boot) = one.child("boot") {
        out.left(boot, "mvm starts guests from disks and cards of its own, and leaves other devices to the firmware");
    }
    address::place(one, None, out);
}

fn mdev(one: El<'_>, usual: String, out: &mut Draft) {
    one.attr("type");
    let source = one
        .child("source")
        .and_then(|source| source.child("address"));
    let Some(uuid) = source.and_then(|address| address.attr("uuid")) else {
        return out.left(one, "it names no device");
    };
    if one.peek("model").is_some_and(|model| model != "vfio-pci") {
        return out.left(one, "mvm has mediated devices of PCI only");
    }
    one.attr("model");
    let id = name(one, usual, out);
    out.put(one, &format!("mdev.{id}"), "uuid", uuid);
    for key in ["display", "ramfb"] {
        // Off is what QEMU does of itself, but for `display`, which it then decides by the device.
        if let Some(on) = one.flag(key) {
            if key == "display" || on {
                let word = if on { "on" } else { "off" };
                out.put(one, &format!("override.{id}"), key, word);
            }
        }
    }
    if let Some(boot) = one.child("boot") {
        out.left(boot, "mvm starts guests from disks and cards of its own");
    }
    address::place(one, None, out);
}
