//! QEMU as another user than root: it gets the nodes of its devices and no more, and the host gets them back.

use std::time::Duration;

use crate::devices::{NIC1, NVME};
use crate::host::{Host, SMALL};

/// With drivers for all that comes.
const START: &str = "mvm start linux --name inner --kernel /images/x86_64-full/vmlinux \
    --initrd /images/x86_64-full/initrd --append 'console=ttyS0 quiet' --cpus 1 --memory 384M --timeout 250s";

const VFS: &str = "grep -l 0x010802 /sys/bus/pci/devices/*/class | wc -l";
const MTTY: &str = "cat /proc/tty/driver/serial | grep -c 16550A";
const STICKS: &str = "ls -d /sys/block/sd* 2>/dev/null | wc -l";
const CARDS: &str = "ls -d /sys/class/net/eth* | wc -l";

/// QEMU's user, of the kernel.
const UID: &str = "awk '/^Uid:/ { print $2, $3, $4, $5 }' /proc/$(pidof qemu-system-x86_64)/status";
/// Whose the nodes of USB devices are, other than root's.
const THEIRS: &str = "stat -c '%u %a' /dev/bus/usb/*/* /dev/vfio/[0-9]* | grep -v '^0 ' | sort";

#[test]
fn a_guest_s_devices_are_its_user_s_while_it_has_them() {
    let host = Host::x86().modules("mtty").boot();
    host.nvme_give_vfs_queues();
    let run = |script: &str| {
        let output = host.sh(script, Duration::from_secs(300));
        assert_eq!(output.status, 0, "{script}\n{output}");
        output.stdout.trim_end().to_owned()
    };
    run("chown 0:104 /dev/kvm && chmod 660 /dev/kvm");
    let before = host.snapshot();
    let start = format!(
        "{START} --set security.user=nobody --pci vf:1@{NVME} --mdev mtty-2 --usb 46f4:0001"
    );
    // Root's alone: nothing is touched.
    run("echo image >/tmp/disk && chmod 600 /tmp/disk");
    let refused = host.sh(
        &format!("{start} --set disk.d.file.path=/tmp/disk"),
        Duration::from_secs(180),
    );
    assert_eq!(refused.status, 4, "{refused}");
    assert!(
        refused.stderr.contains("may not write /tmp/disk"),
        "{refused}"
    );
    host.settles_to(&before);

    let online = "nvme virt-mgmt /dev/nvme0 -c 1 -r 0 -a 9 -n 0";
    let guest = host.start("inner", &format!("{start} && {online}"));
    assert_eq!(run(UID), "65534 65534 65534 65534");
    assert_eq!(run(THEIRS), "65534 600\n65534 600\n65534 600");
    let within = |command: &str, wanted: &str| {
        let begin = std::time::Instant::now();
        loop {
            let said = guest.sh(command, Duration::from_secs(60)).stdout;
            if said.trim() == wanted {
                return;
            }
            if begin.elapsed() > Duration::from_secs(180) {
                let logs = host.sh(
                    "cat /var/lib/mvm/inner/log/[qs]*.log",
                    Duration::from_secs(30),
                );
                panic!("{command}: {said:?}, not {wanted:?}\n{logs}");
            }
        }
    };
    within(VFS, "1");
    within(STICKS, "1");
    within(MTTY, "3");
    guest.run("dd if=/dev/sda of=/dev/null bs=512 count=8 2>/dev/null");
    guest.run("echo word-of-the-guest >/dev/nvme0n1 && sync");
    let read = run("dd if=/dev/nvme0n1 bs=4096 count=1 iflag=direct 2>/dev/null | head -n 1");
    assert_eq!(read, "word-of-the-guest");

    // What comes later, and what comes again under a new node.
    let id = run(&format!("mvm attach inner --pci {NIC1}"));
    within(CARDS, "2");
    assert_eq!(run(THEIRS).lines().count(), 4);
    run(&format!("mvm detach inner {id}"));
    within(CARDS, "1");
    host.unplug("stick");
    within(STICKS, "0");
    host.plug("stick");
    // QEMU gets it anew. Without udev its libusb does not learn of it, so the guest is not asked.
    let begin = std::time::Instant::now();
    while run(THEIRS) != "65534 600\n65534 600\n65534 600" {
        assert!(
            begin.elapsed() < Duration::from_secs(120),
            "{}",
            run(THEIRS)
        );
    }

    run("mvm kill inner");
    host.settles_to(&before);
    assert_eq!(run(&format!("{THEIRS} | wc -l")), "0");

    // Nobody is left to give anything back.
    run(&start);
    assert_eq!(run(THEIRS), "65534 600\n65534 600\n65534 600");
    run("kill -KILL $(pidof mvm qemu-system-x86_64)");
    assert_ne!(run(THEIRS), "");
    run("mvm recover");
    host.settles_to(&before);
    assert_eq!(run(&format!("{THEIRS} | wc -l")), "0");
}

#[test]
fn a_function_is_bound_for_an_ordinary_user() {
    let host = Host::x86().boot();
    host.run("umask 022; mkdir -p /run/mvm-host/shared /run/mvm-host/bound /run/mvm-host/busy /run/mvm-host/leases \
         && chmod 1777 /run/mvm-host/leases && mkdir /tmp/home && chown 65534 /tmp/home");
    host.run("chown 0:104 /dev/kvm && chmod 660 /dev/kvm");
    let before = host.snapshot();
    let refused = host.sh("mvm bind 04:00.0 --for nosuch", Duration::from_secs(60));
    assert!(
        refused.status != 0 && refused.stderr.contains("nosuch"),
        "{refused}"
    );
    host.run("mvm bind 04:00.0 --for nobody");
    assert_eq!(host.run(THEIRS), "65534 600");

    // Too little memory that may stay in place is told, and that it was tried changes nothing.
    let nobody = |limit: &str, script: &str| {
        let script = format!(
            "ulimit -l {limit} && cd /tmp/home && HOME=/tmp/home XDG_RUNTIME_DIR=/tmp/home \
             capsh --groups=104 --gid=65534 --uid=65534 --shell=/bin/sh -- -c '{script}'"
        );
        host.sh(&script, Duration::from_secs(180))
    };
    let start = format!("mvm start {SMALL} --name own --pci 04:00.0");
    let refused = nobody("1024", &start);
    assert_eq!(refused.status, 4, "{refused}");
    assert!(refused.stderr.contains("memlock"), "{refused}");
    let started = nobody("unlimited", &start);
    assert_eq!(started.status, 0, "{started}");
    assert_eq!(host.run(UID), "65534 65534 65534 65534");
    assert!(
        host.snapshot()
            .has(&[&format!("{NIC1}/driver'"), "vfio-pci"])
    );
    let held = host.sh("mvm unbind 04:00.0", Duration::from_secs(60));
    assert!(held.stderr.contains("own"), "{held}");
    assert_eq!(nobody("64", "mvm kill own").status, 0);
    assert_eq!(host.run(THEIRS), "65534 600");
    host.run("mvm unbind 04:00.0");
    assert_eq!(host.run(&format!("{THEIRS} | wc -l")), "0");
    host.settles_to(&before);
}
