//! Devices of the host that come to a guest that runs, and leave it.

use std::time::{Duration, Instant};

use crate::devices::{EDU, NIC1, NVME, RTL8139};
use crate::guest::Guest;
use crate::host::{Host, SMALL};

/// With drivers for all that comes.
const START: &str = "mvm start linux --name inner --kernel /images/x86_64-full/vmlinux \
    --initrd /images/x86_64-full/initrd --append 'console=ttyS0 quiet' --cpus 1 --memory 512M --timeout 250s";

/// Runs a script that must succeed. A device comes only after all of the guest's memory was pinned for it, and
/// several emulated processors may share one real one.
#[track_caller]
fn run(host: &Host, script: &str) -> String {
    let output = host.sh(script, Duration::from_secs(300));
    assert_eq!(output.status, 0, "{script}\n{output}");
    output.stdout.trim_end().to_owned()
}

/// Waits until the guest has so many sticks; where it does not come to that, shows why.
#[track_caller]
fn sticks(host: &Host, guest: &Guest<'_>, wanted: &str) {
    let begin = Instant::now();
    while guest.sh(STICKS, Duration::from_secs(60)).stdout.trim() != wanted {
        if begin.elapsed() > Duration::from_secs(180) {
            host.run(
                "mvm log inner; mvm log inner --qemu; mvm devices usb; mvm show inner; \
                 ls -lR /dev/bus/usb; true",
            );
            guest.sh("dmesg | tail -n 20", Duration::from_secs(60));
            panic!("not {wanted} sticks");
        }
    }
}

/// Waits until a command in the guest prints that.
#[track_caller]
fn within(guest: &Guest<'_>, command: &str, wanted: &str) {
    let begin = Instant::now();
    loop {
        let said = guest.sh(command, Duration::from_secs(60)).stdout;
        if said.trim() == wanted {
            return;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(180),
            "{command}: {said:?}, not {wanted:?}"
        );
    }
}

const CARDS: &str = "cat /sys/class/net/eth*/address | sort | head -n 1";
const COUNT: &str = "ls -d /sys/class/net/eth* 2>/dev/null | wc -l";
const VFS: &str = "grep -l 0x010802 /sys/bus/pci/devices/*/class | wc -l";
const RTLS: &str = "grep -l 0x8139 /sys/bus/pci/devices/*/device | wc -l";
const EDUS: &str = "grep -l 0x11e8 /sys/bus/pci/devices/*/device | wc -l";
const STICKS: &str = "ls -d /sys/block/sd* 2>/dev/null | wc -l";

#[test]
fn a_pci_device_comes_and_goes_live() {
    let host = Host::x86().boot();
    let before = host.snapshot();
    run(&host, START);
    let guest = host.guest("inner");
    within(&guest, COUNT, "1");

    let shown = run(&host, &format!("mvm attach inner --pci {NIC1} --dry-run"));
    assert!(
        shown.contains("vfio-pci") && shown.contains("device_add"),
        "{shown}"
    );
    assert!(host.snapshot().has(&[&format!("{NIC1}/driver'"), "e1000e"]));

    let id = run(&host, &format!("mvm attach inner --pci {NIC1}"));
    within(&guest, COUNT, "2");
    within(&guest, CARDS, "52:54:00:00:00:11");
    assert!(
        host.snapshot()
            .has(&[&format!("{NIC1}/driver'"), "vfio-pci"])
    );
    let again = host.sh(
        &format!("mvm attach inner --pci {NIC1} --name again"),
        Duration::from_secs(30),
    );
    assert!(
        again.status != 0 && again.stderr.contains("already"),
        "{again}"
    );
    let shown = run(&host, "mvm show inner");
    assert!(shown.contains(&id), "{shown}");

    run(&host, &format!("mvm detach inner {id}"));
    within(&guest, COUNT, "1");
    assert!(host.snapshot().has(&[&format!("{NIC1}/driver'"), "e1000e"]));

    // Once more, and the guest's end gives it back.
    run(&host, &format!("mvm attach inner --pci {NIC1}"));
    within(&guest, COUNT, "2");
    run(&host, "mvm kill inner");
    host.settles_to(&before);
}

#[test]
fn functions_of_one_group_leave_one_after_the_other() {
    let host = Host::x86().boot();
    let before = host.snapshot();
    run(
        &host,
        &format!(
            "{START} --set network.lan.none={{}} --set 'pci.nic.address=\"{RTL8139}\"' \
             --set 'pci.edu.address=\"{EDU}\"'"
        ),
    );
    let guest = host.guest("inner");
    within(&guest, RTLS, "1");
    within(&guest, EDUS, "1");

    // The kernel gives no function back while QEMU has the group open for the other one.
    let said = host.sh(
        "mvm detach inner nic --timeout 200s",
        Duration::from_secs(300),
    );
    assert_eq!(said.status, 0, "{said}");
    for word in [
        RTL8139,
        "with the last device of its IOMMU group that inner has",
    ] {
        assert!(said.stderr.contains(word), "{word}: {said}");
    }
    within(&guest, RTLS, "0");
    let now = host.snapshot();
    for function in [RTL8139, EDU] {
        assert!(now.has(&[&format!("{function}/driver'"), "vfio-pci"]));
        assert!(now.has(&["run ", &format!("leases/pci-{function}")]));
    }
    // It is still the guest's for everybody else.
    let refused = host.sh(
        &format!("mvm start {SMALL} --name other --pci {RTL8139}"),
        Duration::from_secs(180),
    );
    assert_eq!(refused.status, 4, "{refused}");
    assert!(
        refused
            .stderr
            .contains(&format!("guest inner has {RTL8139}")),
        "{refused}"
    );

    run(&host, "mvm detach inner edu --timeout 200s");
    within(&guest, EDUS, "0");
    let now = host.snapshot();
    assert!(now.has(&[&format!("{RTL8139}/driver'"), "8139cp"]));
    assert!(!now.has(&[&format!("{EDU}/driver'")]));
    assert!(!now.has(&["leases/pci-"]));
    run(&host, "mvm kill inner");
    host.settles_to(&before);
}

