//! What a profile makes, and which errors it gives.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

mod devices;
mod firmware;
mod shares;
mod storage;
mod tpm;

use super::testing::{dirs, facts, images, machine, machine_on, resolve_all};
use super::{AccelKind, Firmware};
use crate::error::{ExitCode, Report};
use crate::host::{KvmState, QemuFacts};
use crate::ids::Arch;
use crate::profile::schema::Gic;

fn error(text: &str) -> Report {
    machine(text).unwrap_err().into()
}

fn message(text: &str) -> String {
    error(text).chain.join(": ")
}

#[test]
fn an_empty_profile_is_a_small_machine() {
    let machine = machine("").unwrap();
    assert_eq!(machine.board.machine_type, "q35");
    assert_eq!(machine.accel.chosen, AccelKind::Tcg);
    assert_eq!(machine.accel.reason, facts().kvm.reason);
    assert_eq!((machine.cpu.model.as_str(), machine.cpu.count), ("max", 1));
    assert_eq!(machine.memory.to_string(), "1G");
    assert_eq!(machine.consoles.len(), 1);
    assert!(!machine.consoles[0].virtio);
    assert!(!machine.agent && !machine.balloon && machine.rng.is_none());
    assert_eq!(machine.notes.len(), 1, "{:?}", machine.notes);
}

#[test]
fn kvm_is_taken_where_it_is_healthy() {
    let mut facts = facts();
    facts.kvm.state = KvmState::Healthy;
    facts.kvm.reason = "guests run at the host's speed".into();
    let chosen = |text: &str| {
        let machine = machine_on(text, &facts).unwrap();
        (
            machine.accel.chosen,
            machine.cpu.model,
            machine.accel.reason,
        )
    };
    assert_eq!(
        chosen(""),
        (AccelKind::Kvm, "host".into(), facts.kvm.reason.clone())
    );
    assert_eq!(chosen("machine.accel = \"tcg\"").0, AccelKind::Tcg);
    let (accel, cpu, reason) = chosen("machine.arch = \"aarch64\"");
    assert_eq!(
        (accel, cpu.as_str()),
        (AccelKind::Tcg, "max,pauth-impdef=on")
    );
    assert!(
        reason.contains("aarch64") && reason.contains("x86_64"),
        "{reason}"
    );
}

#[test]
fn without_apics_in_the_kernel_there_is_no_more_than_qemu_can_start() {
    let mut facts = facts();
    facts.kvm.state = KvmState::Healthy;
    let model = |text: &str| machine_on(text, &facts).map(|machine| machine.cpu.model);
    let off = "machine.irqchip = \"off\"\n";
    assert_eq!(model(off).unwrap(), "host,kvm-asyncpf-int=off");
    // Where KVM does not offer it anyway.
    for (text, wanted) in [
        ("cpu.hide-hypervisor = true", "host,kvm=off"),
        ("cpu.model = \"qemu64\"", "qemu64"),
    ] {
        assert_eq!(model(&format!("{off}{text}")).unwrap(), wanted);
    }
    assert_eq!(model("machine.irqchip = \"split\"").unwrap(), "host");

    let synic = "hyperv = { vpindex = true, synic = true }\n";
    let report: Report = machine_on(&format!("{off}{synic}"), &facts)
        .unwrap_err()
        .into();
    assert_eq!(report.code, ExitCode::Profile);
    assert!(report.chain[0].contains("local APICs"), "{report}");
    let split = format!("machine.irqchip = \"split\"\n{synic}");
    assert_eq!(model(&split).unwrap(), "host,hv-vpindex=on,hv-synic=on");
}

#[test]
fn kvm_that_is_asked_for_and_no_good_is_an_error_with_the_reason() {
    let report = error("machine.accel = \"kvm\"");
    assert_eq!(report.code, ExitCode::Host);
    assert!(report.chain[0].contains("900 times slower"), "{report}");
    assert!(report.hints[0].contains("doctor"));

    let report = error("cpu.model = \"host\"");
    assert_eq!(report.code, ExitCode::Host);
    assert!(report.chain[0].contains("900 times slower"), "{report}");
}

