//! One device in full.

use super::overview::{kinds, speed, usb_name};
use super::words::plural;
use crate::cli::output::{Table, clean};
use crate::host::DeviceFacts;
use crate::host::devices::{HostUse, Mdev, PciDevice, UsbDevice, WhyNot};

/// A PCI function.
pub(super) fn pci(facts: &DeviceFacts, device: &PciDevice) -> String {
    let mut table = Table::bare();
    let mut row = |name: &str, text: &str| {
        if !text.is_empty() {
            table.row([name, text]);
        }
    };
    row("what", &device.names.class);
    row(
        "name",
        &format!("{} {}", device.names.vendor, device.names.device),
    );
    let ids = format!("{:04x}:{:04x}", device.vendor, device.device);
    let board = device
        .subsystem
        .map_or_else(String::new, |(vendor, board)| {
            format!(", board {vendor:04x}:{board:04x}")
        });
    row(
        "id",
        &format!("{ids}{board}, revision {:02x}", device.revision),
    );
    row("driver", device.driver.as_deref().unwrap_or("none"));
    if let Some(only) = &device.driver_override {
        row("driver override", only);
    }
    group(facts, device, &mut row);
    row(
        "NUMA node",
        &device
            .numa
            .map_or_else(String::new, |node| node.to_string()),
    );
    row(
        "behind",
        &device
            .parent
            .map_or_else(String::new, |bridge| bridge.to_string()),
    );
    let reset = match (device.can_reset, device.reset_methods.as_slice()) {
        (_, [_, ..]) => device.reset_methods.join(", "),
        (true, []) => "yes".to_owned(),
        (false, []) => "none of its own: it may keep a guest's state".to_owned(),
    };
    row("reset", &reset);
    let sleep = device
        .power_control
        .as_deref()
        .map(|control| match control {
            "auto" => "when it is idle (power/control: auto)".to_owned(),
            other => format!("no (power/control: {other})"),
        });
    row("sleeps", &sleep.unwrap_or_default());
    for (name, members) in [
        ("network", &device.net),
        ("disks", &device.block),
        ("graphics", &device.drm),
    ] {
        row(name, &members.join(", "));
    }
    functions(facts, device, &mut row);
    for used in device
        .used_by_host
        .iter()
        .filter(|used| matches!(used, HostUse::ConsoleGpu { .. }))
    {
        row(
            "console",
            &format!("{used}, and leaves it while a guest has it"),
        );
    }
    for kind in facts.mdev_types(device.bdf) {
        let made: Vec<String> = kind.devices.iter().map(ToString::to_string).collect();
        let made = if made.is_empty() {
            String::new()
        } else {
            format!("; made: {}", made.join(", "))
        };
        let about = if kind.description.is_empty() {
            String::new()
        } else {
            format!(" ({})", kind.description)
        };
        row(
            "makes",
            &format!("{}: {} left{made}{about}", kind.id, kind.left()),
        );
    }
    let ask = format!("--pci {}", device.reference());
    verdict(&facts.why_not(device), &ask, &mut row);
    format!(
        "{}\n{}",
        clean(&device.reference().to_string()),
        table.render()
    )
}

fn group(facts: &DeviceFacts, device: &PciDevice, row: &mut impl FnMut(&str, &str)) {
    let Some(group) = device.group else {
        return row("IOMMU group", "none");
    };
    let others: Vec<_> = facts
        .group_members(group)
        .into_iter()
        .filter(|other| other.bdf != device.bdf)
        .collect();
    if others.is_empty() {
        return row("IOMMU group", &format!("{group}, alone"));
    }
    row(
        "IOMMU group",
        &format!("{group}, with {}", plural(others.len() as u32, "other")),
    );
    for other in others {
        let driver = match &other.driver {
            Some(driver) => format!("driver {driver}"),
            None => "no driver".to_owned(),
        };
        row(
            " ",
            &format!("{} {} ({driver})", other.bdf, other.names.class),
        );
    }
}

