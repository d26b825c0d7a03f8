//! The guests of the documents that people come from, each started on the QEMU that is installed and asked for what
//! its profile says. What this machine lacks has a stand-in, which [`stand_in`] names; and each guest with a device of
//! the host is started once with that device as it is: QEMU, which refuses properties first, may then miss nothing
//! but the device.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::session::{Session, installed, prepare, program};
use crate::host::devices::DeviceFacts;
use crate::host::memory::HugepagePool;
use crate::host::{HostFacts, Roots, Session as Desktop, Sysfs};
use crate::hosts::Host;
use crate::machine::testing::{dirs_in, facts, real_layer};
use crate::machine::{HostDeviceKind, Machine, wanted};
use crate::profile::{Choices, load};
use crate::qemu::command_line;

/// A host with the devices of that tree, huge pages, and somebody who sits at it.
fn host(tree: &str) -> HostFacts {
    let host = Host::new(tree);
    let devices = DeviceFacts::read(&Roots {
        sysfs: Sysfs::at(host.sys()),
        root: host.root().to_owned(),
        cache: None,
        user_config: None,
        around_devices: Some(host.root().to_owned()),
        leases: host.root().join("run/mvm-host"),
    });
    let mut facts = HostFacts { devices, ..facts() };
    facts.cpu.online = 16;
    facts.memory.hugepages = vec![HugepagePool {
        size: 2 << 20,
        total: 0,
        free: 0,
    }];
    facts.sessions = vec![Desktop {
        uid: 0,
        user: "root".to_owned(),
        runtime: Some("/run/user/0".into()),
        x11: Some(":0".to_owned()),
        xauthority: None,
        wayland: None,
        pulse: Some("/run/user/0/pulse/native".into()),
        pipewire: None,
        known: true,
        bus: None,
    }];
    facts
}

/// The guest of a profile with these flags, with images that are there.
fn machine(root: &Path, name: &str, choices: &Choices, facts: &HostFacts) -> Machine {
    let dirs = dirs_in(root);
    let profile = load(&dirs, name, choices).unwrap();
    for file in wanted(&profile.layer) {
        let path = root.join(file);
        if path.exists() || file.starts_with("/dev/") {
            continue;
        }
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if file.ends_with(".qcow2") {
            let mut command = Command::new("qemu-img");
            command
                .args(["create", "-q", "-f", "qcow2"])
                .arg(&path)
                .arg("1G");
            assert!(command.status().unwrap().success());
        } else {
            std::fs::write(path, vec![0; 1 << 20]).unwrap();
        }
    }
    real_layer(root, &dirs, &profile.layer, facts).unwrap()
}

/// An argument with what this machine lacks replaced: devices of VFIO by one that is always there, at the same
/// place; windows and the host's OpenGL by none; PulseAudio by silence; huge pages by ordinary ones, as the test
/// takes none of the host's; TCG's processor by one of Intel's, as QEMU warns of threads of AMD's; and shared pictures where the host has no `/dev/udmabuf`.
fn stand_in(switch: &str, value: &str, with_vfio: bool) -> String {
    match switch {
        "-display" => return "none".to_owned(),
        "-cpu" if value.starts_with("max") && !value.contains("pauth") => {
            return format!("{value},vendor=GenuineIntel");
        }
        "-spice" => return value.replace(",gl=on", ""),
        "-audiodev" if value.starts_with("pa,") => {
            let id = value.split(',').find(|part| part.starts_with("id="));
            return format!("none,{}", id.unwrap());
        }
        _ => {}
    }
    let Ok(Value::Object(mut object)) = serde_json::from_str::<Value>(value) else {
        return value.to_owned();
    };
    if !with_vfio && object.get("driver").and_then(Value::as_str) == Some("vfio-pci") {
        object["driver"] = "pci-testdev".into();
        let kept = ["driver", "id", "bus", "addr", "multifunction"];
        object.retain(|key, _| kept.contains(&key.as_str()));
    }
    if switch == "-object" {
        object.retain(|key, _| {
            !matches!(
                key.as_str(),
                "hugetlb" | "hugetlbsize" | "prealloc" | "prealloc-threads"
            )
        });
    }
    if !Path::new("/dev/udmabuf").exists() {
        object.remove("blob");
    }
    Value::Object(object).to_string()
}

