//! Devices for programs: the facts, with ids as everybody writes them and the answers beside.

use serde::Serialize;
use serde_json::{Value, json};

use super::Kind;
use crate::handover::Extent;
use crate::host::DeviceFacts;
use crate::host::devices::{Lease, Mdev, PciDevice, UsbDevice, WhyNot};
use crate::ids::PciRef;

/// Everything of a kind as a list, or all kinds by name.
pub(super) fn all(facts: &DeviceFacts, kind: Option<Kind>) -> Value {
    let functions = |wanted: &dyn Fn(&PciDevice) -> bool| -> Vec<Value> {
        let wanted = facts.pci.iter().filter(|device| wanted(device));
        wanted.map(|device| pci(facts, device)).collect()
    };
    let usb: Vec<Value> = facts.usb.iter().map(|device| usb(facts, device)).collect();
    let mdev = json!({
        "parents": facts.mdev_parents,
        "devices": facts.mdevs.iter().map(|device| mdev(facts, device)).collect::<Vec<_>>(),
    });
    match kind {
        Some(Kind::Pci) => functions(&|_| true).into(),
        Some(Kind::Gpu) => functions(&PciDevice::is_gpu).into(),
        Some(Kind::Usb) => usb.into(),
        Some(Kind::Mdev) => mdev,
        None => json!({
            "pci": functions(&|_| true),
            "usb": usb,
            "mdev": mdev,
            "iommu": facts.iommu,
            "vfio": facts.vfio,
            "consoles": facts.consoles,
            "leases": facts.leases,
        }),
    }
}

/// A PCI function.
pub(super) fn pci(facts: &DeviceFacts, device: &PciDevice) -> Value {
    let mut value = plain(device);
    value["class"] = format!("{:06x}", device.class).into();
    value["vendor"] = format!("{:04x}", device.vendor).into();
    value["device"] = format!("{:04x}", device.device).into();
    let board = |(vendor, board)| format!("{vendor:04x}:{board:04x}");
    value["subsystem"] = device.subsystem.map(board).into();
    value["revision"] = format!("{:02x}", device.revision).into();
    value["name"] = device.reference().to_string().into();
    value["physfn"] = match device.physfn {
        Some((pf, index)) => json!({ "pf": pf, "index": index }),
        None => Value::Null,
    };
    let members = device.group.map(|group| facts.group_members(group));
    let members = members.into_iter().flatten().map(|member| member.bdf);
    value["group-members"] = json!(members.collect::<Vec<_>>());
    value["mdev-types"] = json!(facts.mdev_types(device.bdf));
    value["guests"] = guests(facts, |lease| {
        match device.reference() {
            // Or a part of it: a virtual function, a device of its bus, a mediated device.
            own @ PciRef::Function(_) => Extent::pci(own).excludes(&lease.extent()),
            own @ PciRef::Vf { .. } => lease.pci() == Some(own),
        }
    });
    answer(&mut value, &facts.why_not(device));
    value
}

/// A USB device.
pub(super) fn usb(facts: &DeviceFacts, device: &UsbDevice) -> Value {
    let mut value = plain(device);
    value["vendor"] = format!("{:04x}", device.vendor).into();
    value["product"] = format!("{:04x}", device.product).into();
    value["class"] = format!("{:02x}", device.class).into();
    value["name"] = device.name().into();
    value["guests"] = guests(facts, |lease| lease.usb().as_ref() == Some(&device.port));
    answer(&mut value, &facts.why_not_usb(device));
    value
}

/// A mediated device.
pub(super) fn mdev(facts: &DeviceFacts, device: &Mdev) -> Value {
    let mut value = plain(device);
    value["guests"] = guests(facts, |lease| lease.mdev() == Some(device.uuid));
    answer(&mut value, &facts.why_not_mdev(device));
    value
}

fn plain(value: &impl Serialize) -> Value {
    // They are plain data with names as keys: there is nothing that could fail.
    serde_json::to_value(value).unwrap_or_default()
}

fn guests(facts: &DeviceFacts, theirs: impl Fn(&Lease) -> bool) -> Value {
    json!(
        facts
            .leases
            .iter()
            .filter(|lease| theirs(lease))
            .collect::<Vec<_>>()
    )
}

fn answer(value: &mut Value, why: &[WhyNot]) {
    value["free"] = why.is_empty().into();
    let why: Vec<String> = why.iter().map(ToString::to_string).collect();
    value["why-not"] = json!(why);
}
