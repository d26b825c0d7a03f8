//! Tests of the questions, against a scripted program and against the QEMU of this machine.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::host::qemu::ask::parse_help;
use crate::host::qemu::{Lacks, find};

fn script(dir: &Path, text: &str) -> PathBuf {
    let at = dir.join("qemu");
    std::fs::write(&at, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&at, std::fs::Permissions::from_mode(0o755)).unwrap();
    at
}

#[test]
fn help_in_both_known_forms() {
    let old = "Available display backend types:\nnone\ngtk\nspice-app\n";
    let new =
        "Available display backend types:\nnone\ngtk\n\nSome display backends support suboptions\n";
    assert!(parse_help(old).contains("spice-app"));
    assert_eq!(parse_help(new), ["none", "gtk"].into_iter().collect());
    assert!(parse_help("").is_empty());
}

#[test]
fn a_program_that_dies_is_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let binary = script(
        dir.path(),
        "echo 'qemu: libfoo.so.1: no such file' >&2; exit 127",
    );
    let error = probe(&binary, Arch::X86_64, &[]).unwrap_err().to_string();
    assert!(
        error.contains("libfoo.so.1") && error.contains("127"),
        "{error}"
    );
}

#[test]
fn an_old_qemu_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let greeting =
        r#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 4}, "package": ""}}}"#;
    let binary = script(
        dir.path(),
        &format!("echo '{greeting}'; cat >/dev/null & sleep 0.05"),
    );
    let error = probe(&binary, Arch::X86_64, &[]).unwrap_err().to_string();
    assert!(error.contains("4.2.0"), "{error}");
}

#[test]
fn a_type_that_kills_qemu_costs_only_itself() {
    let Some(mut caps) = real(Arch::X86_64) else {
        return;
    };
    caps.properties.clear();
    // In 7.2 the machine in the middle is deadly; later ones survive it.
    add_properties(&mut caps, &["edu"], &["microvm", "q35"]).unwrap();
    assert!(caps.properties_known("edu") && caps.properties_known("q35"));
}

#[test]
fn a_qemu_that_dies_of_everything_is_given_up() {
    let Some(mut caps) = real(Arch::X86_64) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    caps.binary = script(dir.path(), "exit 1");
    let error = add_properties(&mut caps, PROBED_DEVICES, &[]).unwrap_err();
    assert!(matches!(error, ProbeError::Ended { .. }), "{error}");
}

fn real(arch: Arch) -> Option<QemuCaps> {
    let roots = crate::host::Roots::host(None);
    let binary = find::find(&roots, &crate::host::Needs::default(), arch).ok()?;
    Some(
        probe(
            &binary,
            arch,
            &["edu".to_owned(), "no-such-device".to_owned()],
        )
        .unwrap(),
    )
}

#[test]
fn the_real_x86_qemu() {
    let Some(caps) = real(Arch::X86_64) else {
        return;
    };
    assert!(caps.version >= Version(7, 2, 0), "{}", caps.version);
    let (real, machine) = caps.machine("q35").unwrap();
    assert!(real.starts_with("pc-q35-") && machine.cpu_max >= 255);
    assert_eq!(machine.default_cpu.as_deref(), Some("qemu64"));
    assert!(caps.has_cpu("max") && !caps.has_cpu("cortex-a57"));
    assert!(caps.cpus["host"].needs_kvm && !caps.cpus["max"].needs_kvm);
    assert!(caps.has_device("virtio-blk-pci") && !caps.has_device("virtio-blk"));
    assert!(caps.has_object("iothread") && caps.netdevs.contains("user"));
    assert!(caps.chardevs.contains("socket") && caps.displays.contains("none"));
    assert!(caps.audiodevs.contains("none") && caps.aio.contains("threads"));
    assert!(caps.accels.contains("tcg") && caps.json_device);
    assert!(caps.commands.contains("device_add"));
    assert!(caps.netdev_options.contains("user.hostfwd"));
    assert!(caps.has_option("sandbox", "spawn") && !caps.has_option("sandbox", "nonsense"));
    let kind = |p| caps.device_property("virtio-blk-pci", p);
    assert_eq!(kind("share-rw"), Some(PropertyKind::Bool));
    assert_eq!(kind("bootindex"), Some(PropertyKind::Signed));
    assert_eq!(kind("num-queues"), Some(PropertyKind::Unsigned));
    assert_eq!(kind("drive"), Some(PropertyKind::Text));
    assert_eq!(kind("addr"), Some(PropertyKind::Text));
    assert_eq!(kind("nonsense"), None);
    assert!(caps.properties_known("edu") && !caps.properties_known("no-such-device"));
    assert_eq!(
        caps.machine_property("q35", "vmport"),
        Some(PropertyKind::Text)
    );
    assert_eq!(caps.machine_property("q35", "gic-version"), None);
    if caps.version < Version(8, 0, 0) {
        assert_eq!(caps.why_lacks("igb"), Lacks::Since("8.0"));
    }
    assert_eq!(caps.why_lacks("warp-drive"), Lacks::Unknown);
}

#[test]
fn the_real_arm_qemu() {
    let Some(caps) = real(Arch::Aarch64) else {
        return;
    };
    assert!(caps.has_machine("virt") && !caps.has_machine("q35"));
    assert!(caps.has_cpu("cortex-a57") && caps.has_device("virtio-blk-device"));
    assert_eq!(
        caps.machine_property("virt", "gic-version"),
        Some(PropertyKind::Text)
    );
    assert!(
        !caps.unloadable.contains_key("qxl-vga"),
        "{:?}",
        caps.unloadable
    );
}