fn stand_ins(args: &[String], with_vfio: bool) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for arg in args {
        let switch = out.last().cloned().unwrap_or_default();
        out.push(stand_in(&switch, arg, with_vfio));
    }
    out
}

/// What QEMU says of the guest is what the profile says.
fn check(session: &mut Session, machine: &Machine, row: &str) {
    let get = |session: &mut Session, path: &str, property: &str| {
        session.call("qom-get", json!({ "path": path, "property": property }))
    };
    let there = session.names("/machine/peripheral");
    for device in &machine.host_devices {
        assert!(
            there.contains(device.id.as_str()),
            "{row}: {} in {there:?}",
            device.id
        );
    }
    let cpus = session.call("query-cpus-fast", json!({}));
    assert_eq!(
        cpus.as_array().unwrap().len(),
        machine.cpu.count as usize,
        "{row}"
    );
    let memory = session.call("query-memory-size-summary", json!({}));
    assert_eq!(memory["base-memory"], machine.memory.as_bytes(), "{row}");
    let backends = session.call("query-memdev", json!({}));
    let backend = backends
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["id"] == "mvm-memory");
    match &machine.ram.backend {
        Some(wanted) => assert_eq!(backend.unwrap()["share"], wanted.share, "{row}: {backends}"),
        None => assert!(backend.is_none(), "{row}: {backends}"),
    }
    let blocks = session.call("query-block", json!({}));
    for disk in &machine.disks {
        let path = &disk.image.as_ref().unwrap().path;
        let found = blocks.as_array().unwrap().iter();
        let mut found = found.filter(|block| block["inserted"]["image"]["filename"] == json!(path));
        assert!(found.next().is_some(), "{row}: {path:?} in {blocks}");
    }
    for nic in &machine.nics {
        let path = format!("/machine/peripheral/{}", nic.id);
        let mac = get(session, &path, "mac");
        assert_eq!(mac.as_str().unwrap(), nic.mac.to_string(), "{row}");
    }
    if machine.tpm.is_some() {
        let tpm = session.call("query-tpm", json!({}));
        assert_eq!(tpm[0]["model"], "tpm-crb", "{row}: {tpm}");
    }
    // Where a driver looks for an integrated GPU, and nothing else: before the firmware runs, only the root bus.
    let buses = session.call("query-pci", json!({}));
    let on_root = |slot: u64| {
        let devices = buses[0]["devices"].as_array().unwrap().iter();
        let mut devices =
            devices.filter(|device| device["slot"] == slot && device["function"] == 0);
        devices
            .next()
            .and_then(|device| device["qdev_id"].as_str().map(str::to_owned))
    };
    let integrated = machine.host_devices.iter().any(|device| {
        let bdf = |kind: &HostDeviceKind| {
            kind.function()
                .map(|function| function.physical().to_string())
        };
        device.id.as_str() == "gpu" && bdf(&device.kind).as_deref() == Some("0000:00:02.0")
    });
    if integrated {
        let slot = if row.contains("upt") { 4 } else { 2 };
        assert_eq!(on_root(slot).as_deref(), Some("gpu"), "{row}: {buses}");
    }
}

/// QEMU with the host's own devices in it misses them, and nothing else.
fn misses_the_device(machine: &Machine, row: &str) {
    prepare(machine);
    let args = stand_ins(&command_line(machine).shown(), true);
    let ended = Command::new(program(machine))
        .args(args)
        .arg("-S")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success(), "{row}: {said}");
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| !line.contains("warning:"))
        .collect();
    let about = |line: &&str| {
        line.contains("vfio")
            && (line.contains("no such host device") || line.contains("No such file"))
    };
    assert!(
        !lines.is_empty() && lines.iter().all(about),
        "{row}: {said}"
    );
}

/// The name of the document's guest, the profile, the GPU, the display, the firmware, variants.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
);