#[test]
fn machine_types_are_told_apart() {
    let report = error("machine.type = \"micovm\"");
    assert_eq!(report.code, ExitCode::Profile);
    assert_eq!(report.hints[0], "did you mean `microvm`?");
    assert_eq!(
        report.hints[1],
        "it has microvm, pc, q35, pc-i440fx-7.2, pc-q35-2.12 to pc-q35-7.2"
    );
    let report = error("machine.type = \"virt\"");
    assert!(
        report.hints[0].contains("machine.arch = \"aarch64\""),
        "{report}"
    );
    assert_eq!(
        message("machine.type = \"isapc\""),
        "mvm does not drive the machine type `isapc`"
    );
    assert_eq!(
        machine("machine.type = \"pc-i440fx-7.2\"")
            .unwrap()
            .board
            .kind,
        super::BoardKind::Pc
    );
    let mut facts = facts();
    facts.qemu.insert(
        Arch::X86_64,
        QemuFacts::Missing {
            looked: vec!["/usr/bin/qemu-system-x86_64".into()],
        },
    );
    let report: Report = machine_on("", &facts).unwrap_err().into();
    assert_eq!(report.code, ExitCode::Host);
    assert!(report.hints[0].contains("qemu-system-x86"), "{report}");
}

#[test]
fn limits_of_processors_are_named() {
    let text =
        "machine.arch = \"aarch64\"\nmachine.gic = \"2\"\nboot.kernel = \"k\"\ncpu.count = 9";
    let report = error(text);
    assert_eq!(
        report.chain[0],
        "9 processors are more than the 8 that a guest with GICv2 can have"
    );
    assert!(report.hints[0].contains("gic"));
    assert!(message("cpu.count = 289").contains("288"));
    let machine = machine("machine.arch = \"aarch64\"\nboot.kernel = \"k\"").unwrap();
    assert_eq!(machine.board.gic, Some(Gic::V3));
    assert!(message("machine.gic = \"3\"").contains("q35"));
    assert_eq!(
        message("cpu.model = \"qemu46\""),
        "this QEMU (7.2.22) has no CPU model `qemu46` for x86_64"
    );
}

#[test]
fn memory_has_a_floor() {
    assert!(message("memory.size = \"8M\"").contains("16M"));
    assert!(message("memory.size = \"16777217\"").contains("mebibytes"));
    let machine = machine("memory.size = \"64G\"\nboot.kernel = \"k\"").unwrap();
    assert_eq!(
        machine.notes,
        ["the guest's 64G of memory are more than the 12G that this host has free"]
    );
}

#[test]
fn firmware_suits_the_board() {
    let firmware = |text: &str| machine(text).unwrap().firmware;
    assert_eq!(firmware(""), Firmware::Builtin);
    let arm = "machine.arch = \"aarch64\"\n";
    assert_eq!(
        firmware(&format!("{arm}boot.kernel = \"k\"")),
        Firmware::Builtin
    );
    let Firmware::Flash { code, vars, .. } = firmware(arm) else {
        panic!("no flash");
    };
    assert_eq!(code.to_str(), Some("/usr/share/AAVMF/AAVMF_CODE.fd"));
    assert_eq!(
        vars.unwrap().path.to_str(),
        Some("/var/lib/mvm/test/nvram.fd")
    );
    let Firmware::Flash { code, smm, .. } = firmware("firmware.type = \"uefi\"") else {
        panic!("no flash");
    };
    // Not the first that suits, but the first that asks for nothing special.
    assert_eq!(code.to_str(), Some("/usr/share/OVMF/OVMF_CODE_4M.fd"));
    assert!(!smm);
    let report = error("machine.type = \"pc\"\nfirmware.type = \"uefi\"");
    assert_eq!(report.code, ExitCode::Host);
    assert!(report.hints[0].contains("ovmf"), "{report}");
    assert!(message(&format!("{arm}firmware.type = \"bios\"")).contains("no BIOS"));
    assert!(message("firmware.type = \"none\"").contains("neither"));
    assert!(message("boot.append = \"x\"").contains("boot.kernel"));
}

#[test]
fn a_table_is_enough_to_have_the_device() {
    let machine = machine("[rng]\n[balloon]\n[watchdog]\n[vsock]\n[agent]").unwrap();
    assert!(machine.rng.is_some() && machine.balloon && machine.watchdog.is_some());
    assert!(machine.vsock.is_some_and(|cid| cid >= 3) && machine.agent);
    let off = "rng.enabled = false\nballoon.enabled = false\nwatchdog.enabled = false";
    let machine = super::testing::machine(off).unwrap();
    assert!(machine.rng.is_none() && !machine.balloon && machine.watchdog.is_none());
}

#[test]
fn a_crash_that_is_not_the_end_needs_the_panic_device() {
    let has = |text: &str| machine(text).unwrap().panic;
    assert!(!has("") && has("[panic]"));
    assert!(has("lifecycle.restart = \"on-crash\""));
    assert!(has("lifecycle.on-crash = \"preserve\""));
    assert!(!has(
        "lifecycle.on-crash = \"restart\"\npanic.enabled = false"
    ));
    let small = machine("machine.type = \"microvm\"\nlifecycle.restart = \"always\"").unwrap();
    assert!(!small.panic);
    assert!(small.notes.iter().any(|note| note.contains("panic device")));
}

