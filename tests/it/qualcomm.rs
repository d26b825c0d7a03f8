//! The guests of Qualcomm's guide to KVM on Arm, each feature booted for real (under TCG) and asserted
//! inside the guest. One guest carries many features, because booting is what takes the time.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::env::{TestEnv, eventually, has_program};
use crate::shell::{Shell, images};

const MINUTE: Duration = Duration::from_secs(60);

/// An environment whose image folder has the names that `arm-virt` looks for.
fn arm_env(kind: &str) -> TestEnv {
    let env = TestEnv::new();
    let from = images(kind);
    fs::create_dir_all(env.image("arm-virt")).expect("a folder");
    for (to, file) in [
        ("Image", "kernel"),
        ("rootfs.cpio.gz", "initrd"),
        ("rootfs.ext4", "rootfs.ext4"),
        ("disk.img", "disk.raw"),
    ] {
        std::os::unix::fs::symlink(from.join(file), env.image("arm-virt").join(to))
            .expect("a link");
    }
    env
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

#[test]
fn qemu_ramdisk_boot_gicv3_psci_and_watchdog_poweroff() {
    if !has_program("qemu-system-aarch64") {
        return;
    }
    let env = arm_env("aarch64-full");
    env.run(&[
        "start",
        "arm-virt",
        "--variant",
        "watchdog",
        "--set",
        "watchdog.action=poweroff",
    ])
    .exits(0);
    let mut shell = Shell::open(&env.path("run/arm-virt/console-main.sock"));

    // Ramdisk boot, the processor's number, GICv3.
    assert_eq!(shell.run("uname -m"), "aarch64");
    assert_eq!(
        shell.run("awk '$2 == \"/\" {print $1}' /proc/mounts | tail -n 1"),
        "rootfs"
    );
    assert_eq!(shell.run("nproc"), "4");
    assert!(
        shell
            .run("dmesg | grep -c 'GICv3'")
            .parse::<u32>()
            .expect("a count")
            > 0
    );

    // PSCI takes a processor off and brings it back.
    assert!(shell.run("dmesg | grep -i psci").contains("PSCIv"));
    shell.run("echo 0 >/sys/devices/system/cpu/cpu3/online");
    assert_eq!(shell.run("cat /sys/devices/system/cpu/online"), "0-2");
    shell.run("echo 1 >/sys/devices/system/cpu/cpu3/online");
    assert_eq!(shell.run("cat /sys/devices/system/cpu/online"), "0-3");

    // The agent answers.
    env.run(&["wait", "arm-virt", "--for", "agent", "--timeout", "90s"])
        .exits(0);

    // The watchdog bites, and QEMU ends.
    shell.run("rmmod i6300esb; modprobe i6300esb heartbeat=2");
    shell.send("echo 1 >/dev/watchdog");
    env.run(&["wait", "arm-virt", "--for", "stopped", "--timeout", "60s"])
        .exits(0);
    eventually("the run directory is gone", MINUTE, || {
        !env.path("run/arm-virt").exists()
    });
}

#[test]
fn qemu_rootfs_boot_with_the_devices_of_the_guide() {
    if !has_program("qemu-system-aarch64") {
        return;
    }
    let env = arm_env("aarch64-full");
    // Both disks are written to through a throw-away overlay: the images are shared by all tests.
    let share = env.path("share");
    fs::create_dir(&share).expect("a folder");
    fs::write(share.join("file.txt"), "testing\n").expect("a file");
    let share_path = format!("share.hostshare.path={}", share.display());
    let tap = is_root() && Path::new("/dev/net/tun").exists();
    let mut args = vec![
        "start",
        "arm-virt",
        "--name",
        "arm",
        "--variant",
        "rootfs",
        "--variant",
        "second-disk",
        "--variant",
        "virtconsole",
        "--variant",
        "watchdog",
        "--variant",
        "iommu",
        "--set",
        "disk.root.ephemeral=true",
        // Debian's kernel has virtio-blk as a module: the ramdisk loads it and goes on in /dev/vda.
        "--set",
        "boot.initrd=arm-virt/rootfs.cpio.gz",
        "--set",
        "disk.second.ephemeral=true",
        "--set",
        "balloon.enabled=true",
        "--set",
        "channel.app.port=com.example.app",
        "--set",
        "trace=[\"virtio_set_status\"]",
        "--set",
        &share_path,
    ];
    // A subnet of its own: a second run on this machine, or what a failed one left, must not get the route.
    let subnet = std::process::id() % 250;
    let network = format!(
        "network.lan.tap={{ name = \"mvmt{}\", address = \"10.199.{subnet}.1/30\" }}",
        std::process::id() % 100_000
    );
    if tap {
        args.extend(["--set", &network]);
    }
    env.run(&args).exits(0);
    let mut shell = Shell::open(&env.path("run/arm/console-main.sock"));

    // Root file system on virtio, a second disk with its marker.
    let root = shell.run("awk '$2 == \"/\" {print $1}' /proc/mounts | tail -n 1");
    assert_eq!(root, "/dev/vda");
    let marker = fs::read(images("aarch64-full").join("disk.raw")).expect("the disk");
    let first = String::from_utf8_lossy(&marker[..16])
        .trim_end_matches('\0')
        .trim()
        .to_owned();
    assert!(!first.is_empty(), "the test disk begins with a marker");
    assert!(
        shell
            .run("dd if=/dev/vdb bs=16 count=1 2>/dev/null | tr -d '\\0'")
            .starts_with(&first)
    );

    // 9p: read and written in the guest, seen on the host.
    shell.run("mkdir -p /tmp/s && modprobe -a 9p 9pnet_virtio && mount -t 9p -o trans=virtio,version=9p2000.L hostshare /tmp/s");
    assert_eq!(shell.run("cat /tmp/s/file.txt"), "testing");
    shell.run("echo from the guest >/tmp/s/answer && sync");
    assert_eq!(
        fs::read_to_string(share.join("answer")).expect("the guest's file"),
        "from the guest\n"
    );

    // A virtio-serial channel, and the agent's.
    let mut channel =
        UnixStream::connect(env.path("run/arm/channel-app.sock")).expect("the channel");
    channel.set_read_timeout(Some(MINUTE)).expect("a deadline");
    shell.run("p=/dev/virtio-ports/com.example.app; for i in 1 2 3 4 5 6 7 8 9 10; do [ -e $p ] || sleep 1; done; echo from inside >$p");
    let mut heard = [0; 12];
    channel.read_exact(&mut heard).expect("the guest's words");
    assert_eq!(&heard, b"from inside\n");
    env.run(&["wait", "arm", "--for", "agent", "--timeout", "90s"])
        .exits(0);

    // The balloon, as the guest sees it.
    let total = |shell: &mut Shell| -> u64 {
        let text = shell.run("awk '/^MemTotal/ {print $2}' /proc/meminfo");
        text.parse().expect("kilobytes")
    };
    let full = total(&mut shell);
    assert!(full > 1_800_000, "{full} kB of 2 GiB");
    env.run(&["memory", "arm", "512M"]).exits(0);
    let small = total(&mut shell);
    assert!(small < 600_000, "{small} kB of 512 MiB");
    env.run(&["memory", "arm", "2G"]).exits(0);
    assert_eq!(total(&mut shell), full);

    // virtio-iommu: the block device is in a group.
    let group = shell.run("readlink -f $(readlink -f /sys/block/vda/device/..)/iommu_group");
    assert!(group.starts_with("/sys/kernel/iommu_groups/"), "{group}");

    // A virtio console on a pseudo-terminal of the host.
    let shown = env.run(&["show", "arm", "--format", "json"]).exits(0);
    let pty = shown
        .stdout
        .split('"')
        .find(|word| word.starts_with("/dev/pts/"))
        .unwrap_or_else(|| panic!("no pseudo-terminal in {}", shown.stdout))
        .to_owned();
    both_ways_over(&pty, &mut shell);

    // A tap with an address on both ends.
    if tap {
        shell.run(&format!(
            "ip addr add 10.199.{subnet}.2/30 dev eth0 && ip link set eth0 up"
        ));
        shell.run(&format!(
            "for i in 1 2 3 4 5; do ping -c 1 -W 2 10.199.{subnet}.1 && break; done"
        ));
    } else {
        eprintln!("skipped: the tap, which needs root and /dev/net/tun");
    }

    // Trace events are in QEMU's log.
    let log = env.run(&["log", "arm", "--qemu"]).exits(0);
    assert!(log.stdout.contains("virtio_set_status"), "{}", log.stdout);

    // The watchdog bites, and the guest starts anew.
    shell.run("rmmod i6300esb; modprobe i6300esb heartbeat=2");
    shell.send("echo 1 >/dev/watchdog");
    shell.wait_for("mvm demo guest: ready", Duration::from_secs(120));
    let events = fs::read_to_string(env.path("run/arm/events.log")).expect("the event log");
    assert!(events.contains("\"WATCHDOG\""), "{events}");

    env.run(&["stop", "arm", "--timeout", "60s"]).exits(0);
    if tap {
        let name = format!("/sys/class/net/mvmt{}", std::process::id() % 100_000);
        assert!(!Path::new(&name).exists(), "{name} is still there");
    }
}

/// A shell of the guest is on the other end. It begins anew whenever nobody has the terminal open, and
/// loses what is typed meanwhile, so the line is typed until it is answered.
fn both_ways_over(pty: &str, shell: &mut Shell) {
    let mut terminal = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY)
        .open(pty)
        .expect("the pseudo-terminal");
    let mut heard = Vec::new();
    let mut hears = |text: &str, again: &mut dyn FnMut(&mut fs::File)| {
        let begin = Instant::now();
        while !String::from_utf8_lossy(&heard).contains(text) {
            assert!(
                begin.elapsed() < MINUTE,
                "`{text}` did not come over {pty}:\n{}",
                String::from_utf8_lossy(&heard)
            );
            again(&mut terminal);
            std::thread::sleep(Duration::from_secs(1));
            let mut chunk = [0; 4096];
            // Nothing there yet is an error on a terminal that does not block.
            if let Ok(length) = terminal.read(&mut chunk) {
                heard.extend_from_slice(&chunk[..length]);
            }
        }
    };
    hears("typed-42", &mut |terminal| {
        terminal
            .write_all(b"\necho typed-$((6 * 7))\n")
            .expect("the terminal takes it");
    });
    shell.run("echo from-the-guest >/dev/hvc0");
    hears("from-the-guest", &mut |_| {});
}

#[test]
fn vsock_without_vhost_is_a_clear_error() {
    if !has_program("qemu-system-aarch64") || Path::new("/dev/vhost-vsock").exists() {
        return;
    }
    let env = arm_env("aarch64");
    env.run(&["run", "arm-virt", "--variant", "vsock", "--dry-run"])
        .exits(4)
        .says("vhost-vsock")
        .says("hint: ");
}
