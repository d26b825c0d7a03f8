//! Imported domains as far as QEMU's command line, on hosts that have what they ask for.
//!
//! What this machine cannot have stands in for what the domain says, and is named beside it: KVM, huge pages that
//! are there, a session with a screen.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::env::{Ran, TestEnv, finish, has_program};
use crate::hosts::Host;
use crate::import::xml;

/// Keys that want KVM, which the machine that runs the test may not have.
const KVM_ONLY: [&str; 5] = [
    "irqchip",
    "hide-hypervisor",
    "phys-bits-limit",
    "tsc-frequency",
    "kvmclock",
];

/// Files that the domains name: here they are empty ones of that name.
const FILES: [&str; 15] = [
    "/var/lib/libvirt/images.2/win10-gvt.qcow2",
    "/var/lib/libvirt/images.2/Win10_Spanish_x64.iso",
    "/var/lib/libvirt/images.2/virtio-win-0.1.173.iso",
    "/var/lib/libvirt/images/ubuntu.qcow2",
    "/var/lib/libvirt/images/ubuntu_rt.qcow2",
    "/var/lib/libvirt/images/windows.qcow2",
    "/var/lib/libvirt/images/android.qcow2",
    "/mnt/overlay/guest/Image",
    "/mnt/overlay/guest/rootfs.ext4",
    "/mnt/overlay/guest/disk.img",
    "/srv/images/win98.img",
    "/srv/images/boot.img",
    "/dev/sr0",
    "/dev/disk/by-id/nvme-games",
    "/usr/share/vgabios/gpu.rom",
];

/// A domain that is imported, and the host that it is for.
struct World {
    env: TestEnv,
    host: Option<Host>,
    /// What serves Android's storage keys.
    _daemon: Option<UnixListener>,
}

impl World {
    fn new(name: &str, tree: Option<&str>) -> Self {
        let env = TestEnv::new();
        let mut text = xml(name);
        for file in FILES {
            let own = env.path(format!("files{file}"));
            if !text.contains(file) {
                continue;
            }
            text = text.replace(file, own.to_str().expect("UTF-8"));
            fs::create_dir_all(own.parent().expect("a folder")).expect("it can be made");
            if file.ends_with(".qcow2") {
                let own = own.to_str().expect("UTF-8");
                env.run(&["disk", "create", own, "--size", "1M"]).exits(0);
            } else {
                fs::write(own, [0; 1 << 20]).expect("a file");
            }
        }
        for folder in ["/mnt/overlay/test_dir", "/var/lib/libvirt/images/aaf"] {
            let own = env.path(format!("files{folder}"));
            fs::create_dir_all(&own).expect("a folder");
            text = text.replace(folder, own.to_str().expect("UTF-8"));
        }
        for (firmware, there) in [
            (
                "/var/lib/libvirt/images/OVMF_CODE.fd",
                "/usr/share/OVMF/OVMF_CODE_4M.fd",
            ),
            (
                "/var/lib/libvirt/images/OVMF_VARS.fd",
                "/usr/share/OVMF/OVMF_VARS_4M.fd",
            ),
        ] {
            text = text.replace(firmware, there);
        }
        let daemon = env.path("rpmb0.sock");
        let socket = text.contains("/tmp/rpmb0.sock");
        let daemon = socket.then(|| {
            text = text.replace("/tmp/rpmb0.sock", daemon.to_str().expect("UTF-8"));
            UnixListener::bind(daemon).expect("a socket")
        });
        let nvram = env.path("nvram.fd");
        text = text.replace(
            "/var/lib/libvirt/qemu/nvram/ubuntu_VARS.fd",
            nvram.to_str().expect("UTF-8"),
        );
        if text.contains("passwd=") {
            env.write("config/g.vnc-password", "secret");
        }
        env.write("domain.xml", text);
        env.run(&["import", "domain.xml", "--as", "g"]).exits(0);
        let path = env.path("config/machines/g.toml");
        let made = fs::read_to_string(&path).expect("it was made");
        fs::write(&path, without_kvm(&made)).expect("it can be changed");
        Self {
            env,
            host: tree.map(Host::new),
            _daemon: daemon,
        }
    }

    fn dry_run(&self, sets: &[&str]) -> Ran {
        let mut words = vec![
            "run",
            "g",
            "--dry-run",
            "--take-from-host",
            "--format",
            "json",
        ];
        for set in sets {
            words.extend(["--set", set]);
        }
        let mut command = self.env.command(&words);
        if let Some(host) = &self.host {
            command.env("MVM_SYSFS", host.sys());
        }
        finish(command)
    }

    /// QEMU's arguments, one a line, with this world's folder taken out.
    #[track_caller]
    fn args(&self, sets: &[&str]) -> String {
        let plan = self.dry_run(sets).exits(0).json();
        let args = plan["args"].as_array().expect("args").iter();
        let args: Vec<&str> = args.filter_map(serde_json::Value::as_str).collect();
        let root = self.env.path("files");
        args.join("\n").replace(root.to_str().expect("UTF-8"), "")
    }
}

