//! Disks, controllers and threads as QEMU has them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::session::Session;
use super::{DISKS, runs};
use crate::ids::PciSlot;
use crate::machine::slots::taken;
use crate::qemu::command_line;

/// A device's properties, by name.
pub(super) fn get(session: &mut Session, id: &str, property: &str) -> Value {
    let path = if id.starts_with('/') {
        id.to_owned()
    } else {
        format!("/machine/peripheral/{id}")
    };
    session.call("qom-get", json!({ "path": path, "property": property }))
}

fn is(session: &mut Session, id: &str, wanted: &[(&str, Value)]) {
    for (property, value) in wanted {
        assert_eq!(get(session, id, property), *value, "{property} of {id}");
    }
}

/// Every key of a disk, on each bus that knows it.
#[test]
fn disks_are_what_the_profile_says() {
    let text = r#"
        [iothread.io]
        [iothread.none]
        enabled = false
        [controller.fast]
        type = "scsi"
        queues = 3
        queue-size = 128
        max-sectors = 2048
        iothread = "io"
        packed = true
        address = "0x1a"
        [controller.second]
        [disk.a]
        file.path = "a.img"
        iothread = "io"
        queues = 2
        queue-size = 64
        logical-block-size = 4096
        physical-block-size = 8192
        rerror = "stop"
        werror = "ignore"
        detect-zeroes = "on"
        iommu = true
        ats = true
        packed = true
        address = "0x1b"
        [disk.b]
        file.path = "b.img"
        bus = "scsi"
        controller = "fast"
        wwn = "5000c500a1b2c3d4"
        vendor = "ACME"
        product = "Spinner 9"
        serial = "S-1"
        rotation-rate = 7200
        [disk.c]
        file.path = "c.img"
        bus = "scsi"
        controller = "second"
        [disk.d]
        file.path = "d.img"
        bus = "sata"
        wwn = "0x5000c500a1b2c3d5"
        product = "An old disk"
        rotation-rate = 1
        physical-block-size = 4096
        rerror = "report"
        [disk.e]
        file.path = "e.img"
        bus = "nvme"
        queues = 4
        logical-block-size = 4096
        address = "0x19.1"
        [disk.f]
        file.path = "f.img"
        bus = "virtio"
        discard = true
        detect-zeroes = "off"
        address = "0x19"
    "#;
    let Some((mut session, _)) = runs(text, DISKS) else {
        return;
    };
    let it = &mut session;
    is(
        it,
        "a",
        &[
            ("iothread", json!("/objects/io")),
            ("num-queues", json!(2)),
            ("queue-size", json!(64)),
            ("logical_block_size", json!(4096)),
            ("physical_block_size", json!(8192)),
            ("rerror", json!("stop")),
            ("werror", json!("ignore")),
            ("iommu_platform", json!(true)),
            ("ats", json!(true)),
            ("packed", json!(true)),
            ("addr", json!(0x1b << 3)),
        ],
    );
    is(
        it,
        "fast",
        &[
            ("num_queues", json!(3)),
            ("virtqueue_size", json!(128)),
            ("max_sectors", json!(2048)),
            ("iothread", json!("/objects/io")),
            ("packed", json!(true)),
            ("addr", json!(0x1a << 3)),
        ],
    );
    is(
        it,
        "b",
        &[
            ("wwn", json!(0x5000_c500_a1b2_c3d4_u64)),
            ("vendor", json!("ACME")),
            ("product", json!("Spinner 9")),
            ("rotation_rate", json!(7200)),
            (
                "parent_bus",
                json!("/machine/peripheral/fast/virtio-backend/fast.0"),
            ),
        ],
    );
    is(
        it,
        "c",
        &[(
            "parent_bus",
            json!("/machine/peripheral/second/virtio-backend/second.0"),
        )],
    );
    is(
        it,
        "d",
        &[
            ("wwn", json!(0x5000_c500_a1b2_c3d5_u64)),
            ("model", json!("An old disk")),
            ("rotation_rate", json!(1)),
            ("physical_block_size", json!(4096)),
            ("rerror", json!("report")),
        ],
    );
    is(
        it,
        "e",
        &[
            ("max_ioqpairs", json!(4)),
            ("logical_block_size", json!(4096)),
            ("addr", json!(0x19 << 3 | 1)),
        ],
    );
    is(
        it,
        "f",
        &[("addr", json!(0x19 << 3)), ("multifunction", json!(true))],
    );
    let threads = it.call("query-iothreads", json!({}));
    let threads: Vec<&str> = threads
        .as_array()
        .unwrap()
        .iter()
        .map(|thread| thread["id"].as_str().unwrap())
        .collect();
    assert_eq!(threads, ["io"]);
    let nodes = it.call("query-named-block-nodes", json!({}));
    let zeroes = |name: &str| {
        let nodes = nodes.as_array().unwrap();
        let node = nodes.iter().find(|node| node["node-name"] == name);
        node.unwrap()["detect_zeroes"].clone()
    };
    assert_eq!((zeroes("a"), zeroes("f")), (json!("on"), json!("off")));
    session.quit();
}

