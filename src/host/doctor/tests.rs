//! Findings on made-up hosts, and on this one.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::collections::BTreeMap;

use super::*;
use crate::dirs::Dirs;
use crate::host::cpu::{CpuFacts, VirtFlags};
use crate::host::kvm::{AbsentWhy, KvmFacts, KvmState};
use crate::host::memory::MemoryFacts;
use crate::host::node::NodeProblem;
use crate::host::qemu::{QemuFacts, Version};
use crate::host::{FirmwareFacts, LinkFacts, OsRelease};

fn node(path: &str, why_not: Option<NodeProblem>) -> DeviceNode {
    DeviceNode {
        path: path.into(),
        usable: why_not.is_none(),
        why_not,
    }
}

fn caps(arch: Arch, version: Version, accels: &[&str]) -> QemuFacts {
    let empty = serde_json::json!({
        "binary": "/usr/bin/qemu", "arch": arch, "version": version, "package": "", "machines": {}, "cpus": {},
        "devices": "", "objects": "", "properties": {}, "netdevs": "", "netdev_options": "", "chardevs": "",
        "displays": "", "display_options": "", "audiodevs": "", "blockdevs": "", "aio": "",
        "accels": accels.join(" "), "options": {}, "commands": "", "json_device": true, "unloadable": {},
    });
    QemuFacts::Found(Box::new(serde_json::from_value(empty).unwrap()))
}

fn host(kvm: KvmState) -> HostFacts {
    let arch = Arch::X86_64;
    let kvm = KvmFacts {
        state: kvm,
        reason: "the reason".into(),
        ..KvmFacts::not_asked()
    };
    HostFacts {
        arch,
        kernel: "6.1.0".into(),
        os: OsRelease::parse("ID=debian\n"),
        cpu: CpuFacts {
            online: 4,
            virt: VirtFlags {
                svm: true,
                ..VirtFlags::default()
            },
            ..CpuFacts::default()
        },
        realtime: crate::host::RealtimeFacts::default(),
        dmi: crate::host::DmiFacts::default(),
        programs: crate::host::Programs::default(),
        tpm: None,
        memory: MemoryFacts {
            total: 8 << 30,
            available: 6 << 30,
            hugepages: Vec::new(),
        },
        kvm,
        vhost_net: node("/dev/vhost-net", None),
        sessions: Vec::new(),
        ports: std::collections::BTreeSet::new(),
        vhost_vsock: node("/dev/vhost-vsock", Some(NodeProblem::Missing)),
        tun: node("/dev/net/tun", None),
        links: LinkFacts::default(),
        users: crate::host::UserFacts::default(),
        devices: crate::host::DeviceFacts::default(),
        qemu: BTreeMap::from([(arch, caps(arch, Version(7, 2, 0), &["kvm", "tcg"]))]),
        firmware: FirmwareFacts::default(),
    }
}

fn around() -> Surroundings {
    Surroundings {
        qemu_img: Some("/usr/bin/qemu-img".into()),
        programs: Programs {
            swtpm: Some("/usr/bin/swtpm".into()),
            virtiofsd: None,
        },
        kvm_node: node("/dev/kvm", None),
        user: Some("ada".into()),
        unwritable: Vec::new(),
    }
}

fn get(facts: &HostFacts, around: &Surroundings, id: &str) -> Finding {
    let mut all = findings(facts, around).into_iter().filter(|f| f.id == id);
    let found = all.next().unwrap();
    assert!(all.next().is_none(), "{id} is there twice");
    found
}

#[test]
fn every_state_of_kvm_has_a_fix_that_fits() {
    for (why, words) in [
        (AbsentWhy::NoModule, "modprobe kvm_amd"),
        (AbsentWhy::Disabled, "firmware set-up"),
        (AbsentWhy::NoCpuSupport, "firmware set-up"),
        (AbsentWhy::NoNesting, "nested=1"),
        (AbsentWhy::NoEl2, "EL2"),
        (AbsentWhy::NoNode, "--device /dev/kvm"),
        (AbsentWhy::Busy, "VirtualBox"),
        (AbsentWhy::Other, "dmesg"),
    ] {
        let found = get(&host(KvmState::Absent(why)), &around(), "kvm");
        assert_eq!(found.level, Level::Warn);
        assert!(found.text.contains("the reason"));
        assert!(found.fix.unwrap().contains(words), "{why:?}");
    }
    let healthy = get(&host(KvmState::Healthy), &around(), "kvm");
    assert_eq!((healthy.level, healthy.fix), (Level::Ok, None));
    let slow = get(&host(KvmState::Slow), &around(), "kvm");
    assert!(slow.level == Level::Warn && slow.fix.unwrap().contains("TCG"));
}