const PORTFOLIO: &[Row] = &[
    ("ubuntu_vnc", "ubuntu", "", "vnc", "", &[]),
    ("ubuntu_spice", "ubuntu", "", "spice", "", &[]),
    ("ubuntu_gvtd", "ubuntu", "gvtd", "", "", &[]),
    ("ubuntu_sriov", "ubuntu", "sriov", "", "", &[]),
    ("ubuntu_spice-gst", "ubuntu", "sriov", "spice", "", &[]),
    ("ubuntu_rt_headless", "ubuntu_rt", "", "", "", &[]),
    ("windows_vnc_ovmf", "windows", "", "vnc", "", &[]),
    ("windows_spice_ovmf", "windows", "", "spice", "", &[]),
    ("windows_gvtd_ovmf", "windows", "gvtd", "", "", &[]),
    ("windows_gvtd_upt_ovmf", "windows", "upt", "", "", &[]),
    (
        "windows_gvtd_upt_seabios",
        "windows",
        "upt",
        "",
        "bios",
        &[],
    ),
    ("windows_sriov_ovmf", "windows", "sriov", "", "", &[]),
    ("windows_sriov_seabios", "windows", "sriov", "", "bios", &[]),
    ("android_virtio-gpu", "android", "virtio", "", "", &[]),
    ("android_gvtd", "android", "gvtd", "", "", &[]),
    ("android_sriov", "android", "sriov", "", "", &[]),
    ("centos_vnc", "centos", "", "vnc", "", &[]),
    ("redhat_vnc", "redhat", "", "vnc", "", &[]),
    ("windows11_vnc_ovmf", "windows11", "", "vnc", "", &[]),
    ("windows11_spice_ovmf", "windows11", "", "spice", "", &[]),
    ("windows11_sriov_ovmf", "windows11", "sriov", "", "", &[]),
    (
        "windows11_sriov_seabios",
        "windows11",
        "sriov",
        "",
        "bios",
        &[],
    ),
];

fn start(rows: &[Row], facts: &HostFacts) {
    for (row, profile, gpu, display, firmware, variants) in rows {
        let some = |text: &&str| Some((*text).to_owned()).filter(|text| !text.is_empty());
        let choices = Choices {
            gpu: some(gpu),
            display: some(display),
            firmware: some(firmware),
            variants: variants.iter().map(|name| (*name).to_owned()).collect(),
            // This host has no vhost-vsock, and its ports may be somebody's.
            set: [
                "vsock.enabled=false",
                "memory.size=\"512M\"",
                "network.lan.user.forward=[]",
            ]
            .map(str::to_owned)
            .to_vec(),
            ..Choices::default()
        };
        let dir = tempfile::Builder::new().prefix("mvm").tempdir().unwrap();
        let machine = machine(dir.path(), profile, &choices, facts);
        if !installed(&machine) {
            eprintln!(
                "skipped: {} is not installed",
                machine.qemu.binary.display()
            );
            return;
        }
        let has_vfio = machine
            .host_devices
            .iter()
            .any(|device| !matches!(device.kind, HostDeviceKind::Usb(_)));
        if has_vfio {
            misses_the_device(&machine, row);
        }
        let args = stand_ins(&command_line(&machine).shown(), false);
        let mut session = Session::start_with(&machine, args, dir);
        check(&mut session, &machine, row);
        session.quit();
        eprintln!("{row}: as its document says");
    }
}

#[test]
fn the_portfolios_guests_start() {
    start(PORTFOLIO, &host("intel-i915-7vf"));
}

#[test]
fn the_other_documents_guests_start() {
    let gvtg: &[Row] = &[
        (
            "gvtg before",
            "win10-gvtg",
            "mdev:i915-GVTg_V5_8",
            "",
            "",
            &[],
        ),
        (
            "gvtg after",
            "win10-gvtg",
            "mdev:i915-GVTg_V5_8",
            "",
            "",
            &["gpu-alone"],
        ),
    ];
    start(gvtg, &host("intel-i915-gvtg"));
    let desktop: &[Row] = &[
        (
            "nvidia",
            "gaming-vfio",
            "whole@0000:01:00.0",
            "",
            "",
            &["nvidia", "scream"],
        ),
        (
            "amd",
            "gaming-vfio",
            "whole@0000:01:00.0",
            "",
            "",
            &["amd", "looking-glass"],
        ),
        ("windows 98", "retro-pc", "", "vnc", "", &[]),
        ("windows xp", "retro-pc", "", "vnc", "", &["winxp"]),
        ("arm-initrd", "arm-initrd", "", "", "", &[]),
        (
            "arm-rootfs",
            "arm-rootfs",
            "",
            "",
            "",
            &["watchdog", "iommu", "virtconsole", "second-disk"],
        ),
    ];
    start(desktop, &host("nvidia-desktop"));
}