#[test]
fn limits_are_those_of_the_disk_or_of_its_group() {
    let text = r#"
        [disk.a]
        file.path = "a.img"
        [disk.a.throttle]
        iops-total = 500
        iops-total-max = 900
        iops-total-max-length = 5
        iops-size = "4K"
        bps-read = "10M"
        bps-read-max = "20M"
        bps-read-max-length = 2
        bps-write = "5M"
        bps-write-max = "6M"
        bps-write-max-length = 3
        [disk.b]
        file.path = "b.img"
        ephemeral = true
        throttle.group = "slow"
        [disk.c]
        file.path = "c.img"
        bus = "scsi"
        [disk.c.throttle]
        group = "slow"
        iops-read = 10
        iops-read-max = 30
        iops-read-max-length = 4
        iops-write = 20
        iops-write-max = 40
        iops-write-max-length = 6
        bps-total = "4K"
        bps-total-max = "8K"
        bps-total-max-length = 7
        [disk.d]
        file.path = "d.img"
        read-only = true
        throttle.iops-total = 7
    "#;
    let Some((mut session, _)) = runs(text, DISKS) else {
        return;
    };
    let mut limits = |id: &str| {
        let all = get(&mut session, &format!("/objects/{id}"), "limits");
        let said = all.as_object().unwrap().iter();
        said.filter(|(key, value)| {
            **value != json!(0) && !(key.ends_with("-length") && **value == json!(1))
        })
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<BTreeSet<String>>()
    };
    let expected = |text: &str| text.split(' ').map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(
        limits("throttle-a"),
        expected(
            "iops-total=500 iops-total-max=900 iops-total-max-length=5 iops-size=4096 bps-read=10485760 \
             bps-read-max=20971520 bps-read-max-length=2 bps-write=5242880 bps-write-max=6291456 bps-write-max-length=3"
        )
    );
    assert_eq!(
        limits("mvm-throttle-slow"),
        expected(
            "iops-read=10 iops-read-max=30 iops-read-max-length=4 iops-write=20 iops-write-max=40 \
             iops-write-max-length=6 bps-total=4096 bps-total-max=8192 bps-total-max-length=7"
        )
    );
    let blocks = session.call("query-block", json!({}));
    for (disk, below) in [
        ("a", "a.img"),
        ("b", "disk-b.overlay.qcow2"),
        ("c", "c.img"),
        ("d", "d.img"),
    ] {
        let mut all = blocks.as_array().unwrap().iter();
        let block = all
            .find(|block| block["inserted"]["node-name"] == disk)
            .unwrap();
        assert_eq!(block["inserted"]["drv"], "throttle");
        assert_eq!(block["inserted"]["ro"], json!(disk == "d"));
        assert!(
            block["inserted"]["file"].to_string().contains(below),
            "{block}"
        );
    }
    session.quit();
}

