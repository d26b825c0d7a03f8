//! An Arm host as Qualcomm's guide to KVM has it: the kernel at EL2, GICv3, SMMUv3, busybox, and of mvm one
//! static binary. No systemd, no udev, no libvirt.

use std::time::Duration;

use crate::devices::{ARM_NIC, ARM_NVME2, NVME};
use crate::host::Host;

/// Starts the guide's guest with what else is asked for.
const START: &str = "mvm start arm-virt --kernel /images/aarch64/kernel --initrd /images/aarch64/initrd \
                     --set memory.size=512M --set cpu.count=2";

#[test]
fn arm_the_guides_guest_runs_under_kvm_on_a_host_with_a_read_only_root() {
    let host = Host::arm().boot();
    let before = host.snapshot();
    assert!(host.run("dmesg").contains("VHE mode initialized"));

    let doctor = host.run("mvm doctor");
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
