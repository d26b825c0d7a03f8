//! Guests that sleep while they have devices of the host.

use std::time::Duration;

use crate::devices::NVME;
use crate::host::{Host, SMALL};

/// A machine whose virtual function is parked while it sleeps. q35 with its built-in BIOS wakes once, so each test
/// puts it to sleep once for each start.
fn machine(more: &str) -> String {
    format!(
        "mkdir -p /etc/mvm/machines && cat >/etc/mvm/machines/inner.toml <<'END'\n\
         extends = [\"linux\"]\n\
         [cpu]\ncount = 1\n\
         [memory]\nsize = \"256M\"\n\
         [boot]\nkernel = \"/images/x86_64/kernel\"\ninitrd = \"/images/x86_64/initrd\"\n\
         append = \"console=ttyS0 quiet mvm.swap=/dev/vda\"\n\
         [network.lan]\nnone = {{}}\n\
         [disk.swap]\nfile = {{ path = \"/tmp/swap.raw\", format = \"raw\" }}\n\
         [agent]\nenabled = true\n\
         [pci.data]\nvf = {{ of = \"{NVME}\", index = 1 }}\n{more}END\n\
         truncate -s 512M /tmp/swap.raw"
    )
}

/// Whoever is killed around a sleep with a parked device, the guest has it again when it is awake.
#[test]
fn a_supervisor_that_dies_while_it_parks_loses_nothing() {
    let host = Host::x86().boot();
    host.nvme_give_vfs_queues();
    host.run("mke2fs -q -t ext4 /dev/nvme0n1");
    host.run(&machine("park = true\n"));
    let before = host.snapshot();
    host.run(ONLINE);
    let mut guest = host.start("inner", "mvm start inner");
    long(&host, "mvm wait inner --for agent --timeout 2m");
    guest.run(PROBE);
    guest.run("until mount -t ext4 /dev/nvme0n1 /mnt; do sleep 1; done; echo here >/mnt/file");
    for after in ["0.3", "0.8", "1.5", "2.5"] {
        let killed = format!(
            "mvm suspend inner >/tmp/said 2>&1 & sleep {after}; kill -KILL $(mvm show inner --format json | \
             sed -n 's/^  \"supervisor\": \\([0-9]*\\),*/\\1/p'); wait; cat /tmp/said; mvm recover; mvm list"
        );
        long(&host, &killed);
        // It may still be on its way into its sleep.
        host.run("sleep 5; mvm list");
        long(&host, "mvm wakeup inner");
        guest.run(
            "for i in $(seq 60); do [ -e /mnt/file ] && break; sleep 1; done; grep here /mnt/file",
        );
        assert_eq!(numvfs(&host), "4");
        if host
            .run("mvm show inner --format json")
            .contains("\"wakeups\": 0")
        {
            continue;
        }
        // It wakes once in each of its lives.
        host.run("mvm kill inner");
        guest = host.start("inner", "mvm start inner");
        long(&host, "mvm wait inner --for agent --timeout 2m");
        guest.run(PROBE);
        guest.run("until mount -t ext4 /dev/nvme0n1 /mnt; do sleep 1; done");
    }
    host.run("mvm kill inner; kill $(cat /tmp/online)");
    host.settles_to(&before);
}

/// A virtual function of the emulated NVMe device is offline when it is made, and has lost its queues when it goes:
/// from now on it gets all that each time, before a guest's driver looks at it.
const ONLINE: &str = "(made=; while :; do \
     read count </sys/bus/pci/devices/0000:01:00.0/sriov_numvfs; \
     if [ $count = 0 ]; then \
       [ -z \"$made\" ] || { nvme virt-mgmt /dev/nvme0 -c 1 -r 1 -a 8 -n 1; nvme virt-mgmt /dev/nvme0 -c 1 -r 0 -a 8 -n 2; }; \
       made=; elif [ -z \"$made\" ]; then \
       nvme virt-mgmt /dev/nvme0 -c 1 -r 0 -a 9 -n 0 && made=yes; fi; \
     sleep 0.1; done) >/dev/null 2>&1 & echo $! >/tmp/online";

/// The guest's driver gives up on one that is still offline, and tries again when it is told to.
const PROBE: &str = "(while :; do for d in /sys/bus/pci/devices/*; do \
     [ $(cat $d/class) = 0x010802 ] && [ ! -e $d/driver ] && echo ${d##*/} >/sys/bus/pci/drivers/nvme/bind; \
     done; sleep 1; done) >/dev/null 2>&1 & true";

fn numvfs(host: &Host) -> String {
    host.run(&format!("cat /sys/bus/pci/devices/{NVME}/sriov_numvfs"))
}

fn long(host: &Host, script: &str) -> String {
    let out = host.sh(script, Duration::from_secs(300));
    assert_eq!(out.status, 0, "{script}\n{out}");
    out.stdout.trim_end().to_owned()
}