#[test]
fn small_boards_say_what_they_lack() {
    let microvm = |rest: &str| message(&format!("machine.type = \"microvm\"\n{rest}"));
    assert!(microvm("[watchdog]").contains("no PCI"));
    assert!(microvm("[iommu]\nmodel = \"virtio\"").contains("q35 and virt"));
    assert!(microvm("[disk.a]\nfile.path = \"a\"\nbus = \"nvme\"").contains("no nvme"));
    assert!(microvm("[network.a]\nuser = {}\nmodel = \"e1000\"").contains("e1000"));
    let many: String = (0..20)
        .map(|n| format!("[network.n{n}]\nuser = {{}}\n"))
        .collect();
    assert!(microvm(&many).contains("20 network cards"));
    assert!(microvm("[panic]").contains("no place for a panic device"));
    let arm = "machine.arch = \"aarch64\"\n[watchdog]\naction = \"inject-nmi\"";
    assert!(message(arm).contains("non-maskable"));
}

#[test]
fn names_do_not_collide() {
    let text = "[disk.a]\nfile.path = \"a\"\n[network.a]\nuser = {}";
    assert!(message(text).contains("disk `a` and network `a`"));
    let text = "[disk.a]\nfile.path = \"a\"\n[disk.a-file]\nfile.path = \"b\"";
    assert!(message(text).contains("a part of disk `a`"));
    assert!(message("[disk.mvm-x]\nfile.path = \"a\"").contains("mvm-"));
    assert_eq!(
        message("boot.kernel = \"k\"\nboot.append = \"a\\u0000b\""),
        "`boot.append` holds a NUL character, which cannot be handed to QEMU"
    );
}

#[test]
fn what_this_qemu_lacks_is_named_with_its_version() {
    let mut facts = facts();
    if let Some(QemuFacts::Found(caps)) = facts.qemu.get_mut(&Arch::X86_64) {
        caps.devices = ["virtio-blk-pci"].into_iter().collect();
        caps.netdevs = ["tap"].into_iter().collect();
        caps.unloadable.insert("nvme".into(), "hw-nvme.so".into());
    }
    let message = |text: &str| machine_on(text, &facts).unwrap_err().to_string();
    assert_eq!(
        message("[disk.a]\nfile.path = \"a\"\nbus = \"nvme\""),
        "disk `a` needs the device nvme, which this QEMU (7.2.22) lacks: \
         the module hw-nvme.so that it is in is not installed"
    );
    if let Some(QemuFacts::Found(caps)) = facts.qemu.get_mut(&Arch::X86_64) {
        caps.devices = super::testing::caps(Arch::X86_64).devices;
    }
    let error = machine_on("[network.a]\nuser = {}", &facts).unwrap_err();
    assert!(error.to_string().contains("libslirp"), "{error}");
}

#[test]
fn every_built_in_profile_is_a_machine_with_each_of_its_variants() {
    let mut dirs = dirs();
    // Not the profiles of whoever runs the test.
    dirs.config = "/nonexistent/mvm".into();
    dirs.system_config = dirs.config.clone();
    for listed in crate::profile::list(&dirs).unwrap() {
        let load = |variants: Vec<String>| {
            let choices = crate::profile::Choices {
                variants,
                ..Default::default()
            };
            crate::profile::load(&dirs, &listed.name, &choices).unwrap()
        };
        let names = load(vec![]).variants.into_iter().map(|one| vec![one.name]);
        // Without its GPU it is another's guest, whose viewers have a port.
        let names = names.filter(|names| names[0] != "spice-gst");
        for variants in std::iter::once(vec![]).chain(names) {
            let told = format!("{} {variants:?}", listed.name);
            let layer = load(variants).layer;
            let images = images(&layer, &dirs);
            let mut facts = facts();
            facts.memory.hugepages = vec![crate::host::memory::HugepagePool {
                size: 2 << 20,
                total: 0,
                free: 0,
            }];
            let Err(error) = resolve_all(&layer, &facts, &images, &dirs) else {
                continue;
            };
            // This host has neither a GPU nor a screen; those that want one have tests of their own on such hosts.
            let report: Report = error.into();
            assert_eq!(report.code, ExitCode::Host, "{told}: {report}");
            let wants = [
                "GPU",
                "mediated",
                "graphical session",
                "SMBIOS",
                "in real time",
            ];
            let about = wants.iter().any(|word| report.chain[0].contains(word));
            assert!(about, "{told}: {report}");
        }
    }
}
