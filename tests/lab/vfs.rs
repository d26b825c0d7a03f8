//! Virtual functions: made and removed by mvm or the host's own, used by two guests, fought over.

use std::time::Duration;

use crate::devices::{IGB, NVME};
use crate::host::{Host, SMALL};

/// A guest with Debian's cloud kernel, which has NVMe.
const CLOUD: &str = "linux --kernel /images/x86_64/kernel --initrd /images/x86_64/initrd \
     --append 'console=ttyS0 quiet' --cpus 1 --memory 256M --set network.lan.none={}";

/// The first line of the NVMe namespace, past all caches.
const READ: &str = "dd if=/dev/nvme0n1 bs=4096 count=1 iflag=direct 2>/dev/null | head -n 1";
/// How many NVMe controllers a guest has.
const VFS: &str = "grep -l 0x010802 /sys/bus/pci/devices/*/class | wc -l";

/// How many virtual functions the NVMe device has.
#[track_caller]
fn numvfs(host: &Host) -> String {
    host.run(&format!("cat /sys/bus/pci/devices/{NVME}/sriov_numvfs"))
}

/// Starts two guests at the same moment with these options. One wins; the other says that the winner has `device`.
/// The winner's name.
#[track_caller]
fn race(host: &Host, guest: &str, options: &str, device: &str) -> &'static str {
    host.run(&format!(
        "for n in one two; do \
           (mvm start {guest} --name $n {options} >/tmp/$n.out 2>&1; echo $? >/tmp/$n.code) & \
         done; wait"
    ));
    let told = |name: &str| host.run(&format!("cat /tmp/{name}.code /tmp/{name}.out"));
    let (one, two) = (told("one"), told("two"));
    let (winner, loser) = match (one.starts_with("0\n"), two.starts_with("0\n")) {
        (true, false) => ("one", two),
        (false, true) => ("two", one),
        _ => panic!("one:\n{one}\ntwo:\n{two}"),
    };
    assert!(loser.starts_with("4\n"), "{loser}");
    assert!(
        loser.contains(&format!("guest {winner} has {device}")),
        "{loser}"
    );
    winner
}

#[test]
fn ci_vfs_are_made_used_by_two_guests_and_removed_with_the_last() {
    let host = Host::x86().boot();
    host.nvme_give_vfs_queues();
    let before = host.snapshot();
    let online = |number: u32| format!("nvme virt-mgmt /dev/nvme0 -c {number} -r 0 -a 9 -n 0");

    let guest = host.start(
        "first",
        &format!(
            "mvm start {CLOUD} --name first --pci vf:1@01:00.0 && {}",
            online(1)
        ),
    );
    assert_eq!(numvfs(&host), "4");
    // The namespace is the same one for all: what the guest writes is what the host reads.
    guest.run("echo word-of-the-guest >/dev/nvme0n1 && sync");
    assert_eq!(host.run(READ), "word-of-the-guest");

    let second = host.start(
        "second",
        &format!(
            "mvm start {CLOUD} --name second --pci vf:auto@nvm 2>/tmp/said && {}",
            online(2)
        ),
    );
    assert_eq!(second.run(READ), "word-of-the-guest");
    let said = host.run("cat /tmp/said");
    assert!(said.contains(&format!("nvm → {NVME}")), "{said}");
    assert!(said.contains(&format!("→ vf:2@{NVME}")), "{said}");

    // Its virtual functions would go with it.
    let whole = host.sh(
        &format!("mvm start {SMALL} --name whole --pci 01:00.0"),
        Duration::from_secs(180),
    );
    assert_eq!(whole.status, 4, "{whole}");
    assert!(whole.stderr.contains("4 virtual functions"), "{whole}");
    assert!(whole.stderr.contains("guests first, second"), "{whole}");

    host.run("mvm kill first");
    assert_eq!(numvfs(&host), "4");
    assert!(host.snapshot().has(&["0000:01:00.2/driver'", "vfio-pci"]));
    second.run("echo the-other-one >/dev/nvme0n1 && sync");
    assert_eq!(host.run(READ), "the-other-one");
    host.run("mvm kill second");
    host.settles_to(&before);
    assert_eq!(numvfs(&host), "0");
}

#[test]
fn the_last_vf_is_won_by_one_guest_and_vfs_of_the_host_stay() {
    let host = Host::x86().boot();
    let before = host.snapshot();
    let last = format!("--set 'pci.last.vf={{ of = \"{NVME}\", index = \"auto\", count = 1 }}'");
    for _ in 0..3 {
        let winner = race(&host, SMALL, &last, "it");
        assert_eq!(numvfs(&host), "1");
        host.run(&format!("mvm kill {winner}"));
        host.settles_to(&before);
    }

    host.run(&format!(
        "cd /sys/bus/pci/devices/{NVME} && echo 0 >sriov_drivers_autoprobe && echo 2 >sriov_numvfs"
    ));
    let with = host.snapshot();
    let winner = race(&host, CLOUD, "--pci vf:2@01:00.0", &format!("vf:2@{NVME}"));
    assert_eq!(host.guest(winner).run(VFS), "1");
    let more = host.sh(
        &format!("mvm start {SMALL} --name more --pci vf:3@01:00.0"),
        Duration::from_secs(180),
    );
    assert_eq!(more.status, 4, "{more}");
    assert!(
        more.stderr.contains("2 virtual functions already"),
        "{more}"
    );
    host.run(&format!("mvm kill {winner}"));
    host.settles_to(&with);
    assert_eq!(numvfs(&host), "2");

    // There are no more than two, and one that does not exist at all is another matter.
    let none = host.sh(
        &format!("mvm start {SMALL} --name none --pci vf:9@01:00.0"),
        Duration::from_secs(180),
    );
    assert_eq!(none.status, 4, "{none}");
    assert!(none.stderr.contains("it can have 4"), "{none}");
}

#[test]
fn a_vf_of_an_igb_nic_has_the_mac_and_vlan_of_the_profile() {
    let host = Host::x86().igb().boot();
    let link = host.run(&format!("ls /sys/bus/pci/devices/{IGB}/net"));
    // The VF's driver asks the PF for its address, and it answers when it is up.
    host.run(&format!("ip link set {link} up"));
    let before = host.snapshot();
    let guest = host.start(
        "inner",
        &format!(
            "mvm start linux --kernel /images/x86_64-full/vmlinux --initrd /images/x86_64-full/initrd \
             --append 'console=ttyS0 quiet' --cpus 1 --memory 384M --set network.lan.none={{}} --name inner \
             --set 'pci.nic.vf={{ of = \"{IGB}\", index = 2, count = 3, mac = \"52:54:00:aa:bb:02\", vlan = 7 }}'"
        ),
    );
    let links = guest.run(
        "for n in /sys/class/net/*; do \
           echo $(cat $n/address) $(readlink $n/device/driver); done",
    );
    let line = links
        .lines()
        .find(|line| line.starts_with("52:54:00:aa:bb:02"));
    assert!(line.is_some_and(|line| line.ends_with("/igbvf")), "{links}");
    let shown = host.run(&format!("ip link show {link}"));
    let vf = shown.lines().find(|line| line.trim().starts_with("vf 1 "));
    assert!(
        vf.is_some_and(|vf| vf.contains("52:54:00:aa:bb:02") && vf.contains("vlan 7")),
        "{shown}"
    );
    assert_eq!(
        host.run(&format!("cat /sys/bus/pci/devices/{IGB}/sriov_numvfs")),
        "3"
    );
    host.run("mvm kill inner");
    host.settles_to(&before);
}