#[test]
fn floppies_are_where_old_guests_look() {
    for board in ["pc", "q35"] {
        let text = format!(
            "machine.type = \"{board}\"\n[disk.a]\nfile.path = \"fl.img\"\nbus = \"floppy\"\nboot = 2\n\
             [disk.b]\nfile.path = \"b.img\"\nbus = \"floppy\"\nread-only = true\nboot = 1\n"
        );
        let Some((mut session, _)) = runs(&text, &["fl.img", "b.img"]) else {
            return;
        };
        let controller = get(&mut session, "b", "parent_bus");
        let controller = controller
            .as_str()
            .unwrap()
            .rsplit_once('/')
            .unwrap()
            .0
            .to_owned();
        // By the boot order, `b` is the first.
        assert_eq!(get(&mut session, "b", "unit"), json!(0));
        assert_eq!(get(&mut session, "a", "unit"), json!(1));
        assert_eq!(get(&mut session, &controller, "bootindexA"), json!(1));
        assert_eq!(get(&mut session, &controller, "bootindexB"), json!(2));
        let blocks = session.call("query-block", json!({}));
        assert!(blocks.to_string().contains("fl.img"), "{blocks}");
        session.quit();
    }
}

#[test]
fn old_boards_have_old_controllers() {
    let models = [
        "virtio",
        "lsi53c895a",
        "am53c974",
        "mptsas1068",
        "megasas",
        "pvscsi",
    ];
    for board in ["pc", "q35"] {
        let mut text = format!("machine.type = \"{board}\"\n");
        for (model, disk) in models.iter().zip(DISKS) {
            let name = disk.strip_suffix(".img").unwrap();
            text.push_str(&format!(
                "[controller.c-{name}]\nmodel = \"{model}\"\ntype = \"scsi\"\n[disk.{name}]\nfile.path = \"{disk}\"\n\
                 bus = \"scsi\"\ncontroller = \"c-{name}\"\n"
            ));
        }
        let Some((mut session, _)) = runs(&text, DISKS) else {
            return;
        };
        for (model, disk) in models.iter().zip(DISKS) {
            let name = disk.strip_suffix(".img").unwrap();
            let kind = get(&mut session, &format!("c-{name}"), "type");
            assert!(kind.as_str().unwrap().starts_with(model), "{kind}");
            let bus = get(&mut session, name, "parent_bus");
            assert!(
                bus.as_str().unwrap().contains(&format!("/c-{name}/")),
                "{bus}"
            );
        }
        session.quit();
    }
}

/// What `address` is held against is what is on the bus.
#[test]
fn every_place_of_the_root_bus_is_known() {
    for board in ["pc", "q35"] {
        let text = format!(
            "machine.type = \"{board}\"\n{}[gpu]\nvirtio = true\n[watchdog]\n[vsock]\n[panic]\n[controller.x]\n\
             [disk.a]\nfile.path = \"a.img\"\n[disk.b]\nfile.path = \"b.img\"\nbus = \"scsi\"\n\
             [disk.c]\nfile.path = \"c.img\"\nbus = \"usb\"\n[disk.d]\nfile.path = \"d.img\"\nbus = \"sata\"\n",
            super::EVERYTHING.replace('@', "/srv")
        );
        let machine = crate::machine::testing::machine(&text).unwrap();
        let known: BTreeSet<PciSlot> = taken(&machine).into_iter().map(|(_, slot)| slot).collect();
        for arg in command_line(&machine).shown() {
            let Ok(Value::Object(device)) = serde_json::from_str::<Value>(&arg) else {
                continue;
            };
            let bus = device
                .get("bus")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if ["pci.0", "pcie.0"].contains(&bus) {
                let slot = device["addr"].as_str().unwrap().parse().unwrap();
                assert!(known.contains(&slot), "{arg}");
            }
        }
    }
}
