//! The domain: its parts in order, and what is said of it as a whole.

use super::draft::Draft;
use super::error::ImportError;
use super::reader::{El, short};
use super::{boot, clock, commandline, cpu, devices, features, memory, tuning};
use crate::ids::GuestName;

/// Reads a domain and gives its name back.
pub(super) fn domain(root: El<'_>, out: &mut Draft) -> Result<String, ImportError> {
    match root.attr("type") {
        Some("kvm") => out.fine.push(super::Told {
            line: root.line(),
            what: "<domain> type='kvm'".to_owned(),
            why: "mvm takes KVM where it is healthy, and says why where it does not; `machine.accel = \"kvm\"` \
                  refuses to run without"
                .to_owned(),
        }),
        Some("qemu") => out.put(root, "machine", "accel", "tcg"),
        other => return Err(ImportError::Hypervisor(short(other.unwrap_or("(none)")))),
    }
    let _number_of_a_running_one = root.attr("id");
    let name = root.child("name").map(El::text).unwrap_or_default();
    if out.guest.is_none() {
        out.guest = name.parse::<GuestName>().ok();
    }
    about(root, &name, out);
    boot::os(root, out)?;
    let numa = cpu::cpu(root, out);
    features::features(root, out);
    memory::memory(root, numa, out);
    tuning::tuning(root, out);
    clock::clock(root, out);
    lifecycle(root, out);
    sysinfo(root, out);
    if let Some(all) = root.child("devices") {
        devices::devices(all, out);
    }
    boot::order(root, out);
    commandline::commandline(root, out);
    elsewhere(root, out);
    Ok(name)
}

/// What other XML of libvirt's is.
pub(super) fn not_one(root: El<'_>) -> ImportError {
    let what = match root.name() {
        "network" => "a network of libvirt's",
        "pool" => "a storage pool",
        "volume" => "a volume of a storage pool",
        "domainsnapshot" => "a snapshot of a domain",
        "domaincheckpoint" => "a checkpoint of a domain",
        "domainbackup" => "a backup job",
        "domstatus" => "what libvirt remembers of a running domain",
        "domainCapabilities" | "capabilities" => "what a host can do",
        "device" => "a device of the host",
        "secret" => "a secret",
        "filter" => "a packet filter",
        "interface" => "a network interface of the host",
        "cpu" | "hostcpu" => "a processor",
        "svg" | "html" => "no file of libvirt's",
        _ => "nothing that libvirt calls so",
    };
    ImportError::NotADomain {
        root: short(root.name()),
        what,
    }
}

fn about(root: El<'_>, name: &str, out: &mut Draft) {
    let title = root.child("title").map(|title| (title, title.text()));
    match title {
        Some((title, text)) if !text.is_empty() => out.put(title, "", "summary", short(&text)),
        _ => out.put(
            root,
            "",
            "summary",
            format!("libvirt's domain {}", short(name)),
        ),
    }
    if let Some(description) = root.child("description") {
        for line in description.text().lines() {
            out.say("", line);
        }
    }
    if let Some(uuid) = root.child("uuid") {
        // What the guest's firmware tells; licences hang on it.
        out.put(uuid, "smbios.system", "uuid", uuid.text());
    }
    if let Some(genid) = root.child("genid") {
        out.left(genid, "mvm gives guests no generation id (`vmgenid`)");
    }
    let Some(metadata) = root.child("metadata") else {
        return;
    };
    for one in metadata.all().collect::<Vec<_>>() {
        match os_id(one) {
            Some(id) => out.fine.push(super::Told {
                line: one.line(),
                what: one.shown(),
                why: format!(
                    "a note of virt-manager's that the guest's system is {}",
                    short(id)
                ),
            }),
            None => out.left(
                one.enter(),
                "notes of other programs have no place in a machine file",
            ),
        }
    }
}

/// The system that libosinfo's note names, where the note says no more than that.
fn os_id(note: El<'_>) -> Option<&str> {
    if note.name() != "libosinfo" {
        return None;
    }
    let mut inner = note.all();
    let os = inner.next().filter(|os| os.name() == "os")?;
    if inner.next().is_some() || os.all().next().is_some() {
        return None;
    }
    note.enter();
    os.enter().attr("id")
}

