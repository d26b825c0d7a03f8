//! What a profile makes, and which errors it gives.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use super::testing::{dirs, facts, images, layer, machine, machine_on, resolve_all};
use super::{AccelKind, Firmware, NicBackend};
use crate::error::{ExitCode, Report};
use crate::host::images::{Content, Look};
use crate::host::node::NodeProblem;
use crate::host::{KvmState, QemuFacts};
use crate::ids::Arch;
use crate::profile::schema::{Gic, Media};

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
fn a_missing_disk_says_where_it_looked_and_how_to_make_one() {
    let layer = layer("[disk.system]\nfile = { path = \"ubuntu's.qcow2\" }");
    let mut images = images(&layer, &dirs());
    let looked = vec!["/var/lib/mvm/images/ubuntu's.qcow2".into()];
    images
        .files
        .insert("ubuntu's.qcow2".into(), Look::Missing { looked });
    let error = resolve_all(&layer, &facts(), &images, &dirs()).unwrap_err();
    let report: Report = error.into();
    assert_eq!(report.code, ExitCode::Host);
    assert_eq!(
        report.to_string(),
        "error: disk `system`: there is no \"ubuntu's.qcow2\" (looked for \"/var/lib/mvm/images/ubuntu's.qcow2\")\n\
         hint: `mvm disk create \"ubuntu's.qcow2\" --size 20G` makes an empty one, \
         `mvm disk import FILE \"ubuntu's.qcow2\"` takes over one that you have\n"
    );
}

#[test]
fn formats_come_from_the_image() {
    let text = "[disk.a]\nfile = { path = \"a.img\" }\n[disk.b]\nfile = { path = \"b.qcow2\" }";
    let machine = machine(text).unwrap();
    let formats: Vec<String> = machine
        .disks
        .iter()
        .map(|disk| disk.image.as_ref().unwrap().format.to_string())
        .collect();
    assert_eq!(formats, ["raw", "qcow2"]);
    assert!(
        message("[disk.a]\nfile = { path = \"a.img\", format = \"qcow2\" }")
            .contains("not a qcow2")
    );
    let layer = layer("[disk.a]\nfile = { path = \"a.vmdk\" }");
    let mut images = images(&layer, &dirs());
    if let Some(Look::Found(facts)) = images.files.get_mut("a.vmdk") {
        facts.content = Some(Content::Other("a VMware (vmdk) image".into()));
    }
    let error = resolve_all(&layer, &facts(), &images, &dirs()).unwrap_err();
    let report: Report = error.into();
    assert!(report.chain[0].contains("VMware"), "{report}");
    assert!(report.hints[0].contains("mvm disk import"), "{report}");
}

#[test]
fn boot_order_and_names_order_disks() {
    let text = r#"
        [disk.a]
        file = { path = "a.img" }
        [disk.cd]
        empty = true
        media = "cdrom"
        [disk.z]
        file = { path = "z.img" }
    "#;
    let order = |text: &str| -> Vec<(String, Option<u32>)> {
        let disks = machine(text).unwrap().disks;
        disks.iter().map(|d| (d.id.to_string(), d.boot)).collect()
    };
    let named = |list: &[(&str, Option<u32>)]| -> Vec<(String, Option<u32>)> {
        list.iter()
            .map(|(id, boot)| ((*id).to_owned(), *boot))
            .collect()
    };
    assert_eq!(
        order(text),
        named(&[("a", Some(1)), ("z", Some(2)), ("cd", Some(3))])
    );
    assert_eq!(
        order(&format!("{text}\nboot = 1")),
        named(&[("z", Some(1)), ("a", None), ("cd", None)])
    );
    let twice = "[disk.a]\nboot = 1\nfile.path = \"a\"\n[disk.b]\nboot = 1\nfile.path = \"b\"";
    assert!(message(twice).contains("place 1"));
}

#[test]
fn disks_have_rules() {
    let with = |rest: &str| message(&format!("[disk.a]\nfile.path = \"a.img\"\n{rest}"));
    assert!(with("bus = \"ide\"").contains("q35 has no ide"));
    assert!(with("bus = \"virtio\"\nmedia = \"cdrom\"").contains("no CD-ROM"));
    assert!(with("aio = \"native\"").contains("writeback"));
    assert!(with("read-only = true\nephemeral = true").contains("both"));
    assert!(with("serial = \"012345678901234567890\"").contains("20"));
    assert!(with("serial = \"é\"").contains("ASCII"));
    assert!(with("boot = 0").contains("first place is 1"));
    assert!(message("[disk.a]\nempty = true").contains("cdrom"));
    assert!(message("[disk.a]\nread-only = true").contains("names no image"));
    let cdrom = machine("[disk.a]\nmedia = \"cdrom\"\nempty = true").unwrap();
    assert_eq!(cdrom.disks[0].media, Media::Cdrom);
    assert!(cdrom.disks[0].read_only);
}

#[test]
fn an_image_is_one_disk_unless_none_writes() {
    let twice = |rest: &str| {
        let text = format!(
            "[disk.a]\nfile.path = \"a.img\"\n{rest}\n[disk.b]\nfile.path = \"link\"\n{rest}"
        );
        let layer = layer(&text);
        let mut images = images(&layer, &dirs());
        let identity = (7, 7);
        for look in images.files.values_mut() {
            if let Look::Found(facts) = look {
                facts.identity = identity;
            }
        }
        resolve_all(&layer, &facts(), &images, &dirs())
    };
    let error = twice("").unwrap_err().to_string();
    assert!(error.contains("`a` and `b` are the same image"), "{error}");
    twice("read-only = true").unwrap();
    twice("ephemeral = true").unwrap();
}