/// The machine file without what only KVM has.
fn without_kvm(text: &str) -> String {
    let mut kept = String::new();
    let mut hyperv = false;
    for line in text.lines() {
        if line.starts_with('[') {
            hyperv = line == "[hyperv]";
        }
        let key = line.split(' ').next().unwrap_or_default();
        if !hyperv && !KVM_ONLY.contains(&key) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

#[track_caller]
fn has(args: &str, parts: &[&str]) {
    for part in parts {
        assert!(args.contains(part), "`{part}` not in:\n{args}");
    }
}

fn ready() -> bool {
    let firmware = Path::new("/usr/share/OVMF/OVMF_CODE_4M.fd").exists();
    has_program("qemu-system-x86_64") && has_program("qemu-img") && firmware
}

#[test]
fn the_gvtg_guide_before_and_after() {
    if !ready() {
        return;
    }
    // The device that the guide makes by hand; memory is not locked without the right to.
    let sets = [
        "mdev.hostdev0.type=i915-GVTg_V5_8",
        "memory.locked=false",
        "pin.vcpu={}",
        "display.spice.listen=127.0.0.1",
    ];
    for (name, video) in [("gvtg-before", true), ("gvtg-after", false)] {
        let world = World::new(name, Some("intel-i915-gvtg"));
        let args = world.args(&sets);
        assert_eq!(args.contains("qxl-vga"), video, "{args}");
        has(
            &args,
            &[
                "pc-q35-3.1",
                "vfio-pci",
                "\"x-igd-opregion\":true",
                "\"display\":\"on\"",
                "egl-headless",
                "virtio-scsi-pci",
                "intel-iommu",
            ],
        );
    }
}

#[test]
fn the_guests_of_the_portfolio_get_their_gpus() {
    if !ready() {
        return;
    }
    // No session with a screen and sound, and no pool of huge pages.
    let local = [
        "display.type=headless",
        "audio.sound0.backend=none",
        "memory.hugepages=none",
    ];
    let world = World::new("ubuntu-sriov", Some("intel-i915-7vf"));
    has(
        &world.args(&local),
        &[
            "vfio-pci",
            "virtio-vga",
            "\"max_outputs\":2",
            "\"blob\":true",
            "52:54:00:ab:cd:11",
        ],
    );
    let world = World::new("android-sriov", Some("intel-i915-7vf"));
    // Not every machine has vhost-vsock.
    let no_vsock = [&local[..], &["vsock.enabled=false"]].concat();
    has(
        &world.args(&no_vsock),
        &[
            "vfio-pci",
            "intel-iommu",
            "\"caching-mode\":true",
            "\"device-iotlb\":true",
            "\"mount_tag\":\"aaf\"",
            "rpmb0",
            "tpm-crb",
            "waitpkg=off",
            "pmu=off",
            "\"driver\":\"e1000\"",
        ],
    );
    let world = World::new("windows-gvtd", Some("intel-i915-7vf"));
    has(
        &world.args(&[]),
        &[
            "\"host\":\"0000:00:02.0\"",
            "\"x-igd-gms\":2",
            "\"x-igd-opregion\":true",
            "base=localtime",
        ],
    );
    let world = World::new("windows-upt", Some("intel-i915-7vf"));
    has(
        &world.args(&[]),
        &[
            "\"host\":\"0000:00:02.0\"",
            "qxl-vga",
            "\"x-pci-device-id\":4660",
            "-vnc",
        ],
    );
    let world = World::new("ubuntu-rt", Some("intel-i915-7vf"));
    has(
        &world.args(&[]),
        &["usb-tablet", "virtio-blk-pci", "pmu=off"],
    );
}

#[test]
fn the_guides_of_old_and_of_gaming_guests() {
    if !ready() {
        return;
    }
    let world = World::new("retro", None);
    has(
        &world.args(&[]),
        &[
            "pc-i440fx-7.2",
            "pentium3",
            "ide-hd",
            "floppy",
            "cirrus-vga",
            "sb16",
            "tcp:127.0.0.1:2323-:23",
        ],
    );
    let world = World::new("gaming-vfio", Some("nvidia-desktop"));
    // The rest of the card's group; no huge pages; neither the USB receiver nor the devices of evdev nor the bridge.
    let sets = [
        "pci.hostdev0.group=all",
        "memory.hugepages=none",
        "usb.hostdev2.none={}",
        "input.input0.device=none",
        "input.kbd1.device=none",
        "network.net0.user={}",
    ];
    has(
        &world.args(&sets),
        &[
            "\"host\":\"0000:01:00.0\"",
            "\"x-vga\":true",
            "\"x-pci-sub-vendor-id\":4318",
            "ivshmem-plain",
            "gpu.rom",
            "hypervisor=off",
        ],
    );
}

#[test]
fn the_guests_of_the_arm_guide() {
    if !ready() || !has_program("qemu-system-aarch64") {
        return;
    }
    for (name, part) in [
        ("arm-9p", "\"mount_tag\":\"hostshare\""),
        ("arm-disks", "/mnt/overlay/guest/disk.img"),
        ("arm-iommu", "virtio-iommu-pci"),
    ] {
        let world = World::new(name, None);
        has(
            &world.args(&[]),
            &[
                part,
                "virt-6.2",
                "gic-version=3",
                "root=/dev/vda",
                "/mnt/overlay/guest/Image",
            ],
        );
    }
}
