//! The hosts themselves: that they have what the other tests need, and that mvm runs in them.

use std::time::{Duration, Instant};

use crate::devices::{EDU, GPU, IGB, NIC1, NIC2, NVME, RTL8139, UPLINK, XHCI, XHCI2};
use crate::host::Host;

/// Waits until a shell condition of the host holds.
#[track_caller]
fn eventually(host: &Host, condition: &str) {
    let begin = Instant::now();
    while host.sh(condition, Duration::from_secs(20)).status != 0 {
        assert!(begin.elapsed() < Duration::from_secs(20), "{condition}");
    }
}

#[test]
fn ci_an_x86_host_with_iommu_vfs_and_kvm_runs_a_guest() {
    let host = Host::x86().boot();
    let before = host.snapshot();
    println!("{before:?}");

    // Groups: one for each function, but one for both devices behind the bridge.
    let group = |bdf: &str| {
        let link = format!("pci '{bdf}/iommu_group'");
        let mut lines = before.facts.iter();
        lines
            .find(|line| line.starts_with(&link))
            .cloned()
            .and_then(|line| Some(line.rsplit_once(' ')?.1.to_owned()))
    };
    assert!(group(EDU).is_some());
    assert_eq!(group(RTL8139), group(EDU));
    let alone = [NVME, NIC1, NIC2, XHCI, UPLINK].map(group);
    for (at, one) in alone.iter().enumerate() {
        assert!(!alone[at + 1..].contains(one), "{alone:?}");
        assert_ne!(*one, group(EDU));
    }
    assert_eq!(
        host.run(&format!("cat /sys/bus/pci/devices/{NVME}/sriov_totalvfs")),
        "4"
    );
    for (bdf, driver) in [
        (NVME, "nvme"),
        (RTL8139, "8139cp"),
        (NIC1, "e1000e"),
        (NIC2, "e1000e"),
    ] {
        assert!(before.has(&[&format!("{bdf}/driver'"), driver]), "{bdf}");
    }
    for driver in ["usb-storage", "usbhid", "ftdi_sio"] {
        assert!(before.has(&["usb ", ":1.0/driver'", driver]), "{driver}");
    }

    // What either side writes into the shared folder, the other sees.
    std::fs::write(host.scratch().join("words"), "from outside").expect("the folder");
    assert_eq!(
        host.run("cat /lab/words; uname -n >/lab/name"),
        "from outside"
    );
    let name = std::fs::read_to_string(host.scratch().join("name"));
    assert_eq!(name.expect("the host wrote it"), "lab\n");

    // KVM is real.
    let doctor = host.sh("mvm doctor", Duration::from_secs(60));
    assert!(doctor.stdout.contains("kvm"), "{doctor}");

    let guest = host.start(
        "inner",
        "mvm start linux --name inner --kernel /images/x86_64/kernel --initrd /images/x86_64/initrd",
    );
    assert_eq!(guest.run("uname -m"), "x86_64");
    assert_eq!(guest.sh("false", Duration::from_secs(20)).status, 1);
    let shown = host.run("mvm show inner --format json");
    assert!(shown.contains("kvm"), "{shown}");
    host.run("mvm kill inner");
    host.settles_to(&before);
}

#[test]
fn a_host_with_a_display_two_usb_controllers_and_mediated_devices() {
    let host = Host::x86().gpu().second_xhci().modules("mtty mdpy").boot();
    let before = host.snapshot();
    println!("{before:?}");
    assert!(before.has(&[GPU, "bochs"]));
    assert!(before.has(&["console vtcon1/bind:1"]));
    assert!(before.has(&["console /proc/fb:0"]));
    assert!(before.has(&[XHCI, "xhci_hcd"]) && before.has(&[XHCI2, "xhci_hcd"]));
    assert!(before.has(&["mdev mtty/mdev_supported_types/mtty-2/available_instances:"]));
    assert!(before.has(&["mdev mdpy/mdev_supported_types/mdpy-vga/available_instances:"]));

    // What was pulled out comes back with its drivers.
    let stick = "grep -l STICK01 /sys/bus/usb/devices/*/serial";
    host.run(stick);
    host.unplug("stick");
    eventually(&host, &format!("! {stick}"));
    let without = host.snapshot();
    assert!(!before.diff(&without).is_empty());
    host.plug("stick");
    eventually(&host, "ls /sys/block/sd? >/dev/null");
    host.settles_to(&before);

    // A PCI device too.
    host.unplug("nic2");
    assert!(!host.snapshot().has(&[NIC2]));
    host.plug("nic2");
    eventually(&host, &format!("[ -e /sys/bus/pci/devices/{NIC2}/driver ]"));

    // An mdev has a group of its own.
    host.run(
        "echo 83b8f4f2-509f-382f-3c1e-e6bfe0fa1001 \
         >/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-2/create",
    );
    assert!(
        host.snapshot()
            .has(&["mdev 83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"])
    );
    host.run("echo 1 >/sys/bus/mdev/devices/83b8f4f2-509f-382f-3c1e-e6bfe0fa1001/remove");
}

