//! The processor, the clocks and what the firmware says, as QEMU itself tells them.

use std::path::Path;

use serde_json::{Value, json};

use super::runs;
use super::session::{Session, installed};
use crate::host::{HostFacts, KvmState};
use crate::ids::Arch;
use crate::machine::{Machine, testing};
use crate::profile::schema::HypervTable;
use crate::qemu::command_line;

fn property(session: &mut Session, path: &str, property: &str) -> Value {
    session.call("qom-get", json!({ "path": path, "property": property }))
}

/// The first processor's path, and all that QEMU tells of them.
fn processors(session: &mut Session) -> (String, Vec<Value>) {
    let all = session.call("query-cpus-fast", json!({}));
    let all = all.as_array().unwrap().clone();
    (all[0]["qom-path"].as_str().unwrap().to_owned(), all)
}

#[test]
fn processors_have_their_topology() {
    let parts = "sockets = 2\ncores = 2\nthreads = 1\n";
    for (text, key) in [
        (
            format!("machine.type = 'q35'\n[cpu]\n{parts}dies = 2"),
            "die-id",
        ),
        (
            format!("machine.type = 'pc'\n[cpu]\n{parts}dies = 2"),
            "die-id",
        ),
        (
            format!(
                "machine.arch = 'aarch64'\nfirmware.type = 'none'\nboot.kernel = 'a.img'\n[cpu]\n{parts}clusters = 2"
            ),
            "cluster-id",
        ),
    ] {
        let Some((mut session, machine)) = runs(&text, &["a.img"]) else {
            continue;
        };
        let (_, all) = processors(&mut session);
        assert_eq!((all.len(), machine.cpu.count), (8, 8));
        let ids = |key: &str| -> Vec<u64> {
            let id = |cpu: &Value| cpu["props"][key].as_u64().unwrap();
            all.iter().map(id).collect()
        };
        assert_eq!(ids("socket-id"), [0, 0, 0, 0, 1, 1, 1, 1]);
        assert_eq!(ids(key), [0, 0, 1, 1, 0, 0, 1, 1], "{text}");
        session.quit();
    }
}

#[test]
fn features_and_caches_are_the_processors() {
    for (text, wanted) in [
        (
            "features = { waitpkg = false, hypervisor = false, sse4_1 = false, aes = true }",
            vec![
                ("waitpkg", json!(false)),
                ("hypervisor", json!(false)),
                ("sse4.1", json!(false)),
                ("aes", json!(true)),
                ("sse4.2", json!(true)),
            ],
        ),
        (
            "cache = 'passthrough'\nmigratable = false\npmu = false",
            vec![
                ("host-cache-info", json!(true)),
                ("l3-cache", json!(false)),
                ("migratable", json!(false)),
                ("pmu", json!(false)),
            ],
        ),
        (
            "cache = 'none'\nmigratable = true\npmu = true",
            vec![
                ("host-cache-info", json!(false)),
                ("l3-cache", json!(false)),
                ("migratable", json!(true)),
                ("pmu", json!(true)),
            ],
        ),
        (
            "model = 'qemu64'\ncache = 'emulate'",
            vec![("l3-cache", json!(true))],
        ),
        (
            "model = 'qemu64'\ncache = 'none'",
            vec![("l3-cache", json!(false))],
        ),
    ] {
        let Some((mut session, _)) = runs(&format!("[cpu]\n{text}"), &[]) else {
            return;
        };
        let (path, _) = processors(&mut session);
        for (name, value) in wanted {
            assert_eq!(property(&mut session, &path, name), value, "{name}: {text}");
        }
        session.quit();
    }
    let arm = "machine.arch = 'aarch64'\nfirmware.type = 'none'\nboot.kernel = 'a.img'\n\
               [cpu]\npmu = false\nfeatures = { sve = false }";
    if let Some((mut session, _)) = runs(arm, &["a.img"]) {
        let (path, _) = processors(&mut session);
        for name in ["pmu", "sve"] {
            assert_eq!(property(&mut session, &path, name), json!(false), "{name}");
        }
        session.quit();
    }
}

