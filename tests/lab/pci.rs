//! PCI functions and whole USB controllers: asked for in each way, seen in the guest, given back.

use std::time::Duration;

use crate::devices::{EDU, NIC1, NIC2, RTL8139, XHCI2};
use crate::guest::PCI;
use crate::host::{Host, SMALL};

/// A guest with Debian's ordinary kernel, which has drivers for all that a host has.
const FULL: &str = "linux --kernel /images/x86_64-full/vmlinux --initrd /images/x86_64-full/initrd \
     --append 'console=ttyS0 quiet' --cpus 1 --memory 384M --set network.lan.none={}";

#[test]
fn ci_nics_by_address_and_words_and_a_group_of_two() {
    let host = Host::x86().boot();
    let before = host.snapshot();

    // Half a group is refused, and its other half named.
    let refused = host.sh(
        &format!("mvm start {SMALL} --name half --pci 03:02.0"),
        Duration::from_secs(180),
    );
    assert_eq!(refused.status, 4, "{refused}");
    for word in [EDU, RTL8139, "8139cp", "group = \"all\""] {
        assert!(refused.stderr.contains(word), "{word}: {refused}");
    }
    host.settles_to(&before);

    let guest = host.start(
        "taker",
        &format!(
            "mvm start {FULL} --name taker --pci 04:00.0 --pci 82574l:2 \
             --set 'pci.edu={{ id = \"1234:11e8\", group = \"all\" }}' 2>/tmp/said"
        ),
    );
    let said = host.run("cat /tmp/said");
    assert!(said.contains(&format!("82574l:2 → {NIC2}")), "{said}");
    assert!(said.contains(&format!("1234:11e8 → {EDU}")), "{said}");

    let links = guest.run(
        "for n in /sys/class/net/*; do \
           echo $(cat $n/address) $(readlink $n/device/driver); done",
    );
    for mac in ["52:54:00:00:00:11", "52:54:00:00:00:12"] {
        let line = links.lines().find(|line| line.starts_with(mac));
        assert!(
            line.is_some_and(|line| line.ends_with("/e1000e")),
            "{links}"
        );
    }
    let seen = guest.run(PCI);
    assert!(seen.contains("0x1234 0x11e8"), "{seen}");
    // Taken for the group's sake, and nobody's.
    assert!(!seen.contains("0x10ec 0x8139"), "{seen}");
    let now = host.snapshot();
    for bdf in [NIC1, NIC2, RTL8139, EDU] {
        assert!(now.has(&[&format!("{bdf}/driver'"), "vfio-pci"]), "{bdf}");
    }

    // Nobody else can have any of it.
    for (bdf, flag) in [(NIC2, "05:00.0"), (RTL8139, "03:01.0")] {
        let refused = host.sh(
            &format!("mvm start {SMALL} --name other --pci {flag}"),
            Duration::from_secs(180),
        );
        assert_eq!(refused.status, 4, "{refused}");
        let words = format!("guest taker has {bdf}");
        assert!(refused.stderr.contains(&words), "{refused}");
    }
    host.run("mvm stop taker");
    host.settles_to(&before);
}

#[test]
fn a_whole_usb_controller_and_both_devices_of_a_group() {
    let host = Host::x86().second_xhci().boot();
    let before = host.snapshot();
    let guest = host.start(
        "taker",
        &format!("mvm start {FULL} --name taker --pci 00:10.0 --pci 03:01.0 --pci 1234:11e8"),
    );
    let serials = guest.run("cat /sys/bus/usb/devices/*/serial");
    assert!(serials.contains("STICK02"), "{serials}");
    assert!(!serials.contains("STICK01"), "{serials}");
    guest.run("grep -q sda /proc/partitions");
    let seen = guest.run(PCI);
    for ids in ["0x1234 0x11e8", "0x10ec 0x8139", "0x1b36 0x000d"] {
        assert!(seen.contains(ids), "{ids}: {seen}");
    }
    let now = host.snapshot();
    assert!(now.has(&[&format!("{XHCI2}/driver'"), "vfio-pci"]));
    host.run("mvm kill taker");
    host.settles_to(&before);
}

#[test]
fn a_usb_device_and_its_whole_controller_are_no_two_guests() {
    let host = Host::x86().second_xhci().boot();
    let before = host.snapshot();
    let start = |name: &str, flags: &str| format!("mvm start {SMALL} --name {name} {flags}");
    let refused = |command: &str, words: &[&str]| {
        let refused = host.sh(command, Duration::from_secs(180));
        assert_eq!(refused.status, 4, "{refused}");
        for word in words {
            assert!(refused.stderr.contains(word), "{word}: {refused}");
        }
    };

    // Whoever has the device keeps it, whatever the other one insists on.
    host.run(&start("device", "--usb serial:STICK02"));
    // QEMU looks for a device when its guest runs, and every two seconds from then on.
    host.run("until ls -l /sys/bus/usb/devices/*:1.0/driver | grep -q usbfs; do sleep 0.2; done");
    let with = host.snapshot();
    let has = format!("guest device has usb 3-1 of {XHCI2}");
    let whole = format!("--pci {XHCI2}");
    refused(&start("whole", &whole), &[&has]);
    let insists = format!("{whole} --take-from-host");
    refused(&start("whole", &insists), &[&has]);
    host.settles_to(&with);
    host.run("mvm kill device");
    host.settles_to(&before);

    // With the controller all that is plugged into it is the guest's, and nobody else sees it.
    host.run(&start("whole", &whole));
    let with = host.snapshot();
    let has = format!("guest whole has the USB controller {XHCI2}");
    for ask in ["serial:STICK02", "3-1", "storage:2"] {
        let usb = format!("--usb {ask}");
        refused(&start("device", &usb), &["`[usb.", &has]);
    }
    host.settles_to(&with);
    host.run("mvm kill whole");
    // The host finds the stick again.
    host.settles_to(&before);
}
