//! What the guest starts from: `<os>`, and the order of its devices.

use super::draft::Draft;
use super::error::ImportError;
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
    firmware(os, out);
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

fn firmware(os: El<'_>, out: &mut Draft) {
    let asked = os.attr("firmware");
    match asked {
        Some("efi") => out.put(os, "firmware", "type", "uefi"),
        Some("bios") => out.put(os, "firmware", "type", "bios"),
        Some(other) => {
            out.told(os, format!("mvm knows no firmware `{}`", short(other)));
        }
        None => {}
    }
    if let Some(features) = os.child("firmware") {
        for feature in features.children("feature") {
            let on = feature.flag("enabled");
            match (feature.attr("name"), on) {
                (Some("secure-boot"), Some(on)) => out.put(feature, "firmware", "secure-boot", on),
                // `secure-boot` means both: without keys it would let everything through.
                (Some("enrolled-keys"), Some(true)) => {
                    if !out.has("firmware", "secure-boot") {
                        out.put(feature, "firmware", "secure-boot", true);
                    }
                }
                (Some("enrolled-keys"), Some(false)) => {
                    if out.has("firmware", "secure-boot") {
                        out.told(feature, "mvm's secure boot has the keys enrolled");
                    }
                }
                _ => out.told(feature, "mvm knows no such feature of a firmware"),
            }
        }
    }
    let nvram = os.child("nvram");
    let Some(loader) = os.child("loader") else {
        if let Some(nvram) = nvram {
            store(nvram, None, out);
        }
        return;
    };
    let path = loader.text();
    let secure = loader.flag("secure");
    let _read_only_as_every_firmware_of_mvm = loader.is("readonly", "yes");
    let flash = loader.is("type", "pflash");
    let _rom = !flash && loader.is("type", "rom");
    let _raw = loader.is("format", "raw") || loader.is("format", "qcow2");
    if asked.is_some() && !path.is_empty() {
        // The path is what libvirt found by itself, and mvm finds it, too.
        out.fine.push(super::Told {
            line: loader.line(),
            what: loader.shown(),
            why: "the host's firmware descriptors name it to mvm, too".to_owned(),
        });
    } else if !path.is_empty() {
        out.put(
            loader,
            "firmware",
            "type",
            if flash { "uefi" } else { "bios" },
        );
        out.put(loader, "firmware", "file", path.as_str());
    }
    if secure == Some(true) && !out.has("firmware", "secure-boot") {
        out.put(loader, "firmware", "secure-boot", true);
    }
    let own = (asked.is_none() && flash).then_some(path.as_str());
    match nvram {
        Some(nvram) => store(nvram, own, out),
        None => {
            if let Some(template) = own.and_then(template) {
                out.say("firmware", "libvirt finds the template of the variables by itself; it lies beside the code.");
                out.put(loader, "firmware", "nvram-template", template);
            }
        }
    }
}

/// The variables: the template and the guest's own.
fn store(nvram: El<'_>, code: Option<&str>, out: &mut Draft) {
    let _raw = nvram.is("format", "raw") || nvram.is("format", "qcow2");
    let _raw = nvram.is("templateFormat", "raw") || nvram.is("templateFormat", "qcow2");
    let _kind = nvram.is("type", "file");
    let named = nvram.attr("template").map(str::to_owned);
    // A template belongs to a code of one's own; for the host's the descriptor has both.
    if code.is_some() {
        if let Some(template) = named.or_else(|| code.and_then(template)) {
            out.put(nvram, "firmware", "nvram-template", template);
        }
    }
    let source = nvram.child("source").and_then(|source| source.attr("file"));
    let own = source.map_or_else(|| nvram.text(), str::to_owned);
    if !own.is_empty() {
        out.say(
            "firmware",
            "The store that libvirt's guest has. With a copy of it each of both keeps its own.",
        );
        out.put(nvram, "firmware", "nvram", own);
    }
}

/// The template that lies beside a build of EDK II's: `OVMF_CODE_4M.secboot.fd` has `OVMF_VARS_4M.fd`.
fn template(code: &str) -> Option<String> {
    let (folder, file) = code.rsplit_once('/')?;
    let vars = file.replacen("CODE", "VARS", 1);
    let vars = vars.replace(".secboot", "").replace(".secure", "");
    (file.contains("CODE")).then(|| format!("{folder}/{vars}"))
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

#[cfg(test)]
mod tests {
    use super::template;

    #[test]
    fn templates_lie_beside_the_code() {
        for (code, vars) in [
            (
                "/usr/share/OVMF/OVMF_CODE_4M.fd",
                Some("/usr/share/OVMF/OVMF_VARS_4M.fd"),
            ),
            (
                "/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd",
                Some("/usr/share/edk2/ovmf/OVMF_VARS.fd"),
            ),
            (
                "/usr/share/AAVMF/AAVMF_CODE.fd",
                Some("/usr/share/AAVMF/AAVMF_VARS.fd"),
            ),
            ("/opt/mine.fd", None),
        ] {
            assert_eq!(template(code).as_deref(), vars);
        }
    }
}
