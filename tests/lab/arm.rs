//! An Arm host as Qualcomm's guide to KVM has it: the kernel at EL2, GICv3, SMMUv3, busybox, and of mvm one
//! static binary. No systemd, no udev, no libvirt.

use std::time::Duration;

use crate::devices::{ARM_NIC, ARM_NVME2, NVME};
use crate::guest::Guest;
use crate::host::Host;

/// Starts the guide's guest with what else is asked for.
const START: &str = "mvm start arm-virt --kernel /images/aarch64/kernel --initrd /images/aarch64/initrd \
                     --append 'console=ttyAMA0 quiet' --set memory.size=512M --set cpu.count=2";

#[test]
fn arm_the_guides_guest_runs_under_kvm_on_a_host_with_a_read_only_root() {
    let host = Host::arm().boot();
    let before = host.snapshot();
    assert!(host.run("dmesg").contains("VHE mode initialized"));

    let doctor = warm(&host);
    assert!(
        doctor.contains("KVM works") && doctor.contains("virtual GIC version 3"),
        "{doctor}"
    );
    assert!(!doctor.contains("cannot be written"), "{doctor}");

    host.run("mount -o remount,ro /");
    let doctor = host.sh("mvm doctor", Duration::from_secs(60));
    assert_eq!(doctor.status, 4, "{doctor}");
    assert!(
        doctor
            .stdout
            .contains("/var/lib/mvm cannot be written: Read-only file system"),
        "{doctor}"
    );
    assert!(doctor.stdout.contains("set MVM_STATE_DIR"), "{doctor}");
    let refused = host.sh(START, Duration::from_secs(60));
    assert_eq!(refused.status, 1, "{refused}");
    assert!(refused.stderr.contains("MVM_STATE_DIR"), "{refused}");
    host.settles_to(&before);

    // What is kept need not be kept here: the guest's disks are elsewhere.
    host.run(&format!(
        "MVM_STATE_DIR=/run/mvm-state MVM_CACHE_DIR=/run/mvm-cache {START}"
    ));
    let guest = host.guest("arm-virt");
    assert_eq!(guest.run("uname -m"), "aarch64");
    assert_eq!(guest.run("nproc"), "2");
    assert!(
        guest
            .run("dmesg | grep smccc")
            .contains("KVM: hypervisor services detected")
    );
    assert_ne!(guest.run("dmesg | grep -c GICv3"), "0");
    let shown = host.run("mvm show arm-virt");
    assert!(shown.contains("accel                KVM"), "{shown}");
    host.run("mvm stop arm-virt");
    host.run("rm -r /run/mvm-state /run/mvm-cache");
    host.settles_to(&before);
}

/// A profile as one writes it for a board: the guide's guest, and the second NVMe device by its words.
const BOARD: &str = r#"
mkdir -p /etc/mvm/profiles
cat >/etc/mvm/profiles/board.toml <<'END'
extends = ["arm-virt"]

[cpu]
count = 2

[memory]
size = "512M"

[boot]
kernel = "/images/aarch64/kernel"
initrd = "/images/aarch64/initrd"
append = "console=ttyAMA0 quiet"

[pci.flash]
match = "nvm express"
nth = 2
END
"#;

/// What `mvm doctor` says once KVM is known to work. On a busy machine the emulated QEMU is slow to load the first
/// time, and the emulated processor may stand still while KVM is measured: such an answer is asked for anew.
fn warm(host: &Host) -> String {
    let ask = "for i in 1 2 3 4; do mvm doctor --fresh >/tmp/doctor; \
               grep -q 'KVM works' /tmp/doctor && ! grep -q 'did not answer' /tmp/doctor && break; done; cat /tmp/doctor";
    let said = host.sh(ask, Duration::from_secs(300)).stdout;
    assert!(said.contains("KVM works"), "{said}");
    said
}

/// The guest writes a mark and reads it back from the device itself.
fn writes_and_reads(guest: &Guest<'_>, mark: &str) {
    guest.run("for i in $(seq 50); do [ -b /dev/nvme0n1 ] && break; sleep 0.2; done");
    assert_eq!(
        guest.run("cat /sys/block/nvme0n1/device/serial").trim_end(),
        "lab1"
    );
    guest.run(&format!(
        "echo {mark} | dd of=/dev/nvme0n1 bs=4096 count=1 conv=sync,fsync && echo 3 >/proc/sys/vm/drop_caches"
    ));
    assert_eq!(guest.run("head -n 1 /dev/nvme0n1"), mark);
    assert_ne!(guest.run("grep -c nvme0q /proc/interrupts"), "0");
}

/// The host's own driver reads what the guest wrote.
#[track_caller]
fn reads_on_the_host(host: &Host, mark: &str) {
    let script = format!(
        "for i in $(seq 50); do d=$(ls /sys/bus/pci/devices/{ARM_NVME2}/nvme/*/ | grep -o 'nvme[0-9]*n1' | head -n 1); \
         [ -b \"/dev/$d\" ] && break; sleep 0.2; done; head -n 1 /dev/$d"
    );
    assert_eq!(host.run(&script), mark);
}

fn driver_of(host: &Host, address: &str) -> String {
    host.run(&format!(
        "basename $(readlink /sys/bus/pci/devices/{address}/driver || echo none)"
    ))
}

