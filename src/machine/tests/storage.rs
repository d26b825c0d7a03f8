//! What disks, controllers and threads cannot be.

use super::{machine, message};

fn disk(rest: &str) -> String {
    message(&format!("[disk.a]\nfile.path = \"a\"\n{rest}"))
}

#[test]
fn keys_are_for_the_buses_that_have_them() {
    for (rest, says) in [
        (
            "wwn = \"1\"",
            "`wwn` is not for disks on virtio, but on scsi, sata and ide",
        ),
        (
            "bus = \"nvme\"\niothread = \"x\"",
            "not for disks on nvme, but on virtio",
        ),
        (
            "bus = \"scsi\"\nqueues = 2",
            "`queues` is not for disks on scsi",
        ),
        (
            "bus = \"floppy\"\nserial = \"x\"",
            "`serial` is not for disks on floppy",
        ),
        ("bus = \"sata\"\nvendor = \"x\"", "but on scsi"),
        (
            "media = \"cdrom\"\nrotation-rate = 1",
            "not for CD-ROM drives",
        ),
        (
            "media = \"cdrom\"\nthrottle.iops-total = 1",
            "not for CD-ROM drives",
        ),
        ("queue-size = 100", "powers of two"),
        ("queues = 1025", "at least 1 and at most 1024"),
        ("bus = \"nvme\"\nqueues = 2047", "at most 2046"),
        ("logical-block-size = 1000", "powers of two"),
        ("bus = \"sata\"\nlogical-block-size = 4096", "have 512"),
        (
            "logical-block-size = 4096\nphysical-block-size = 512",
            "at least the logical one",
        ),
        ("bus = \"scsi\"\nrotation-rate = 2", "turns a minute"),
        ("bus = \"scsi\"\nwwn = \"5000\"", "16 hexadecimal digits"),
        ("bus = \"scsi\"\nvendor = \"much too long\"", "8 printable"),
        ("detect-zeroes = \"unmap\"", "needs `discard = true`"),
        ("iothread = \"x\"", "there is no `[iothread.x]`"),
        (
            "iothread = \"x\"\n[iothread.x]\nenabled = false",
            "there is no `[iothread.x]`",
        ),
        (
            "bus = \"scsi\"\ncontroller = \"x\"",
            "there is no `[controller.x]`",
        ),
        (
            "[controller.x]\nmodel = \"megasas\"\nqueues = 2",
            "`queues` is for the model virtio",
        ),
        (
            "[controller.x]\nmodel = \"pvscsi\"\nats = true",
            "`ats` is for the model virtio",
        ),
        ("[controller.x]\nqueue-size = 2", "from 4 to 1024"),
        (
            "[controller.x]\niothread = \"y\"",
            "there is no `[iothread.y]`",
        ),
        ("[controller.a]", "disk `a` and controller `a`"),
        ("[disk.a-format]\nfile.path = \"b\"", "a part of disk `a`"),
    ] {
        let told = disk(rest);
        assert!(told.contains(says), "{rest}: {told}");
    }
    let told = message("machine.arch = \"aarch64\"\n[disk.a]\nfile.path = \"a\"\nbus = \"floppy\"");
    assert!(told.contains("no floppy bus"), "{told}");
    let many: String = (0..8)
        .map(|n| {
            format!("[disk.d{n}]\nfile.path = \"{n}\"\nbus = \"scsi\"\ncontroller = \"old\"\n")
        })
        .collect();
    let told = message(&format!("[controller.old]\nmodel = \"lsi53c895a\"\n{many}"));
    assert!(told.contains("more than the 7"), "{told}");
}

#[test]
fn limits_make_sense() {
    for (throttle, says) in [
        ("{}", "says no limit"),
        ("{ group = \"g\" }", "says no limit"),
        ("{ iops-total = 1, iops-read = 1 }", "goes without"),
        ("{ bps-read-max = \"1M\" }", "needs `bps-read`"),
        ("{ iops-read = 5, iops-read-max = 4 }", "is less than"),
        (
            "{ iops-read = 5, iops-read-max-length = 4 }",
            "needs `iops-read-max`",
        ),
        ("{ iops-read = 0 }", "nothing would be done"),
        (
            "{ iops-size = \"4K\", bps-total = \"1M\" }",
            "needs a limit of requests",
        ),
    ] {
        let told = disk(&format!("throttle = {throttle}"));
        assert!(told.contains(says), "{throttle}: {told}");
    }
    let two = |one: &str, two: &str| {
        format!(
            "[disk.a]\nfile.path = \"a\"\nthrottle = {{ group = \"g\", {one} }}\n\
             [disk.b]\nfile.path = \"b\"\nthrottle = {{ group = \"g\"{two} }}\n"
        )
    };
    let told = message(&two("iops-total = 5", ", iops-total = 6"));
    assert!(told.contains("different limits"), "{told}");
    let both = machine(&two("iops-total = 5", "")).unwrap();
    let limits = |n: usize| {
        both.disks[n]
            .options
            .throttle
            .as_ref()
            .unwrap()
            .limits
            .clone()
    };
    assert_eq!(limits(0), limits(1));
}