#[test]
fn clocks_are_set_as_the_profile_says() {
    let text = "[machine]\ntype = 'BOARD'\nvmport = true\n\
                [clock]\nbase = '2001-02-03T04:05:06+01:00'\nrtc = 'catchup'\nhpet = false\n\
                tsc-frequency = 1500000000\n";
    for board in ["q35", "pc"] {
        let Some((mut session, _)) = runs(&text.replace("BOARD", board), &[]) else {
            return;
        };
        for (name, value) in [("hpet", json!(false)), ("vmport", json!("on"))] {
            assert_eq!(property(&mut session, "/machine", name), value, "{board}");
        }
        let time = property(&mut session, "/machine", "rtc-time");
        let of = |key: &str| time[key].as_i64().unwrap();
        // Nothing has run: it shows the start's time, a few seconds on at most.
        assert_eq!(
            (of("tm_year"), of("tm_mon"), of("tm_mday"), of("tm_hour")),
            (101, 1, 3, 3),
            "{time}"
        );
        let (path, _) = processors(&mut session);
        assert_eq!(
            property(&mut session, &path, "tsc-frequency"),
            json!(1_500_000_000_u64)
        );
        assert_eq!(policy(&mut session, "mc146818rtc"), Some("slew".to_owned()));
        session.quit();
    }
    let plain = "machine.vmport = false\n[clock]\nrtc = 'delay'\nhpet = true";
    if let Some((mut session, _)) = runs(plain, &[]) {
        for (name, value) in [("hpet", json!(true)), ("vmport", json!("off"))] {
            assert_eq!(property(&mut session, "/machine", name), value);
        }
        assert_eq!(
            policy(&mut session, "mc146818rtc"),
            Some("discard".to_owned())
        );
        session.quit();
    }
}

/// What becomes of late ticks of a timer of that type.
fn policy(session: &mut Session, kind: &str) -> Option<String> {
    let policy = "lost_tick_policy";
    let path = of_type(session, kind)?;
    let policy = property(session, &path, policy);
    Some(policy.as_str().unwrap().to_owned())
}

/// The path of a device of that type that the board made.
fn of_type(session: &mut Session, kind: &str) -> Option<String> {
    let child = format!("child<{kind}>");
    let mut open = vec!["/machine".to_owned()];
    while let Some(at) = open.pop() {
        let list = session.call("qom-list", json!({ "path": at }));
        for entry in list.as_array().unwrap() {
            let path = format!("{at}/{}", entry["name"].as_str().unwrap());
            let of = entry["type"].as_str().unwrap();
            if of == child {
                return Some(path);
            }
            if of.starts_with("child<") && !of.contains("memory-region") {
                open.push(path);
            }
        }
    }
    None
}

/// A host with a KVM that is good.
fn with_kvm() -> HostFacts {
    let mut facts = testing::facts();
    facts.kvm.state = KvmState::Healthy;
    facts.cpu.vendor = "GenuineIntel".to_owned();
    facts
}

/// The arguments with TCG in KVM's place, and all that TCG has in the place of the host's processor.
fn under_tcg(machine: &Machine) -> Vec<String> {
    let stand_in = |arg: String| match arg.as_str() {
        "kvm" => "tcg".to_owned(),
        _ => match arg.strip_prefix("host,") {
            Some(options) => format!("max,{options}"),
            None => arg,
        },
    };
    command_line(machine)
        .shown()
        .into_iter()
        .map(stand_in)
        .collect()
}

/// All enlightenments, by the names of the keys.
const ALL: &str = "relaxed = true\nvapic = true\nspinlocks = 8191\nvpindex = true\nruntime = true\n\
                   synic = true\nstimer = true\nstimer-direct = true\nreset = true\n\
                   vendor-id = '1234567890ab'\nfrequencies = true\nreenlightenment = true\n\
                   tlbflush = true\nipi = true\nevmcs = true\ntime = true\n";

/// KVM's own word on them needs a KVM that has them; that QEMU knows each by its name, and has it on, does not.
#[test]
fn enlightenments_are_the_processors() {
    // A key that is not in the list above is one without a test.
    let table: HypervTable = toml::from_str(&format!("enabled = true\n{ALL}")).unwrap();
    let table = serde_json::to_value(table).unwrap();
    let keys = serde_json::to_value(schemars::schema_for!(HypervTable)).unwrap();
    let keys = keys["properties"].as_object().unwrap();
    assert_eq!(keys.len(), table.as_object().unwrap().len());

    let dir = tempfile::Builder::new().prefix("mvm").tempdir().unwrap();
    let machine = testing::real(dir.path(), &format!("[hyperv]\n{ALL}"), &with_kvm()).unwrap();
    if !installed(&machine) {
        eprintln!("skipped: QEMU is not installed");
        return;
    }
    let plain = testing::real(dir.path(), "", &testing::facts()).unwrap();
    let mut session = Session::start(&plain, dir);
    let version = session.call("query-version", json!({}));
    let old = version["qemu"]["major"].as_u64().unwrap() < 8;
    session.quit();

    let dir = tempfile::Builder::new().prefix("mvm").tempdir().unwrap();
    let machine = testing::real(dir.path(), &format!("[hyperv]\n{ALL}"), &with_kvm()).unwrap();
    let mut args = under_tcg(&machine);
    if old {
        // It asks KVM for this one although KVM does not run.
        for arg in &mut args {
            *arg = arg.replace(",hv-vpindex=on", "");
        }
    }
    let mut session = Session::start_with(&machine, args, dir);
    let (path, _) = processors(&mut session);
    for key in keys.keys() {
        let wanted = match key.as_str() {
            "enabled" => continue,
            "vpindex" => json!(!old),
            "spinlocks" => json!(8191),
            "vendor-id" => json!("1234567890ab"),
            _ => json!(true),
        };
        let name = format!("hv-{key}");
        assert_eq!(property(&mut session, &path, &name), wanted, "{name}");
    }
    session.quit();
}

