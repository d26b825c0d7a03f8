//! What the guest starts from: `<os>`, and the order of its devices.

use super::draft::Draft;
use super::error::ImportError;
use super::firmware;
use super::reader::{El, short};

/// Reads `<os>`, all but the order.
pub(super) fn os(root: El<'_>, out: &mut Draft) -> Result<(), ImportError> {
    // It is looked at again for the order and for SMBIOS.
    let Some(os) = root.child("os") else {
        return Err(ImportError::Kind("(none)".to_owned()));
    };
    if let Some(kind) = os.child("type") {
        let text = kind.text();
        if text != "hvm" {
            return Err(ImportError::Kind(short(&text)));
        }
        match kind.attr("arch") {
            Some(arch @ ("x86_64" | "aarch64")) => {
                out.arm = arch == "aarch64";
                out.put(kind, "machine", "arch", arch);
            }
            Some("i686") => {
                out.put(kind, "machine", "arch", "x86_64");
                out.told(kind, "mvm has no 32-bit processors of QEMU's: a 64-bit one runs 32-bit systems as well");
            }
            Some(arch) => return Err(ImportError::Arch(short(arch))),
            None => {}
        }
        if let Some(machine) = kind.attr("machine") {
            out.put(kind, "machine", "type", machine);
        }
    }
    firmware::firmware(os, out);
    for (element, key) in [
        ("kernel", "kernel"),
        ("initrd", "initrd"),
        ("cmdline", "append"),
    ] {
        if let Some(found) = os.child(element) {
            out.put(found, "boot", key, found.text());
        }
    }
    if let Some(menu) = os.child("bootmenu") {
        match menu.flag("enable") {
            Some(true) => out.put(menu, "boot", "menu", true),
            Some(false) => out.fine.push(super::Told {
                line: menu.line(),
                what: menu.shown(),
                why: "a guest has no boot menu unless it is asked for".to_owned(),
            }),
            None => {}
        }
        if let Some(ms) = menu.number("timeout") {
            out.put(menu, "boot", "menu-timeout", format!("{ms}ms"));
        }
    }
    for (element, why) in [
        (
            "dtb",
            "mvm hands over no device tree: QEMU's own is the guest's",
        ),
        ("acpi", "mvm hands over no ACPI tables"),
        ("bios", "mvm does not change how the BIOS talks or retries"),
        ("shim", "mvm starts a kernel without a shim"),
        ("init", "that is for containers"),
        ("varstore", "mvm keeps the variables in flash"),
    ] {
        for found in os.children(element) {
            out.left(found, why);
        }
    }
    Ok(())
}

/// `<boot dev='…'/>`: the order by kinds of devices, where no device says its own.
pub(super) fn order(root: El<'_>, out: &mut Draft) {
    let Some(os) = root.all().find(|one| one.name() == "os") else {
        return;
    };
    let mut place = 0;
    let bootable = std::mem::take(&mut out.bootable);
    for boot in os.children("boot") {
        let Some(kind) = boot.attr("dev") else {
            continue;
        };
        if out.has("boot", "kernel") {
            out.fine.push(super::Told {
                line: boot.line(),
                what: boot.shown(),
                why: "the kernel is started directly".to_owned(),
            });
            continue;
        }
        if out.ordered {
            out.told(
                boot,
                "the devices say their order themselves, and libvirt takes only one of both",
            );
            continue;
        }
        // libvirt, too, takes the first of each kind.
        match bootable.iter().find(|(of, _)| *of == kind) {
            Some((_, table)) => {
                place += 1;
                out.put(boot, table, "boot", place);
            }
            None => out.told(boot, "there is no such device"),
        }
    }
}

/// The place that a device says itself.
pub(super) fn own(device: El<'_>, table: &str, out: &mut Draft) {
    let Some(boot) = device.child("boot") else {
        return;
    };
    if let Some(order) = boot.number("order") {
        out.ordered = true;
        out.put(
            boot,
            table,
            "boot",
            i64::try_from(order).unwrap_or(i64::MAX),
        );
    }
}
