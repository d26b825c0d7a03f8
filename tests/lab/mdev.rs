//! Mediated devices, of the kernel's samples: a serial port that says what it is told, and a display.

use crate::guest::PCI;
use crate::host::Host;

#[test]
fn mediated_devices_are_made_and_removed() {
    let host = Host::x86().modules("mtty mdpy").boot();
    let before = host.snapshot();
    let guest = host.start(
        "inner",
        "mvm start linux --name inner --kernel /images/x86_64-full/vmlinux \
         --initrd /images/x86_64-full/initrd --append 'console=ttyS0 quiet' --cpus 1 --memory 384M \
         --set network.lan.none={} --mdev mtty-2 --mdev mdpy-vga@mdpy",
    );
    let now = host.snapshot();
    assert!(now.has(&["mtty-2/available_instances:11"]), "{now:?}");
    assert!(now.has(&["mdpy-vga/available_instances:3"]), "{now:?}");
    let seen = guest.run(PCI);
    assert!(seen.contains("0x4348 0x3253 serial"), "{seen}");
    assert!(seen.contains("0x1b36 0x000f"), "{seen}");
    // Its driver found both ports by writing to their registers and reading them again.
    let ports = guest.run("cat /proc/tty/driver/serial");
    let found = ports.lines().filter(|line| line.contains("16550A")).count();
    assert!(found >= 3, "{ports}");
    guest.run(
        "t=/dev/$(ls /sys/bus/pci/drivers/serial/0*/tty | grep ttyS | head -n 1); \
         stty -F $t raw -echo; (cat $t >/tmp/heard &); sleep 1; echo word >$t; sleep 2; \
         grep word /tmp/heard",
    );
    host.run("mvm kill inner");
    host.settles_to(&before);
}
