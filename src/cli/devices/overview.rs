//! All devices at a glance, in at most 100 columns.

use super::Kind;
use super::words::{self, fit, plural};
use crate::cli::output::clean;
use crate::host::DeviceFacts;
use crate::host::devices::{MdevParent, PciDevice, UsbDevice};
use crate::ids::PciRef;

/// The page's width.
const COLUMNS: usize = 100;

/// What a column that is cut keeps.
const NARROWEST: usize = 16;

/// Tables that share their columns.
type Part = Vec<Line>;

/// A line of a table.
enum Line {
    /// A heading over columns, or a row of them.
    Cells([String; 5]),
    /// More about the row above.
    More(String),
    /// Between tables.
    Empty,
}

/// The page for the devices of a kind, or for all.
pub(super) fn render(facts: &DeviceFacts, kind: Option<Kind>, all: bool) -> String {
    let parts = match kind {
        None => vec![
            pci(facts, all, |_| true),
            usb(facts, all),
            mdev_types(facts, true),
            mdevs(facts),
            guests(facts),
        ],
        Some(Kind::Pci) => vec![pci(facts, all, |_| true)],
        Some(Kind::Gpu) => vec![pci(facts, true, PciDevice::is_gpu)],
        Some(Kind::Usb) => vec![usb(facts, all)],
        Some(Kind::Mdev) => vec![mdev_types(facts, false), mdevs(facts)],
    };
    let parts: Vec<String> = parts
        .iter()
        .filter(|part| !part.is_empty())
        .map(|part| table(part))
        .collect();
    if !parts.is_empty() {
        return parts.join("\n");
    }
    let what = match kind {
        None => "devices",
        Some(Kind::Pci) => "PCI devices",
        Some(Kind::Gpu) => "GPUs",
        Some(Kind::Usb) => "USB devices",
        Some(Kind::Mdev) => "devices that can make mediated devices",
    };
    format!("no {what} here\n")
}

/// The second column takes what the others leave.
fn table(lines: &[Line]) -> String {
    let mut widths = [0; 5];
    for line in lines {
        if let Line::Cells(cells) = line {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
    }
    let others: usize = widths.iter().sum::<usize>() - widths[1];
    let rest = COLUMNS.saturating_sub(others + 2 * 4);
    widths[1] = widths[1].min(rest.max(NARROWEST));
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        match line {
            Line::Cells(cells) => {
                for (cell, width) in cells.iter().zip(widths) {
                    let cell = fit(cell, width);
                    row.push_str(&cell);
                    row.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
                }
            }
            Line::More(more) => {
                row.extend(std::iter::repeat_n(' ', widths[0] + 2));
                row.push_str(&fit(more, COLUMNS.saturating_sub(widths[0] + 2)));
            }
            Line::Empty => {}
        }
        text.push_str(&fit(row.trim_end(), COLUMNS));
        text.push('\n');
    }
    text
}

fn cells(lines: &mut Part, cells: [&str; 5]) {
    lines.push(Line::Cells(cells.map(clean)));
}

fn head(lines: &mut Part, titles: [&str; 5]) {
    if !lines.is_empty() {
        lines.push(Line::Empty);
    }
    cells(lines, titles);
}

fn pci(facts: &DeviceFacts, all: bool, wanted: impl Fn(&PciDevice) -> bool) -> Part {
    let mut lines = Part::new();
    for (place, (title, _)) in words::SECTIONS.iter().enumerate() {
        let mut members = facts
            .pci
            .iter()
            .filter(|device| words::section(device) == place && wanted(device))
            .filter(|device| all || !hidden(facts, device))
            .peekable();
        if members.peek().is_none() {
            continue;
        }
        head(&mut lines, [title, "", "DRIVER", "GROUP", "FOR A GUEST"]);
        for device in members {
            function(facts, device, &mut lines);
        }
    }
    lines
}

/// Bridges, what is nothing on its own, and virtual functions that nobody has.
fn hidden(facts: &DeviceFacts, device: &PciDevice) -> bool {
    let idle_vf = || {
        device.physfn.is_some()
            && !facts
                .leases
                .iter()
                .any(|lease| lease.pci() == Some(device.reference()))
    };
    device.bridge || device.base_class() == 0x06 || idle_vf()
}