/// What only KVM has, where there is any: a guest need not run for it.
#[test]
fn timers_and_interrupt_controllers_of_the_kernel() {
    if std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_err()
        || Arch::host() != Arch::X86_64
    {
        eprintln!("skipped: no /dev/kvm");
        return;
    }
    for (text, ioapic, pit, kvmclock) in [
        (
            "machine.irqchip = 'kernel'\nclock.pit = 'discard'\nclock.kvmclock = true",
            "kvm-ioapic",
            Some("discard"),
            true,
        ),
        (
            "clock.pit = 'delay'\nclock.kvmclock = false",
            "kvm-ioapic",
            Some("delay"),
            false,
        ),
        ("machine.irqchip = 'split'", "ioapic", None, false),
        ("machine.irqchip = 'off'", "ioapic", None, false),
    ] {
        let dir = tempfile::Builder::new().prefix("mvm").tempdir().unwrap();
        // QEMU warns of one of its own under KVM, and so does not have one here.
        let local = !text.contains("off");
        let text = format!(
            "machine.type = 'pc'\ncpu.model = 'qemu64'\ncpu.features.apic = {local}\n{text}"
        );
        let machine = testing::real(dir.path(), &text, &with_kvm()).unwrap();
        if !installed(&machine) {
            return;
        }
        // A processor without anything, so that nothing is missing on any host.
        let args = command_line(&machine).shown().into_iter();
        let args = args.map(|arg| match arg.strip_prefix("qemu64") {
            Some(options) => format!("base{options}"),
            None => arg,
        });
        let mut session = Session::start_with(&machine, args.collect(), dir);
        assert!(of_type(&mut session, ioapic).is_some(), "{ioapic}: {text}");
        let found = of_type(&mut session, "kvm-apic").is_some();
        assert_eq!(found, local, "{text}");
        assert_eq!(policy(&mut session, "kvm-pit").as_deref(), pit, "{text}");
        let (path, _) = processors(&mut session);
        assert_eq!(
            property(&mut session, &path, "kvmclock"),
            json!(kvmclock),
            "{text}"
        );
        session.quit();
    }
}

#[test]
fn qemu_takes_what_the_firmware_is_to_say() {
    let text = "[smbios]\noem-strings = ['a,b', 'c=d']\n\
        [smbios.bios]\nvendor = 'V, Inc.'\nversion = '1'\ndate = '11/28/2026'\nrelease = '5.27'\n\
        [smbios.system]\nmanufacturer = 'M'\nproduct = 'P'\nversion = '2'\nserial = 'S'\nsku = 'K'\nfamily = 'F'\n\
        uuid = '01234567-89ab-cdef-0123-456789abcdef'\n\
        [smbios.baseboard]\nmanufacturer = 'M'\nproduct = 'P'\nversion = '3'\nserial = 'S'\nasset = 'A'\nlocation = 'L'\n\
        [smbios.chassis]\nmanufacturer = 'M'\nversion = '4'\nserial = 'S'\nasset = 'A'\nsku = 'K'\n";
    for (board, code) in [
        ("[machine]\ntype = 'q35'\n", ""),
        ("[machine]\ntype = 'pc'\n", ""),
        (
            "[firmware]\ntype = 'uefi'\n[machine]\narch = 'aarch64'\n",
            "/usr/share/AAVMF/AAVMF_CODE.fd",
        ),
    ] {
        if !code.is_empty() && !Path::new(code).exists() {
            continue;
        }
        let Some((mut session, _)) = runs(&format!("{board}{text}"), &[]) else {
            continue;
        };
        let uuid = session.call("query-uuid", json!({}));
        assert_eq!(uuid["UUID"], "01234567-89ab-cdef-0123-456789abcdef");
        session.quit();
    }
}
