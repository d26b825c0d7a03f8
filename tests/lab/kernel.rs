//! What a guest gets from the host's kernel beside KVM: vsock and vhost-net.

use std::time::{Duration, Instant};

use crate::host::Host;

#[test]
fn vsock_both_ways_and_packets_through_vhost_net() {
    let host = Host::x86().boot();
    let before = host.snapshot();
    // The guest's own file system has no program that speaks vsock: it uses the host's.
    host.run(
        "mvm start linux --name inner --kernel /images/x86_64-full/vmlinux \
         --initrd /images/x86_64-full/initrd --append 'console=ttyS0 quiet mvm.mount=tools' \
         --cpus 1 --memory 512M --set vsock.cid=77 --set 'network.lan={ tap = { name = \"tap-inner\", \
         address = \"10.9.0.1/30\" } }' --set 'share.tools={ path = \"/\", read-only = true, \
         security-model = \"none\" }'",
    );
    let guest = host.guest("inner");
    let hear = |place: &dyn Fn(&str) -> String, word: &str| {
        let begin = Instant::now();
        while !place("cat /tmp/heard 2>/dev/null || true").contains(word) {
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "{word} not heard"
            );
        }
    };

    host.run("socat -u VSOCK-LISTEN:5000 OPEN:/tmp/heard,creat </dev/null >/dev/null 2>&1 &");
    guest.run("echo word-of-the-guest | chroot /mnt/tools socat -u - VSOCK-CONNECT:2:5000");
    hear(&|script| host.run(script), "word-of-the-guest");

    guest.run("(chroot /mnt/tools socat -u VSOCK-LISTEN:6000 - >/tmp/heard 2>&1 &)");
    host.run(
        "for i in $(seq 20); do \
         echo word-of-the-host | socat -u - VSOCK-CONNECT:77:6000 && break; sleep 0.5; done",
    );
    hear(&|script| guest.run(script), "word-of-the-host");

    let qemu = "/proc/$(pidof qemu-system-x86_64)/fd";
    host.run(&format!(
        "ls -l {qemu} | grep -q vhost-net && ls -l {qemu} | grep -q vhost-vsock"
    ));
    guest.run("ip addr add 10.9.0.2/30 dev eth0 && ip link set eth0 up && ping -c 2 -W 5 10.9.0.1");
    host.run("ping -c 2 -W 5 10.9.0.2");

    host.run("mvm kill inner");
    host.settles_to(&before);
}