#[test]
fn a_virtual_function_is_parked_while_its_guest_sleeps() {
    let host = Host::x86().boot();
    host.nvme_give_vfs_queues();
    host.run("mke2fs -q -t ext4 /dev/nvme0n1");
    host.run(&machine("park = true\n"));
    let before = host.snapshot();
    host.run(ONLINE);
    let guest = host.start("inner", "mvm start inner");
    long(&host, "mvm wait inner --for agent --timeout 2m");
    guest.run(PROBE);
    guest.run(
        "mkdir '/mnt/my disk' && until mount -t ext4 /dev/nvme0n1 '/mnt/my disk'; do sleep 1; done; \
         cd '/mnt/my disk' && dd if=/dev/urandom of=file bs=1M count=4 && sha256sum file >/tmp/sum",
    );

    // The shell is in it.
    let busy = host.sh("mvm suspend inner", Duration::from_secs(180));
    assert_eq!(busy.status, 1, "{busy}");
    for words in ["`data` cannot be parked", "/mnt/my disk is in use", "sh ("] {
        assert!(busy.stderr.contains(words), "{words}: {busy}");
    }
    assert_eq!(numvfs(&host), "4");
    guest.run("cd / && grep -q 'my.*disk' /proc/mounts");

    long(&host, "mvm suspend inner");
    assert!(host.run("mvm list").contains("suspended"));
    assert_eq!(numvfs(&host), "0");
    let other = host.sh(
        &format!("mvm start {SMALL} --name other --pci vf:1@01:00.0"),
        Duration::from_secs(180),
    );
    assert_eq!(other.status, 4, "{other}");
    assert!(other.stderr.contains("guest inner has vf:1@"), "{other}");

    let woken = host.sh("mvm wakeup inner", Duration::from_secs(300));
    if woken.status != 0 {
        host.run("mvm log inner; dmesg | tail -n 20; nvme list-secondary /dev/nvme0");
        let look = "dmesg | tail -n 40; ls -l /sys/bus/pci/devices/*/driver; ls /sys/class/nvme* /sys/class/block; cat /proc/mounts";
        guest.sh(look, Duration::from_secs(60));
        panic!("{woken}");
    }
    assert_eq!(numvfs(&host), "4");
    guest.run("cd '/mnt/my disk' && sha256sum -c /tmp/sum && cd / && umount '/mnt/my disk'");
    host.run("mvm kill inner");
    host.run("kill $(cat /tmp/online)");
    host.settles_to(&before);
    host.run("echo 1 >/sys/bus/pci/devices/0000:01:00.0/reset; e2fsck -fn /dev/nvme0n1");
}

#[test]
fn the_host_s_sleep_parks_devices_and_hibernation_frees_them() {
    let host = Host::x86().boot();
    host.nvme_give_vfs_queues();
    host.run("mke2fs -q -t ext4 /dev/nvme0n1");
    host.run(&machine("park = true\n"));
    // Its record is there from then on.
    host.run("mvm sleep post");
    let before = host.snapshot();
    host.run(ONLINE);
    let guest = host.start("inner", "mvm start inner");
    long(&host, "mvm wait inner --for agent --timeout 2m");
    guest.run(PROBE);
    guest.run(
        "until mount -t ext4 /dev/nvme0n1 /mnt; do sleep 1; done; \
         dd if=/dev/urandom of=/mnt/file bs=1M count=4 && sha256sum /mnt/file >/tmp/sum",
    );

    long(&host, "mvm sleep pre");
    assert_eq!(numvfs(&host), "0");
    // Whoever supervises it when it wakes gives it back.
    host.run("kill -KILL $(pidof mvm); mvm recover");
    assert!(host.run("mvm list").contains("suspended"));
    assert_eq!(numvfs(&host), "0");
    long(&host, "mvm sleep post");
    assert_eq!(numvfs(&host), "4");
    guest.run("sha256sum -c /tmp/sum");

    // A guest that was woken once on this board does not go off by itself: it begins anew.
    let refused = host.sh("mvm hibernate inner", Duration::from_secs(60));
    assert_eq!(refused.status, 1, "{refused}");
    assert!(refused.stderr.contains("switch itself off"), "{refused}");
    guest.run("umount /mnt");
    host.run("mvm kill inner");
    let guest = host.start("inner", "mvm start inner");
    long(&host, "mvm wait inner --for agent --timeout 2m");
    guest.run("echo before >/tmp/sum");
    long(&host, "mvm hibernate inner");
    assert!(host.run("mvm list --all").contains("hibernated"));
    assert_eq!(numvfs(&host), "0");
    host.run(&format!(
        "mvm start {SMALL} --name other --pci vf:1@01:00.0 && mvm kill other"
    ));
    host.run("mvm start inner");
    long(&host, "mvm wait inner --for agent --timeout 2m");
    // The memory is that of the guest that was hibernated.
    let sum = long(&host, "mvm exec inner -- cat /tmp/sum");
    assert_eq!(sum, "before");
    host.run("mvm kill inner");
    host.run("kill $(cat /tmp/online)");
    host.settles_to(&before);
}