#[test]
fn arm_an_nvme_device_behind_the_smmu_is_the_guests_and_comes_back() {
    let host = Host::arm().boot();
    // Its node stays, whoever asked for it first.
    host.run("modprobe vfio");
    let before = host.snapshot();
    warm(&host);
    host.run(BOARD);

    let shown = host.run("mvm run board --dry-run");
    assert!(shown.contains(ARM_NVME2), "{shown}");
    host.settles_to(&before);

    host.run("mvm start board");
    assert_eq!(driver_of(&host, ARM_NVME2), "vfio-pci");
    assert_eq!(driver_of(&host, NVME), "nvme");
    let guest = host.guest("board");
    writes_and_reads(&guest, "from-the-guest");

    // By its address, which another guest has.
    let refused = host.sh(
        &format!("{START} --name other --pci {ARM_NVME2}"),
        Duration::from_secs(60),
    );
    assert_ne!(refused.status, 0, "{refused}");
    assert!(refused.stderr.contains("board"), "{refused}");

    host.run("mvm stop board");
    host.settles_to(&before);
    reads_on_the_host(&host, "from-the-guest");

    host.run(&format!("{START} --name other --pci {ARM_NVME2}"));
    let guest = host.guest("other");
    assert_eq!(guest.run("head -n 1 /dev/nvme0n1"), "from-the-guest");
    host.run("mvm stop other");
    host.settles_to(&before);
}

#[test]
fn arm_whoever_is_killed_the_device_comes_back() {
    let host = Host::arm().boot();
    host.run("modprobe vfio");
    let before = host.snapshot();
    warm(&host);
    host.run(BOARD);
    let qemu = "$(pidof qemu-system-aarch64)";
    // The supervisor is the only mvm that stays.
    let supervisor = "$(pidof mvm)";
    let taken = || assert_eq!(driver_of(&host, ARM_NVME2), "vfio-pci");

    // QEMU alone: the supervisor gives it back.
    host.run("mvm start board");
    taken();
    host.run(&format!("kill -9 {qemu}"));
    host.settles_to(&before);

    // Both: nobody is left to do it.
    host.run("mvm start board");
    taken();
    host.run(&format!("kill -9 {supervisor} {qemu}"));
    host.run("sleep 1");
    taken();
    host.run("mvm recover");
    host.settles_to(&before);

    // The same, and the next start puts it right.
    host.run("mvm start board");
    host.run(&format!(
        "kill -9 {supervisor} {qemu}; sleep 1; mvm start board"
    ));
    taken();

    // The supervisor alone: the guest lives on with its device.
    host.run(&format!("kill -9 {supervisor}"));
    host.run("mvm recover");
    let guest = host.guest("board");
    writes_and_reads(&guest, "still-alive");
    host.run("mvm stop board");
    host.settles_to(&before);
    reads_on_the_host(&host, "still-alive");
}

#[test]
fn arm_a_vf_of_the_nvme_device_is_made_used_and_removed() {
    let host = Host::arm().boot();
    host.run("modprobe vfio");
    host.nvme_give_vfs_queues();
    let before = host.snapshot();
    warm(&host);
    // A VF of this device is switched on by its physical function's user.
    host.run(&format!(
        "{START} --name vf --pci vf:1@{NVME} && nvme virt-mgmt /dev/nvme0 -c 1 -r 0 -a 9 -n 0"
    ));
    assert_eq!(driver_of(&host, "0000:01:00.1"), "vfio-pci");
    let guest = host.guest("vf");
    guest.run("echo word-of-the-guest >/dev/nvme0n1 && sync");
    // One namespace for all of the device's functions.
    let read = "dd if=/dev/nvme0n1 bs=4096 count=1 iflag=direct 2>/dev/null | head -n 1";
    assert_eq!(host.run(read), "word-of-the-guest");
    host.run("mvm stop vf");
    host.settles_to(&before);
}

/// On a board without ACPI: a device that no driver has had yet is in no group, and its group then holds the
/// root port, which stays with its driver.
#[test]
fn arm_with_a_device_tree_a_device_without_a_driver_is_given_and_comes_back() {
    let host = Host::arm()
        .device_tree()
        .append("module_blacklist=nvme")
        .boot();
    host.run("modprobe vfio");
    let before = host.snapshot();
    assert!(!before.has(&[&format!("{ARM_NVME2}/iommu_group")]));
    warm(&host);
    host.run(BOARD);

    let listed = host.run("mvm devices");
    assert!(
        listed.contains(ARM_NVME2.trim_start_matches("0000:")),
        "{listed}"
    );
    host.run("mvm start board");
    assert_eq!(driver_of(&host, ARM_NVME2), "vfio-pci");
    assert_eq!(driver_of(&host, "0000:00:03.0"), "pcieport");
    let guest = host.guest("board");
    writes_and_reads(&guest, "from-the-guest");
    host.run("mvm stop board");

    // The group is what the kernel made of it, and stays.
    let grouped = host.run(&format!(
        "basename $(readlink /sys/bus/pci/devices/{ARM_NVME2}/iommu_group)"
    ));
    assert_eq!(
        before.diff(&host.snapshot()),
        format!("+ pci '{ARM_NVME2}/iommu_group' -> '{grouped}'\n")
    );
}

/// The groups that the other tests count on.
#[test]
fn arm_acpi_gives_each_function_a_group_and_a_device_tree_one_for_it_and_its_port() {
    let group_of = |host: &Host, address: &str| {
        host.run(&format!(
            "ls /sys/bus/pci/devices/{address}/iommu_group/devices"
        ))
    };
    let host = Host::arm().boot();
    for address in [NVME, ARM_NVME2, ARM_NIC] {
        assert_eq!(group_of(&host, address), address);
    }
    drop(host);

    let host = Host::arm().device_tree().boot();
    for (address, port) in [
        (NVME, "0000:00:02.0"),
        (ARM_NVME2, "0000:00:03.0"),
        (ARM_NIC, "0000:00:04.0"),
    ] {
        assert_eq!(group_of(&host, address), format!("{port}\n{address}"));
    }
}