#[test]
fn virtual_functions_stay_until_the_last_of_a_guest_leaves() {
    let host = Host::x86().boot();
    let before = host.snapshot();
    let number = || {
        run(
            &host,
            &format!("cat /sys/bus/pci/devices/{NVME}/sriov_numvfs"),
        )
    };
    run(&host, &format!("{START} --pci vf:1@{NVME}"));
    let guest = host.guest("inner");
    within(&guest, VFS, "1");
    assert_ne!(number(), "0");
    let second = run(&host, &format!("mvm attach inner --pci vf:auto@{NVME}"));
    within(&guest, VFS, "2");

    // The one from the start leaves first: the other one's function stays.
    let first = run(
        &host,
        "mvm show inner --format json | grep -o '\"id\": *\"pci-[^\"]*\"' | head -n 1 | cut -d'\"' -f4",
    );
    run(&host, &format!("mvm detach inner {first}"));
    within(&guest, VFS, "1");
    assert_ne!(number(), "0");
    run(&host, &format!("mvm detach inner {second}"));
    within(&guest, VFS, "0");
    assert_eq!(number(), "0");
    run(&host, "mvm kill inner");
    host.settles_to(&before);
}

#[test]
fn a_dead_supervisors_device_is_given_back() {
    let host = Host::x86().boot();
    let before = host.snapshot();
    run(&host, START);
    let guest = host.guest("inner");
    run(&host, &format!("mvm attach inner --pci {NIC1} --name card"));
    within(&guest, COUNT, "2");
    let kill = "kill -9 $(mvm show inner --format json | grep -o '\"supervisor\": *[0-9]*' | grep -o '[0-9]*$')";
    run(&host, kill);
    run(
        &host,
        "sleep 1; mvm recover inner; mvm wait inner --for running --timeout 30s",
    );
    run(&host, "mvm detach inner card");
    let guest = host.guest("inner");
    within(&guest, COUNT, "1");
    assert!(host.snapshot().has(&[&format!("{NIC1}/driver'"), "e1000e"]));

    // And with QEMU too.
    run(&host, &format!("mvm attach inner --pci {NIC1} --name card"));
    run(&host, &format!("{kill} $(pidof qemu-system-x86_64)"));
    run(&host, "sleep 1; mvm recover inner");
    host.settles_to(&before);
}

#[test]
fn a_stick_comes_and_goes_live() {
    let host = Host::x86().boot();
    let before = host.snapshot();
    run(&host, START);
    let guest = host.guest("inner");
    within(&guest, STICKS, "0");
    for ask in ["46f4:0001", "serial:STICK01", "storage"] {
        // While a driver looks at it, its strings are not told.
        run(
            &host,
            "for i in $(seq 30); do mvm devices usb --format json | grep -q STICK01 && exit; sleep 1; done; exit 1",
        );
        let id = run(&host, &format!("mvm attach inner --usb {ask}"));
        within(&guest, STICKS, "1");
        assert!(
            !host
                .snapshot()
                .has(&["usb ", ":1.0/driver'", "usb-storage"])
        );
        run(&host, &format!("mvm detach inner {id}"));
        within(&guest, STICKS, "0");
        assert!(
            host.snapshot()
                .has(&["usb ", ":1.0/driver'", "usb-storage"])
        );
    }
    run(&host, "mvm kill inner");
    host.settles_to(&before);
}

#[test]
fn a_stick_that_is_plugged_in_again_is_the_guests() {
    let host = Host::x86().boot();
    let before = host.snapshot();
    run(&host, START);
    let guest = host.guest("inner");
    for ask in ["46f4:0001", "1-1", "storage"] {
        run(
            &host,
            "for i in $(seq 30); do mvm devices usb --format json | grep -q STICK01 && exit; sleep 1; done; exit 1",
        );
        let id = run(&host, &format!("mvm attach inner --usb {ask}"));
        sticks(&host, &guest, "1");
        host.unplug("stick");
        sticks(&host, &guest, "0");
        host.plug("stick");
        sticks(&host, &guest, "1");
        if ask == "46f4:0001" {
            // At another port it is still the one.
            host.unplug("stick");
            sticks(&host, &guest, "0");
            host.plug_at("stick", "6");
            sticks(&host, &guest, "1");
            let shown = run(&host, "ls /run/mvm-host/leases");
            assert!(
                shown.contains("usb-1-6") && !shown.contains("usb-1-1"),
                "{shown}"
            );
            host.unplug("stick");
            sticks(&host, &guest, "0");
            host.plug("stick");
            sticks(&host, &guest, "1");
        }
        run(&host, &format!("mvm detach inner {id}"));
        sticks(&host, &guest, "0");
    }
    run(&host, "mvm kill inner");
    host.settles_to(&before);
}