#[test]
fn the_vfs_of_the_nvme_device_can_be_made_and_used() {
    let host = Host::x86().boot();
    host.nvme_give_vfs_queues();
    let before = host.snapshot();
    host.run(&format!(
        "cd /sys/bus/pci/devices/{NVME} && echo 0 >sriov_drivers_autoprobe && echo 2 >sriov_numvfs"
    ));
    host.nvme_vf_online(1);
    let with = host.snapshot();
    assert!(with.has(&["0000:01:00.1/physfn"]) && with.has(&["0000:01:00.2/iommu_group"]));
    // The host's own driver finds the namespace behind the VF: it is really there.
    // (Where autoprobe is off, a VF is bound to what its override names and to nothing else.)
    host.run(
        "echo nvme >/sys/bus/pci/devices/0000:01:00.1/driver_override && \
         echo 0000:01:00.1 >/sys/bus/pci/drivers/nvme/bind",
    );
    eventually(&host, "ls -d /sys/bus/pci/devices/0000:01:00.1/nvme/nvme*");
    host.run(&format!(
        "cd /sys/bus/pci/devices/{NVME} && echo 0 >sriov_numvfs && echo 1 >sriov_drivers_autoprobe"
    ));
    host.settles_to(&before);
}

#[test]
fn a_stalled_disk_makes_an_unbind_slow() {
    let host = Host::x86().boot();
    let before = host.snapshot();
    host.stall_nvme(true);
    host.run("dd if=/dev/zero of=/dev/nvme0n1 bs=64k count=4 oflag=direct >/dev/null 2>&1 &");
    host.run("sleep 1; (echo 0000:01:00.0 >/sys/bus/pci/drivers/nvme/unbind; touch /tmp/unbound) >/dev/null 2>&1 &");
    host.run("sleep 3; [ ! -e /tmp/unbound ]");
    host.stall_nvme(false);
    eventually(&host, "[ -e /tmp/unbound ]");
    host.run("echo 0000:01:00.0 >/sys/bus/pci/drivers_probe");
    host.settles_to(&before);
}

#[test]
fn an_iommu_that_is_off_leaves_no_groups() {
    let host = Host::x86().append("intel_iommu=off").boot();
    assert!(!host.snapshot().has(&["iommu_group"]));
}

#[test]
fn a_host_under_qemu_10_has_an_igb_nic_with_vfs() {
    let host = Host::x86().igb().boot();
    let before = host.snapshot();
    assert!(before.has(&[IGB, "igb"]));
    assert_eq!(
        host.run(&format!("cat /sys/bus/pci/devices/{IGB}/sriov_totalvfs")),
        "7"
    );
    host.run(&format!("echo 2 >/sys/bus/pci/devices/{IGB}/sriov_numvfs"));
    let with = host.snapshot();
    assert!(with.has(&[&format!("{IGB}/virtfn1"), "06:10.2"]));
    // MAC and VLAN of a VF are set through the PF.
    let link = host.run(&format!("ls /sys/bus/pci/devices/{IGB}/net"));
    host.run(&format!(
        "ip link set {link} up && ip link set {link} vf 0 mac 52:54:00:aa:bb:01 vlan 7"
    ));
    let shown = host.run(&format!("ip link show {link}"));
    assert!(
        shown.contains("52:54:00:aa:bb:01") && shown.contains("vlan 7"),
        "{shown}"
    );
    host.run(&format!("echo 0 >/sys/bus/pci/devices/{IGB}/sriov_numvfs"));
    host.settles_to(&before);
}