#[test]
fn an_image_that_cannot_be_written_needs_an_overlay() {
    let layer = layer("[disk.a]\nfile.path = \"a.img\"");
    let mut images = images(&layer, &dirs());
    if let Some(Look::Found(facts)) = images.files.get_mut("a.img") {
        facts.writable = false;
    }
    let error = resolve_all(&layer, &facts(), &images, &dirs()).unwrap_err();
    let report: Report = error.into();
    assert_eq!(report.code, ExitCode::Host);
    assert!(report.hints[0].contains("ephemeral"), "{report}");
}

#[test]
fn networks_have_rules() {
    let two = |a: &str, b: &str| format!("[network.a]\n{a}\n[network.b]\n{b}");
    assert!(message("[network.a]\nmodel = \"virtio\"").contains("neither"));
    assert!(message("[network.a]\nuser = {}\ntap = {}").contains("both"));
    assert!(message("[network.a]\nuser.forward = [\"22\"]").contains("\"22\""));
    let forward = "user.forward = [\"2222:22\"]";
    assert!(message(&two(forward, "user.forward = [\"0.0.0.0:2222:22\"]")).contains("2222"));
    machine(&two(forward, "user.forward = [\"udp:2222:22\"]")).unwrap();
    let mac = "user = {}\nmac = \"52:54:00:00:00:01\"";
    assert!(message(&two(mac, mac)).contains("52:54:00:00:00:01"));
    let tap = "tap.name = \"mytap\"";
    assert!(message(&two(tap, tap)).contains("mytap"));
    assert!(message("[network.a]\ntap.name = \"eth0\"").contains("not a tap"));
    assert!(message("[network.a]\ntap.name = \"0123456789abcdef\"").contains("15"));
    let bridge = "[network.a]\ntap = { name = \"new\", bridge = \"eth0\" }";
    assert!(message(bridge).contains("no bridge eth0"));
    assert!(
        message("[network.a]\ntap = { name = \"n\", address = \"1.2.3.4\" }").contains("1.2.3.4")
    );
    assert!(
        message("[network.a]\nmodel = \"e1000\"\ntap = { name = \"n\", vhost = true }")
            .contains("virtio")
    );
    assert!(
        machine("[network.a]\nnone = {}\nuser = {}")
            .unwrap()
            .nics
            .is_empty()
    );
}

#[test]
fn vhost_is_used_where_the_host_has_it() {
    let vhost = |facts: &crate::host::HostFacts| {
        let machine = machine_on("[network.a]\ntap.name = \"mytap\"", facts).unwrap();
        matches!(machine.nics[0].backend, NicBackend::Tap { vhost: true, .. })
    };
    let mut facts = facts();
    assert!(vhost(&facts));
    facts.vhost_net.usable = false;
    facts.vhost_net.why_not = Some(NodeProblem::Missing);
    assert!(!vhost(&facts));
    let asked = "[network.a]\ntap = { name = \"mytap\", vhost = true }";
    let report: Report = machine_on(asked, &facts).unwrap_err().into();
    assert_eq!(report.code, ExitCode::Host);
    assert!(report.hints[0].contains("modprobe vhost_net"));
    facts.vhost_vsock.usable = false;
    let report: Report = machine_on("[vsock]", &facts).unwrap_err().into();
    assert_eq!(report.code, ExitCode::Host);
    assert!(report.hints[0].contains("modprobe vhost_vsock"));
}

#[test]
fn consoles_and_channels_have_rules() {
    let ids = |text: &str| -> Vec<String> {
        let consoles = machine(text).unwrap().consoles;
        consoles
            .iter()
            .map(|c| format!("{}:{}", c.id, c.virtio))
            .collect()
    };
    assert_eq!(ids("[console.hvc]"), ["main:false", "hvc:true"]);
    assert_eq!(ids("[console.uart]\ndevice = \"serial\""), ["uart:false"]);
    assert!(ids("[console.main]\ndevice = \"none\"").is_empty());
    let two = "[console.main]\n[console.b]\ndevice = \"serial\"";
    assert!(message(two).contains("serial port"));
    assert!(
        message("[agent]\n[channel.x]\nport = \"org.qemu.guest_agent.0\"").contains("the agent")
    );
    assert!(message("[channel.x]\nport = \"a/b\"").contains("a/b"));
    assert!(
        machine("[channel.x]\nport = \"a\"\nenabled = false")
            .unwrap()
            .channels
            .is_empty()
    );
    let many: String = (0..22).map(|n| format!("[channel.c{n}]\n")).collect();
    assert!(message(&many).contains("22 channels"));
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
fn shares_are_folders() {
    let share = |rest: &str| format!("[share.data]\n{rest}");
    assert!(message(&share("path = \"data\"")).contains("absolute"));
    assert!(message(&share("")).contains("no folder"));
    let tag = format!("path = \"/srv\"\ntag = \"{}\"", "x".repeat(32));
    assert!(message(&share(&tag)).contains("31"));
    let machine = machine(&share("path = \"/srv\"")).unwrap();
    assert_eq!(machine.shares[0].tag, "data");
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
        for variants in std::iter::once(vec![]).chain(names) {
            let told = format!("{} {variants:?}", listed.name);
            let layer = load(variants).layer;
            let images = images(&layer, &dirs);
            let machine = resolve_all(&layer, &facts(), &images, &dirs);
            assert!(machine.is_ok(), "{told}: {}", machine.unwrap_err());
        }
    }
}
