//! A guest with devices of the host whose supervisor is killed, and QEMU too; and a hundred guests one after
//! the other.

use std::time::{Duration, Instant};

use crate::devices::{NIC1, NVME};
use crate::host::{Host, SMALL};

#[test]
fn whoever_is_killed_the_devices_come_back() {
    let host = Host::x86().modules("mtty").boot();
    let before = host.snapshot();
    let devices = "--pci 04:00.0 --pci vf:2@01:00.0 --mdev mtty-1";

    // QEMU goes on, and a new supervisor knows what to give back.
    let guest = host.start(
        "inner",
        &format!(
            "mvm start linux --name inner --kernel /images/x86_64-full/vmlinux \
             --initrd /images/x86_64-full/initrd --append 'console=ttyS0 quiet' --cpus 1 --memory 384M \
             --set network.lan.none={{}} {devices}"
        ),
    );
    host.run("kill -KILL $(pidof mvm)");
    let taken = host.snapshot();
    assert!(taken.has(&[&format!("{NIC1}/driver'"), "vfio-pci"]));
    host.run("mvm recover");
    let links = guest.run("cat /sys/class/net/*/address");
    assert!(links.contains("52:54:00:00:00:11"), "{links}");
    // Recovery left it all to the living guest.
    assert!(host.snapshot().has(&["run ", "leases/pci-0000:04:00.0"]));
    host.run("mvm kill inner");
    host.settles_to(&before);

    // Neither is left: recovery puts all back.
    let start = format!("mvm start {SMALL} --name inner {devices}");
    let kill = "kill -KILL $(pidof mvm qemu-system-x86_64)";
    host.run(&start);
    host.run(kill);
    assert!(
        host.snapshot()
            .has(&[&format!("{NIC1}/driver'"), "vfio-pci"])
    );
    host.run("mvm recover");
    host.settles_to(&before);

    // So does the next start, of the same guest or of another one that wants the same.
    for name in ["inner", "another"] {
        host.run(&start);
        host.run(kill);
        host.run(&format!("mvm start {SMALL} --name {name} {devices}"));
        host.run(&format!("mvm kill {name}"));
        host.run("mvm recover");
        host.settles_to(&before);
    }

    // A supervisor in the foreground adopts as well.
    host.run(&start);
    host.run("kill -KILL $(pidof mvm)");
    host.run(&format!(
        "(mvm run {SMALL} --name inner --no-console {devices} >/tmp/adopted 2>&1 &); \
         for i in $(seq 100); do mvm list | grep inner | grep -q running && break; sleep 0.2; done; \
         mvm kill inner"
    ));
    host.settles_to(&before);
    assert_eq!(
        host.run(&format!("cat /sys/bus/pci/devices/{NVME}/sriov_numvfs")),
        "0"
    );
}

#[test]
fn a_hundred_starts_and_stops_leave_nothing_behind() {
    let host = Host::x86().modules("mtty").boot();
    let before = host.snapshot();
    let begin = Instant::now();
    let out = host.sh(
        &format!(
            "for i in $(seq 100); do \
               mvm start {SMALL} --name cycle --pci vf:auto@01:00.0 --mdev mtty-1 >/tmp/cycle.log 2>&1 && \
               mvm kill cycle >>/tmp/cycle.log 2>&1 || {{ echo $i; cat /tmp/cycle.log; exit 1; }}; \
               echo $i $(cut -d. -f1 /proc/uptime) >>/lab/cycles; \
             done"
        ),
        Duration::from_secs(3600),
    );
    assert_eq!(out.status, 0, "{out}");
    println!("100 cycles took {} s", begin.elapsed().as_secs());
    host.settles_to(&before);
}