/// Virtual functions of a physical one, and the other way round.
fn functions(facts: &DeviceFacts, device: &PciDevice, row: &mut impl FnMut(&str, &str)) {
    if let Some((pf, number)) = device.physfn {
        row(
            "virtual function",
            &format!("{number} of {pf}, now at {}", device.bdf),
        );
    }
    let Some(sriov) = &device.sriov else { return };
    let probe = if sriov.autoprobe {
        ""
    } else {
        ", drivers are not looked for (autoprobe off)"
    };
    row(
        "virtual functions",
        &format!("{} of {} made{probe}", sriov.current, sriov.total),
    );
    for vf in sriov.vfs.iter().filter_map(|vf| facts.function(*vf)) {
        let state = facts
            .leases
            .iter()
            .find(|lease| lease.pci() == Some(vf.reference()));
        let state = match (state, &vf.driver) {
            (Some(lease), _) => format!("guest {}", lease.guest),
            (None, Some(driver)) => format!("driver {driver}"),
            (None, None) => "free".to_owned(),
        };
        row(" ", &format!("{} at {} ({state})", vf.reference(), vf.bdf));
    }
    if sriov.current == 0 {
        let first = facts.vf_address(device.bdf, 1);
        let last = facts.vf_address(device.bdf, sriov.total);
        if let Some(((first, _), (last, _))) = first.zip(last) {
            row(" ", &format!("they would be at {first} to {last}"));
        }
    }
}

fn verdict(why: &[WhyNot], ask: &str, row: &mut impl FnMut(&str, &str)) {
    if why.is_empty() {
        return row("for a guest", &format!("yes: `mvm run NAME {ask}`"));
    }
    for (place, why) in why.iter().enumerate() {
        let title = if place == 0 { "for a guest" } else { " " };
        let no = if place == 0 { "no: " } else { "    " };
        row(title, &format!("{no}{why}"));
    }
}

/// A USB device.
pub(super) fn usb(facts: &DeviceFacts, device: &UsbDevice) -> String {
    let mut table = Table::bare();
    let mut row = |name: &str, text: &str| {
        if !text.is_empty() {
            table.row([name, text]);
        }
    };
    row("name", &usb_name(device));
    row("listed as", &device.listed);
    row("kind", &kinds(device));
    row("serial", device.serial.as_deref().unwrap_or_default());
    let half = if device.path == device.port.as_str() {
        String::new()
    } else {
        format!(", the port's USB 3 half is {}", device.path)
    };
    row(
        "now at",
        &format!("bus {} address {}{half}", device.bus, device.address),
    );
    row("speed", &format!("{}bit/s", speed(&device.speed)));
    row(
        "controller",
        &device
            .controller
            .map_or_else(String::new, |bdf| bdf.to_string()),
    );
    for (place, interface) in device.interfaces.iter().enumerate() {
        let title = if place == 0 { "interfaces" } else { " " };
        let driver = interface.driver.as_deref().unwrap_or("no driver");
        row(
            title,
            &format!(
                "{} class {:02x}.{:02x}.{:02x} ({driver})",
                interface.name, interface.class, interface.subclass, interface.protocol
            ),
        );
    }
    let ask = format!("--usb {}", device.port);
    verdict(&facts.why_not_usb(device), &ask, &mut row);
    format!("{}\n{}", device.port, table.render())
}

/// A mediated device.
pub(super) fn mdev(facts: &DeviceFacts, mdev: &Mdev) -> String {
    let mut table = Table::bare();
    let mut row = |name: &str, text: &str| {
        if !text.is_empty() {
            table.row([name, text]);
        }
    };
    let parent = facts
        .mdev_parents
        .iter()
        .find(|parent| parent.name == mdev.parent);
    let kind = parent.and_then(|parent| parent.types.iter().find(|kind| kind.id == mdev.type_id));
    row("type", &mdev.type_id);
    row("name", kind.map_or("", |kind| &kind.name));
    row("about", kind.map_or("", |kind| &kind.description));
    row("made of", &mdev.parent);
    row(
        "IOMMU group",
        &mdev
            .group
            .map_or_else(String::new, |group| group.to_string()),
    );
    row("driver", mdev.driver.as_deref().unwrap_or("none"));
    let ask = format!("--mdev {}", mdev.uuid);
    verdict(&facts.why_not_mdev(mdev), &ask, &mut row);
    format!("{}\n{}", mdev.uuid, table.render())
}
