//! Controllers: those that disks sit on are tables of their own, the rest is mvm's to make.

use super::devices::{count, name, virtio};
use super::draft::Draft;
use super::reader::El;
use super::{address, tuning, usb};

pub(super) fn controllers(all: El<'_>, out: &mut Draft) {
    let mut usbs = Vec::new();
    for one in all.children("controller") {
        match one.attr("type") {
            Some("scsi") => scsi(one, out),
            Some("usb") => usbs.push(one),
            Some("pci") => out.fine(
                one,
                "mvm lays out the PCI buses itself, the same at every start",
            ),
            Some("sata" | "ide" | "fdc" | "virtio-serial") => {
                out.fine(one, "mvm makes it where something is on it");
            }
            _ => out.left(one, "mvm has no such controller"),
        }
    }
    usb::controllers(&usbs, all, out);
}

fn scsi(one: El<'_>, out: &mut Draft) {
    let index = one.number("index").unwrap_or(0);
    let name = name(one, format!("scsi{index}"), out);
    let table = format!("controller.{name}");
    let model = match one.peek("model") {
        // As libvirt chooses where the domain does not say.
        None if out.arm => "virtio",
        None | Some("auto" | "lsilogic") => "lsi53c895a",
        Some("virtio-scsi" | "virtio-transitional" | "virtio-non-transitional") => "virtio",
        Some("lsisas1068") => "mptsas1068",
        Some("lsisas1078") => "megasas",
        Some("vmpvscsi") => "pvscsi",
        Some("dc390" | "am53c974") => "am53c974",
        Some(_) => {
            out.left(one, "mvm has no such controller; disks on it find none");
            return;
        }
    };
    one.attr("model");
    out.put(one, &table, "type", "scsi");
    out.put(one, &table, "model", model);
    if let Some(driver) = one.child("driver") {
        for (attribute, key) in [
            ("queues", "queues"),
            ("max_sectors", "max-sectors"),
            ("virtqueue_size", "queue-size"),
        ] {
            if let Some(many) = count(driver, attribute) {
                out.put(driver, &table, key, many);
            }
        }
        if let Some(thread) = driver.attr("iothread") {
            out.put(driver, &table, "iothread", tuning::iothread(thread));
        }
        out.left_attr(driver, "cmd_per_lun", "mvm leaves it as QEMU has it");
        virtio(driver, &table, out);
    }
    address::place(one, Some(&table), out);
}
