//! `<features>`: the board's, Hyper-V's and KVM's.

use super::draft::Draft;
use super::firmware;
use super::reader::El;

pub(super) fn features(root: El<'_>, out: &mut Draft) {
    let Some(features) = root.child("features") else {
        without_acpi(root, out);
        return;
    };
    let Some(acpi) = features.child("acpi") else {
        without_acpi(features, out);
        return rest(features, out);
    };
    out.fine(acpi, "every guest of mvm has it");
    rest(features, out);
}

fn without_acpi(at: El<'_>, out: &mut Draft) {
    out.told(
        at,
        "libvirt takes ACPI from a guest without `<acpi/>`; mvm's have it",
    );
}

fn rest(features: El<'_>, out: &mut Draft) {
    for name in ["apic", "pae"] {
        if let Some(found) = features.child(name) {
            if found.peek("eoi").is_some() {
                out.left_attr(
                    found,
                    "eoi",
                    "mvm leaves the paravirtual end of interrupts to QEMU",
                );
            }
            out.fine(found, "every guest of mvm has it");
        }
    }
    if let Some(gic) = features.child("gic") {
        let version = gic.read("version", |version| match version {
            "2" | "3" => Some(version),
            "host" => Some("max"),
            _ => None,
        });
        if let Some(version) = version {
            out.put(gic, "machine", "gic", version);
        }
    }
    if let Some(hyperv) = features.child("hyperv") {
        self::hyperv(hyperv, out);
    }
    if let Some(kvm) = features.child("kvm") {
        if let Some(hidden) = kvm.child("hidden") {
            if let Some(on) = hidden.flag("state") {
                out.put(hidden, "cpu", "hide-hypervisor", on);
            }
        }
        for found in kvm.all().filter(|one| !one.is_seen()).collect::<Vec<_>>() {
            switched(found, "mvm leaves it as QEMU has it", out);
        }
    }
    let switches = [
        ("vmport", "machine", "vmport"),
        ("pmu", "cpu", "pmu"),
        ("smm", "firmware", "smm"),
    ];
    for (name, table, key) in switches {
        let Some(found) = features.child(name) else {
            continue;
        };
        // `<smm/>` alone means on; `<vmport/>` and `<pmu/>`, too.
        let on = if found.peek("state").is_none() {
            Some(true)
        } else {
            found.flag("state")
        };
        for inner in found.all().collect::<Vec<_>>() {
            out.left(inner.enter(), "mvm leaves the size of SMM's memory to QEMU");
        }
        match on {
            Some(on) if key == "smm" => firmware::smm(found, on, out),
            Some(on) => out.put(found, table, key, on),
            None => {}
        }
    }
    if let Some(ioapic) = features.child("ioapic") {
        let word = ioapic.read("driver", |driver| match driver {
            "kvm" => Some("kernel"),
            "qemu" => Some("split"),
            _ => None,
        });
        if let Some(word) = word {
            out.put(ioapic, "machine", "irqchip", word);
        }
    }
    for found in features
        .all()
        .filter(|one| !one.is_seen())
        .collect::<Vec<_>>()
    {
        switched(found, "mvm has no such feature", out);
    }
}

/// A switch that mvm does not have: one that is off is as it is anyhow.
fn switched(found: El<'_>, why: &str, out: &mut Draft) {
    if found.peek("state") == Some("off") {
        out.fine(found, "off, as it is anyhow");
    } else {
        out.left(found.enter(), why);
    }
}

fn hyperv(hyperv: El<'_>, out: &mut Draft) {
    match hyperv.attr("mode") {
        Some("passthrough") => out.told(hyperv, "mvm's are said one by one; the ones below are"),
        Some("custom") | None => {}
        Some(_) => out.told(hyperv, "mvm knows no such mode"),
    }
    for (name, key) in [
        ("relaxed", "relaxed"),
        ("vapic", "vapic"),
        ("spinlocks", "spinlocks"),
        ("vpindex", "vpindex"),
        ("runtime", "runtime"),
        ("synic", "synic"),
        ("stimer", "stimer"),
        ("reset", "reset"),
        ("vendor_id", "vendor-id"),
        ("frequencies", "frequencies"),
        ("reenlightenment", "reenlightenment"),
        ("tlbflush", "tlbflush"),
        ("ipi", "ipi"),
        ("evmcs", "evmcs"),
    ] {
        let Some(found) = hyperv.child(name) else {
            continue;
        };
        match found.flag("state") {
            Some(true) => {}
            Some(false) => {
                out.fine(found, "off, as it is anyhow");
                continue;
            }
            None => continue,
        }
        match name {
            "spinlocks" => {
                let retries = found
                    .number("retries")
                    .and_then(|many| i64::try_from(many).ok());
                out.put(found, "hyperv", key, retries.unwrap_or(4095));
            }
            "vendor_id" => {
                if let Some(id) = found.attr("value") {
                    out.put(found, "hyperv", key, id);
                }
            }
            _ => out.put(found, "hyperv", key, true),
        }
        if let Some(direct) = found.child("direct") {
            match (name, direct.flag("state")) {
                ("stimer", Some(true)) => out.put(direct, "hyperv", "stimer-direct", true),
                (_, Some(false)) => {}
                _ => out.told(direct, "mvm does not switch that part of it"),
            }
        }
    }
    for found in hyperv
        .all()
        .filter(|one| !one.is_seen())
        .collect::<Vec<_>>()
    {
        switched(found, "mvm has no such enlightenment", out);
    }
}
