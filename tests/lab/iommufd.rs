//! VFIO through `/dev/iommu`, of a kernel that has it and with a QEMU that can: devices by their own nodes.

use std::time::Duration;

use crate::devices::{NIC1, NVME};
use crate::host::Host;

/// With drivers for all that comes.
const START: &str = "mvm start linux --kernel /images/x86_64-full/vmlinux \
    --initrd /images/x86_64-full/initrd --append 'console=ttyS0 quiet' --cpus 1 --memory 384M \
    --set network.lan.none={} --set vfio.backend=iommufd";

/// What QEMU has open of VFIO's.
const OPEN: &str = "ls -l /proc/$(pidof qemu-system-x86_64)/fd | grep -oE '/dev/(iommu|vfio/[a-z0-9/]+)' | sort -u";

#[test]
fn iommufd_a_card_and_a_virtual_function_by_their_own_nodes() {
    let host = Host::x86().iommufd().boot();
    let run = |script: &str| {
        let output = host.sh(script, Duration::from_secs(400));
        assert_eq!(output.status, 0, "{script}\n{output}");
        output.stdout.trim_end().to_owned()
    };
    host.nvme_give_vfs_queues();
    // Loaded with the first device at the latest; then it stays.
    run("modprobe iommufd && chown 0:104 /dev/kvm && chmod 660 /dev/kvm");
    let before = host.snapshot();

    // Root's QEMU, and one of the two at its start.
    let guest = host.start("root", &format!("{START} --name root --pci {NIC1}"));
    let card = guest.run("cat /sys/class/net/eth*/address");
    assert_eq!(card, "52:54:00:00:00:11");
    assert_eq!(run(OPEN), "/dev/iommu\n/dev/vfio/devices/vfio0");
    run("mvm kill root");
    host.settles_to(&before);

    // Another user's, to whom `/dev/iommu` is handed over; and the card comes later.
    let online = "nvme virt-mgmt /dev/nvme0 -c 1 -r 0 -a 9 -n 0";
    let start = format!("{START} --name user --set security.user=nobody --pci vf:1@{NVME}");
    let guest = host.start("user", &format!("{start} && {online}"));
    guest.run("echo word-of-the-guest >/dev/nvme0n1 && sync");
    let read = run("dd if=/dev/nvme0n1 bs=4096 count=1 iflag=direct 2>/dev/null | head -n 1");
    assert_eq!(read, "word-of-the-guest");
    assert_eq!(run(OPEN), "/dev/iommu\n/dev/vfio/devices/vfio0");
    let uids = run("stat -c '%n %u %a' /dev/iommu /dev/vfio/devices/* /dev/vfio/[0-9]*");
    assert!(uids.contains("vfio0 65534 600"), "{uids}");
    assert_eq!(uids.matches("65534").count(), 1, "{uids}");
    let id = run(&format!("mvm attach user --pci {NIC1}"));
    let begin = std::time::Instant::now();
    while guest.run("cat /sys/class/net/eth*/address 2>/dev/null || true") != card {
        assert!(begin.elapsed() < Duration::from_secs(180), "no card");
    }
    assert!(
        run(OPEN).ends_with("/dev/vfio/devices/vfio1"),
        "{}",
        run(OPEN)
    );
    run(&format!("mvm detach user {id}"));
    run("kill -9 $(pidof qemu-system-x86_64) $(pidof mvm)");
    run("mvm recover");
    host.settles_to(&before);
}