#[test]
fn a_denied_kvm_names_group_and_user() {
    let facts = host(KvmState::Absent(AbsentWhy::Denied));
    let denied = |group: Option<&str>| Surroundings {
        kvm_node: node(
            "/dev/kvm",
            Some(NodeProblem::Denied {
                group: group.map(str::to_owned),
                mode: 0o660,
            }),
        ),
        ..around()
    };
    let fix = get(&facts, &denied(Some("kvm")), "kvm").fix.unwrap();
    assert_eq!(fix, "`sudo usermod -aG kvm ada`, then log in anew");
    let fix = get(&facts, &denied(None), "kvm").fix.unwrap();
    assert!(fix.contains("chgrp kvm /dev/kvm"), "{fix}");
}

#[test]
fn a_guest_can_run_without_kvm_but_not_without_qemu() {
    let mut facts = host(KvmState::Broken);
    assert!(could_run_guest(&findings(&facts, &around())));
    // A QEMU that cannot emulate needs KVM.
    facts.qemu = BTreeMap::from([(facts.arch, caps(facts.arch, Version(9, 0, 0), &["kvm"]))]);
    assert!(!could_run_guest(&findings(&facts, &around())));
    let missing = |looked: &str| QemuFacts::Missing {
        looked: vec![looked.into()],
    };
    facts.qemu = BTreeMap::from([
        (Arch::X86_64, missing("/bin/a")),
        (Arch::Aarch64, missing("/bin/b")),
    ]);
    let own = get(&facts, &around(), "qemu-x86_64");
    assert_eq!(own.level, Level::Error);
    assert!(own.text.contains("/bin/a") && own.fix.unwrap().contains("qemu-system-x86`"));
    let other = get(&facts, &around(), "qemu-aarch64");
    assert_eq!(other.level, Level::Info);
    assert!(!could_run_guest(&findings(&facts, &around())));
}

#[test]
fn what_is_missing_is_told_with_its_package() {
    let facts = host(KvmState::Healthy);
    let bare = Surroundings {
        qemu_img: None,
        ..around()
    };
    assert!(
        get(&facts, &bare, "qemu-img")
            .fix
            .unwrap()
            .contains("qemu-utils")
    );
    let firmware = get(&facts, &bare, "firmware-x86_64");
    assert_eq!(firmware.level, Level::Warn);
    assert!(firmware.fix.unwrap().contains("ovmf"));
    let vsock = get(&facts, &bare, "vhost-vsock");
    assert!(vsock.level == Level::Info && vsock.fix.unwrap().contains("modprobe vhost_vsock"));
    assert_eq!(get(&facts, &bare, "vhost-net").level, Level::Ok);
}

#[test]
fn an_old_qemu_and_little_memory_are_warnings() {
    let mut facts = host(KvmState::Healthy);
    facts.qemu = BTreeMap::from([(
        facts.arch,
        caps(facts.arch, Version(6, 2, 0), &["kvm", "tcg"]),
    )]);
    facts.memory.available = 500 << 20;
    assert_eq!(get(&facts, &around(), "qemu-x86_64").level, Level::Warn);
    let memory = get(&facts, &around(), "memory");
    assert_eq!(memory.level, Level::Warn);
    assert_eq!(memory.text, "8.0 GiB of memory, 500 MiB available");
}

#[test]
fn the_json_is_what_scripts_rely_on() {
    let found = get(&host(KvmState::Healthy), &around(), "tun");
    let json = serde_json::to_string(&found).unwrap();
    assert_eq!(
        json,
        r#"{"id":"tun","level":"ok","text":"/dev/net/tun: taps can be used","fix":null}"#
    );
}

#[test]
fn ids_are_unique_on_this_host_too() {
    let roots = Roots::host(None);
    let needs = crate::host::Needs {
        qemu: Arch::ALL.to_vec(),
        firmware: true,
        ..Default::default()
    };
    let facts = HostFacts::read(&roots, &needs);
    let all = findings(&facts, &Surroundings::read(&roots, &Dirs::from_env()));
    let mut ids: Vec<_> = all.iter().map(|f| f.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all.len());
    assert!(
        all.iter()
            .all(|f| !f.text.is_empty() && !f.text.ends_with('.'))
    );
}

#[test]
fn the_user_of_the_settings_is_looked_at() {
    let level = |found: Option<crate::host::users::Ids>, kvm_group| {
        let mut facts = host(KvmState::Healthy);
        facts.users = crate::host::UserFacts {
            asked: Some(crate::host::users::Asked {
                name: "qemu".to_owned(),
                found,
            }),
            kvm_group,
            ..crate::host::UserFacts::default()
        };
        super::user::user(&facts).map(|finding| finding.level)
    };
    assert_eq!(super::user::user(&host(KvmState::Healthy)), None);
    assert_eq!(level(None, Some(104)), Some(Level::Warn));
    assert_eq!(
        level(Some(crate::host::users::Ids::default()), None),
        Some(Level::Warn)
    );
    assert_eq!(
        level(Some(crate::host::users::Ids::default()), Some(104)),
        Some(Level::Ok)
    );
}
