//! Rules between the keys of a device of the host.

use super::rules::Report;
use super::schema::{Layer, VfTable};

/// The rules that the tables about devices of the host break.
pub(super) fn devices(layer: &Layer, report: &mut Report) {
    for (id, pci) in layer.pci.iter().flatten() {
        let id = id.as_str();
        let several = pci.id.is_some() || pci.r#match.is_some();
        nth(report, "pci", id, pci.nth, several);
        empty(report, &["pci", id, "match"], pci.r#match.as_deref());
        driver(report, &["pci", id, "driver"], pci.driver.as_deref());
        if let Some(vf) = &pci.vf {
            virtual_function(report, id, vf);
            let functions = pci.functions.is_some();
            for (key, said) in [("functions", functions), ("x-vga", pci.x_vga == Some(true))] {
                if said {
                    report.add(&["pci", id, key], "means nothing for a virtual function");
                }
            }
        }
        if pci.rom.is_some() && pci.rom_bar == Some(false) {
            report.add(&["pci", id, "rom"], "cannot be seen with `rom-bar = false`");
        }
    }
    for (id, usb) in layer.usb.iter().flatten() {
        let id = id.as_str();
        let several = usb.id.is_some() || usb.r#match.is_some();
        nth(report, "usb", id, usb.nth, several);
        empty(report, &["usb", id, "match"], usb.r#match.as_deref());
    }
    for (id, mdev) in layer.mdev.iter().flatten() {
        if mdev.ramfb == Some(true) && mdev.display != Some(true) {
            report.add(
                &["mdev", id.as_str(), "ramfb"],
                "means nothing without `display = true`",
            );
        }
        for (key, said) in [
            ("parent", mdev.parent.is_some()),
            ("keep", mdev.keep.is_some()),
        ] {
            if said && mdev.r#type.is_none() {
                report.add(
                    &["mdev", id.as_str(), key],
                    "means nothing without `type`: a device that exists has its parent, and stays",
                );
            }
        }
    }
    gpu(layer, report);
    let ports = layer.hotplug.as_ref().and_then(|hotplug| hotplug.ports);
    if ports.is_some_and(|ports| ports > 8) {
        report.add(&["hotplug", "ports"], "expected 0 to 8");
    }
    let bits = layer.cpu.as_ref().and_then(|cpu| cpu.phys_bits_limit);
    if bits.is_some_and(|bits| !(32..=52).contains(&bits)) {
        report.add(&["cpu", "phys-bits-limit"], "expected 32 to 52");
    }
}

fn gpu(layer: &Layer, report: &mut Report) {
    let Some(gpu) = &layer.gpu else { return };
    let whole = gpu.whole == Some(true) || gpu.upt == Some(true);
    let of_host = whole || gpu.vf.is_some() || gpu.mdev.is_some();
    for (key, said, fits, of) in [
        (
            "address",
            gpu.address.is_some(),
            of_host,
            "a GPU of the host",
        ),
        ("count", gpu.count.is_some(), gpu.vf.is_some(), "`vf`"),
        (
            "provision",
            gpu.provision.is_some(),
            gpu.vf.is_some(),
            "`vf`",
        ),
        (
            "keep",
            gpu.keep.is_some(),
            gpu.vf.is_some() || gpu.mdev.is_some(),
            "`vf` and `mdev`",
        ),
        (
            "functions",
            gpu.functions.is_some(),
            whole,
            "`whole` and `upt`",
        ),
        (
            "vendor",
            gpu.vendor.is_some(),
            whole || gpu.vf.is_some(),
            "`vf`, `whole` and `upt`",
        ),
        ("x-vga", gpu.x_vga.is_some(), whole, "`whole` and `upt`"),
        ("gms", gpu.gms.is_some(), whole, "`whole` and `upt`"),
        (
            "driver",
            gpu.driver.is_some(),
            whole || gpu.vf.is_some(),
            "`vf`, `whole` and `upt`",
        ),
        (
            "display",
            gpu.display.is_some(),
            gpu.mdev.is_some(),
            "`mdev`",
        ),
        ("ramfb", gpu.ramfb.is_some(), gpu.mdev.is_some(), "`mdev`"),
        ("rom", gpu.rom.is_some(), of_host, "a GPU of the host"),
        (
            "rom-bar",
            gpu.rom_bar.is_some(),
            of_host,
            "a GPU of the host",
        ),
    ] {
        if said && !fits {
            report.add(&["gpu", key], format!("is for {of}"));
        }
    }
    if gpu.ramfb == Some(true) && gpu.display != Some(true) {
        report.add(&["gpu", "ramfb"], "means nothing without `display = true`");
    }
    driver(report, &["gpu", "driver"], gpu.driver.as_deref());
    if gpu.count == Some(0) {
        report.add(&["gpu", "count"], "expected at least 1");
    }
    if gpu.gms.is_some_and(|gms| gms > 32) {
        report.add(&["gpu", "gms"], "expected 0 to 32");
    }
    if gpu.rom.is_some() && gpu.rom_bar == Some(false) {
        report.add(&["gpu", "rom"], "cannot be seen with `rom-bar = false`");
    }
}

fn driver(report: &mut Report, path: &[&str], name: Option<&str>) {
    let is_vfios = |name: &str| name.replace('_', "-").ends_with("vfio-pci");
    let plain = |name: &str| {
        name.chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
    };
    if name.is_some_and(|name| !is_vfios(name) || !plain(name)) {
        report.add(
            path,
            "expected a driver of VFIO, as vfio-pci or mlx5_vfio_pci",
        );
    }
}

fn virtual_function(report: &mut Report, id: &str, vf: &VfTable) {
    if vf.of.is_none() {
        report.add(&["pci", id, "vf"], "does not say of which device: set `of`");
    }
    if vf.count == Some(0) {
        report.add(&["pci", id, "vf", "count"], "expected at least 1");
    }
    if vf.vlan.is_some_and(|vlan| !(1..=4094).contains(&vlan)) {
        report.add(&["pci", id, "vf", "vlan"], "expected 1 to 4094");
    }
}

fn nth(report: &mut Report, kind: &str, id: &str, nth: Option<u32>, several: bool) {
    if nth == Some(0) {
        report.add(&[kind, id, "nth"], "devices are counted from 1");
    } else if nth.is_some() && !several {
        report.add(&[kind, id, "nth"], "goes with `id` or `match`");
    }
}

fn empty(report: &mut Report, path: &[&str], words: Option<&str>) {
    if words.is_some_and(|words| words.trim().is_empty()) {
        report.add(path, "holds no words");
    }
}