fn function(facts: &DeviceFacts, device: &PciDevice, lines: &mut Part) {
    let name = match device.physfn {
        Some((pf, number)) => format!("VF {number} of {pf}"),
        None => words::name(device),
    };
    let dash = || "-".to_owned();
    let why = facts.why_not(device);
    let verdict = if why.is_empty() && device.shows_console() {
        "yes, and the console".to_owned()
    } else {
        words::verdict(facts, &why)
    };
    cells(
        lines,
        [
            &device.bdf.to_string(),
            &name,
            device.driver.as_deref().unwrap_or("-"),
            &device.group.map_or_else(dash, |group| group.to_string()),
            &verdict,
        ],
    );
    if let Some(sriov) = &device.sriov {
        let given = facts
            .leases
            .iter()
            .filter(|lease| matches!(lease.pci(), Some(PciRef::Vf { pf, .. }) if pf == device.bdf));
        let text = match (sriov.current, given.count()) {
            (0, 0) => format!("up to {}", plural(sriov.total, "virtual function")),
            (made, 0) => format!("{made} of {} made", plural(sriov.total, "virtual function")),
            (made, given) => format!(
                "{made} of {} made, guests have {given}",
                plural(sriov.total, "virtual function")
            ),
        };
        lines.push(Line::More(text));
    }
    for kind in facts.mdev_types(device.bdf) {
        let text = format!(
            "mdev {}: {} left, {} made",
            kind.id,
            kind.left(),
            kind.devices.len()
        );
        lines.push(Line::More(clean(&text)));
    }
}

fn usb(facts: &DeviceFacts, all: bool) -> Part {
    let mut lines = Part::new();
    let mut members = facts
        .usb
        .iter()
        .filter(|device| all || !device.hub)
        .peekable();
    if members.peek().is_none() {
        return lines;
    }
    head(&mut lines, ["USB", "", "KIND", "SPEED", "FOR A GUEST"]);
    for device in members {
        cells(
            &mut lines,
            [
                device.port.as_str(),
                &usb_name(device),
                &kinds(device),
                &speed(&device.speed),
                &words::verdict(facts, &facts.why_not_usb(device)),
            ],
        );
    }
    lines
}

/// Its name with the ids, which is how people often ask for one.
pub(super) fn usb_name(device: &UsbDevice) -> String {
    let ids = format!("[{:04x}:{:04x}]", device.vendor, device.product);
    format!("{} {ids}", device.name()).trim_start().to_owned()
}

/// The words for its kinds.
pub(super) fn kinds(device: &UsbDevice) -> String {
    if device.kinds.is_empty() {
        return "-".to_owned();
    }
    let words: Vec<&str> = device.kinds.iter().map(|kind| kind.word()).collect();
    words.join(",")
}

/// `480M`, `5G`.
pub(super) fn speed(megabits: &str) -> String {
    match megabits.parse::<u32>() {
        Ok(rate) if rate >= 1000 && rate % 1000 == 0 => format!("{}G", rate / 1000),
        _ if megabits.is_empty() => "-".to_owned(),
        _ => format!("{megabits}M"),
    }
}

/// Types by what makes them; in the overview, those of PCI functions are with these already.
fn mdev_types(facts: &DeviceFacts, overview: bool) -> Part {
    let mut lines = Part::new();
    let listed = |parent: &&MdevParent| !overview || parent.bdf.is_none();
    for parent in facts.mdev_parents.iter().filter(listed) {
        for kind in &parent.types {
            if lines.is_empty() {
                head(&mut lines, ["CAN MAKE", "TYPE", "NAME", "LEFT", "MADE"]);
            }
            cells(
                &mut lines,
                [
                    &parent.name,
                    &kind.id,
                    &kind.name,
                    &kind.left(),
                    &kind.devices.len().to_string(),
                ],
            );
        }
    }
    lines
}

/// Mediated devices that exist.
fn mdevs(facts: &DeviceFacts) -> Part {
    let mut lines = Part::new();
    for mdev in &facts.mdevs {
        if lines.is_empty() {
            head(
                &mut lines,
                ["MEDIATED DEVICE", "TYPE", "MADE OF", "GROUP", "FOR A GUEST"],
            );
        }
        let why = facts.why_not_mdev(mdev);
        let group = mdev.group.map(|group| group.to_string());
        cells(
            &mut lines,
            [
                &mdev.uuid.to_string(),
                &mdev.type_id,
                &mdev.parent,
                group.as_deref().unwrap_or("-"),
                &words::verdict(facts, &why),
            ],
        );
    }
    lines
}

/// Guest by guest.
fn guests(facts: &DeviceFacts) -> Part {
    let mut lines = Part::new();
    let mut names: Vec<&str> = facts
        .leases
        .iter()
        .map(|lease| lease.guest.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        if lines.is_empty() {
            head(&mut lines, ["GUEST", "HAS", "", "", ""]);
        }
        let theirs = facts.leases.iter().filter(|lease| lease.guest == name);
        for (place, lease) in theirs.enumerate() {
            let name = if place == 0 { name } else { "" };
            let damaged = lease.damaged.as_ref();
            let damaged = damaged.map_or_else(String::new, |path| {
                format!(": {} cannot be read", path.display())
            });
            let owner = lease.owner.as_ref();
            let owner = owner.map_or_else(String::new, |owner| format!(", of {owner}"));
            let text = format!("{}{damaged}{owner}", lease.shown());
            cells(&mut lines, [name, &text, "", "", ""]);
        }
    }
    lines
}