fn lifecycle(root: El<'_>, out: &mut Draft) {
    let tables = [
        ("on_poweroff", "on-poweroff", "destroy"),
        ("on_reboot", "on-reboot", "restart"),
        ("on_crash", "on-crash", "destroy"),
    ];
    for (element, key, usual) in tables {
        let Some(found) = root.child(element) else {
            continue;
        };
        let text = found.text();
        let word = match (element, text.as_str()) {
            (_, text) if text == usual => {
                out.fine(found, "as mvm does of itself");
                continue;
            }
            (_, "destroy") => "stop",
            ("on_poweroff" | "on_crash", "restart") => "restart",
            ("on_poweroff" | "on_crash", "preserve") => "preserve",
            (_, "coredump-destroy" | "coredump-restart") => {
                let word = if text == "coredump-restart" {
                    "restart"
                } else {
                    "stop"
                };
                out.told(
                    found,
                    "mvm writes no core of a guest's memory; the rest is done",
                );
                word
            }
            _ => {
                out.left(found, "mvm has no such answer");
                continue;
            }
        };
        out.put(found, "lifecycle", key, word);
    }
    if let Some(found) = root.child("on_lockfailure") {
        out.left(
            found,
            "mvm has no lock manager: QEMU's own locks on images are what keeps two guests apart",
        );
    }
    let Some(pm) = root.child("pm") else { return };
    for (element, key) in [("suspend-to-mem", "s3"), ("suspend-to-disk", "s4")] {
        if let Some(found) = pm.child(element) {
            if let Some(on) = found.flag("enabled") {
                out.put(found, "power", key, on);
            }
        }
    }
}

/// The strings of the board that the guest sees.
fn sysinfo(root: El<'_>, out: &mut Draft) {
    let mode = root.all().find(|one| one.name() == "os");
    let mode = mode.and_then(|os| os.all().find(|one| one.name() == "smbios"));
    let mode = mode.and_then(|smbios| {
        smbios.enter().read("mode", |mode| {
            matches!(mode, "host" | "sysinfo" | "emulate").then_some(mode)
        })
    });
    if mode == Some("host") {
        if let Some(os) = root.all().find(|one| one.name() == "os") {
            out.put(os, "smbios", "host", true);
        }
    }
    for info in root.children("sysinfo") {
        match info.attr("type") {
            Some("smbios") if mode == Some("sysinfo") => smbios(info, out),
            Some("smbios") => out.left(
                info,
                "libvirt does not use it without `<smbios mode='sysinfo'/>` in `<os>`, and so the guest never saw it",
            ),
            _ => out.left(info, "mvm has no firmware configuration entries of your own (`-fw_cfg`)"),
        }
    }
}

fn smbios(info: El<'_>, out: &mut Draft) {
    for (part, table) in [
        ("bios", "smbios.bios"),
        ("system", "smbios.system"),
        ("baseBoard", "smbios.baseboard"),
        ("chassis", "smbios.chassis"),
    ] {
        // Of several boards the first is the one that has its name.
        let Some(part) = info.child(part) else {
            continue;
        };
        for entry in part.children("entry") {
            let Some(key) = entry.attr("name") else {
                continue;
            };
            let text = entry.text();
            if key == "uuid" && out.has(table, "uuid") {
                out.fine(entry, "the domain's own, which libvirt insists on");
            } else {
                out.put(entry, table, &super::draft::bare(key), text);
            }
        }
    }
    if let Some(strings) = info.child("oemStrings") {
        let entries = strings.children("entry").into_iter().map(El::text);
        let all: Vec<toml::Value> = entries.map(toml::Value::String).collect();
        out.put(strings, "smbios", "oem-strings", all);
    }
}

/// Parts that no profile has, with what takes their place.
fn elsewhere(root: El<'_>, out: &mut Draft) {
    for (part, why) in [
        (
            "launchSecurity",
            "mvm runs no guests in encrypted memory (SEV, SEV-SNP, TDX, s390 PV)",
        ),
        ("keywrap", "that is for s390 guests"),
        ("idmap", "that is for containers"),
        ("perf", "mvm reads no performance counters of guests"),
        ("genid", "mvm gives guests no generation id (`vmgenid`)"),
        (
            "throttlegroups",
            "groups of limits are said at a disk: `disk.NAME.throttle.group`",
        ),
    ] {
        for found in root.children(part) {
            out.left(found, why);
        }
    }
    for label in root.children("seclabel") {
        if label.peek("type") == Some("none") || label.peek("type") == Some("dynamic") {
            out.fine(label, "mvm confines QEMU by its seccomp filter, and by a user of its own (`security.user`)");
        } else {
            out.left(label, "mvm gives no SELinux or AppArmor labels; `security.user` confines QEMU by a user of its own");
        }
    }
    for resource in root.children("resource") {
        let partition = resource.child("partition").map(El::text);
        if partition.as_deref() == Some("/machine") {
            out.fine(resource, "libvirt's default");
        } else {
            out.left(resource, "mvm makes no control groups: those of the guest's unit do it (`mvm unit`, `Slice=`)");
        }
    }
}
