//! Network cards as QEMU has them, and the programs that serve some of them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use serde_json::{Value, json};

use super::session::Session;
use super::storage::get;
use super::{DISKS, runs};

/// The slots of the root bus by the names of the devices in them or behind them.
fn slots(session: &mut Session) -> BTreeMap<String, u64> {
    let buses = session.call("query-pci", json!({}));
    let mut all = BTreeMap::new();
    let mut todo: Vec<Value> = vec![buses[0]["devices"].clone()];
    while let Some(devices) = todo.pop() {
        for device in devices.as_array().into_iter().flatten() {
            let name = device["qdev_id"].as_str().unwrap_or_default().to_owned();
            all.insert(name, device["slot"].as_u64().unwrap());
            todo.push(device["pci_bridge"]["devices"].clone());
        }
    }
    all
}

#[test]
fn old_boards_have_old_cards() {
    let models = [
        ("e1000", "e1000"),
        ("e1000-82540em", "e1000"),
        ("e1000e", "e1000e"),
        ("ne2k", "ne2k_pci"),
        ("pcnet", "pcnet"),
        ("rtl8139", "rtl8139"),
        ("tulip", "tulip"),
        ("vmxnet3", "vmxnet3"),
        ("i82550", "i82550"),
        ("i82559er", "i82559er"),
    ];
    for board in ["pc", "q35"] {
        let mut text = format!("machine.type = \"{board}\"\n");
        for (at, (model, _)) in models.iter().enumerate() {
            text.push_str(&format!(
                "[network.n{at}]\nuser = {{}}\nmodel = \"{model}\"\nmac = \"52:54:00:00:01:0{at}\"\n"
            ));
        }
        let Some((mut session, _)) = runs(&text, &[]) else {
            return;
        };
        let there = slots(&mut session);
        for (at, (model, driver)) in models.iter().enumerate() {
            let id = format!("n{at}");
            let kind = get(&mut session, &id, "type");
            let new = board == "q35" && *model == "e1000";
            let driver = if new { "e1000e" } else { driver };
            assert_eq!(kind, json!(driver), "{model}");
            assert_eq!(
                get(&mut session, &id, "mac"),
                json!(format!("52:54:00:00:01:0{at}"))
            );
            let bus = get(&mut session, &id, "parent_bus");
            let bus = bus.as_str().unwrap().to_owned();
            let behind = board == "q35" && ["e1000e", "vmxnet3"].contains(&driver);
            assert_eq!(bus.contains("mvm-port-"), behind, "{model}: {bus}");
            // What is behind a port QEMU lists when firmware has numbered its bus.
            assert!(behind || there.contains_key(&id), "{model}: {there:?}");
        }
        session.quit();
    }
}

/// Every model that profiles can name is one of QEMU's.
#[test]
fn every_card_is_one_of_qemus() {
    let Some((mut session, machine)) = runs("", &[]) else {
        return;
    };
    let types = session.call("qom-list-types", json!({ "implements": "pci-device" }));
    let types = types.to_string();
    for model in crate::profile::schema::NicModel::ALL {
        let driver = crate::machine::drivers::nic(*model, machine.board.kind);
        // 8.0 has the first of these.
        let new = driver == "igb" && !types.contains("igb");
        assert!(new || types.contains(&format!("\"{driver}\"")), "{driver}");
    }
    session.quit();
}

#[test]
fn cards_are_what_the_profile_says() {
    let text = r#"
        [disk.a]
        file.path = "a.img"
        [disk.b]
        file.path = "b.img"
        [network.boots]
        user = {}
        boot = 1
        address = "0x1a"
        rom = "c.img"
        mtu = 1400
        rx-queue-size = 512
        tx-queue-size = 256
        iommu = true
        ats = true
        packed = true
        [network.plain]
        user = {}
    "#;
    let Some((mut session, _)) = runs(text, DISKS) else {
        return;
    };
    for (property, value) in [
        ("bootindex", json!(1)),
        ("addr", json!(0x1a << 3)),
        ("host_mtu", json!(1400)),
        ("rx_queue_size", json!(512)),
        ("tx_queue_size", json!(256)),
        ("iommu_platform", json!(true)),
        ("ats", json!(true)),
        ("packed", json!(true)),
    ] {
        assert_eq!(get(&mut session, "boots", property), value, "{property}");
    }
    let rom = get(&mut session, "boots", "romfile");
    assert!(rom.as_str().unwrap().ends_with("c.img"), "{rom}");
    assert_eq!(get(&mut session, "plain", "romfile"), json!(""));
    assert_eq!(get(&mut session, "a", "bootindex"), json!(2));
    assert_eq!(get(&mut session, "b", "bootindex"), json!(3));
    session.quit();
}

/// As much of a vhost-user back end as QEMU asks of one before the guest runs (docs/interop/vhost-user.rst). It gives
/// the commands that it was asked.
fn back_end(mut stream: UnixStream) -> Vec<u32> {
    let mut asked = Vec::new();
    loop {
        let mut head = [0u8; 12];
        if stream.read_exact(&mut head).is_err() {
            return asked;
        }
        let word = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().unwrap());
        let (request, flags, size) = (word(0), word(4), word(8));
        let mut payload = vec![0u8; size as usize];
        stream.read_exact(&mut payload).unwrap();
        asked.push(request);
        let answer: Option<u64> = match request {
            // Features: version 1, more queues, the protocol's own.
            1 => Some(1 << 32 | 1 << 22 | 1 << 30),
            // The protocol's: more queues, acknowledgements.
            15 => Some(1 | 1 << 3),
            // How many queues there are.
            17 => Some(4),
            _ if flags & 8 != 0 => Some(0),
            _ => None,
        };
        if let Some(answer) = answer {
            let mut message = Vec::new();
            for word in [request, 1 | 4, 8] {
                message.extend(word.to_ne_bytes());
            }
            message.extend(answer.to_ne_bytes());
            stream.write_all(&message).unwrap();
        }
    }
}

#[test]
fn another_program_takes_the_packets() {
    let dir = tempfile::Builder::new().prefix("mvm").tempdir().unwrap();
    let socket = dir.path().join("switch.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let served = std::thread::spawn(move || back_end(listener.accept().unwrap().0));
    let text = format!(
        "[network.n]\nqueues = 2\ntx-queue-size = 1024\nvhost-user.socket = {}\n",
        toml::Value::String(socket.to_str().unwrap().to_owned())
    );
    let Some((mut session, _)) = runs(&text, &[]) else {
        drop(UnixStream::connect(&socket));
        return;
    };
    assert_eq!(get(&mut session, "n", "mq"), json!(true));
    assert_eq!(get(&mut session, "n", "vectors"), json!(6));
    assert_eq!(get(&mut session, "n", "tx_queue_size"), json!(1024));
    let memory = session.call("query-memdev", json!({}));
    assert_eq!(memory[0]["share"], true, "{memory}");
    session.quit();
    let asked = served.join().unwrap();
    assert!(asked.contains(&1) && asked.contains(&17), "{asked:?}");
}

#[test]
fn another_program_does_a_disks_work() {
    let dir = tempfile::Builder::new().prefix("mvm").tempdir().unwrap();
    let (socket, image) = (dir.path().join("disk.sock"), dir.path().join("d.img"));
    std::fs::write(&image, vec![0; 3 << 20]).unwrap();
    let daemon = std::process::Command::new("qemu-storage-daemon")
        .arg("--blockdev")
        .arg(format!("driver=file,node-name=d,filename={}", image.display()))
        .arg("--export")
        .arg(format!(
            "type=vhost-user-blk,id=e,node-name=d,writable=on,num-queues=2,addr.type=unix,addr.path={}",
            socket.display()
        ))
        .stdin(std::process::Stdio::null())
        .spawn();
    let Ok(mut daemon) = daemon else {
        eprintln!("skipped: no qemu-storage-daemon");
        return;
    };
    let started = std::time::Instant::now();
    while !socket.exists() {
        assert!(started.elapsed() < super::DEADLINE);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let text = format!(
        "[disk.d]\nqueues = 2\nboot = 1\naddress = \"0x19\"\nvhost-user.socket = {}\n",
        toml::Value::String(socket.to_str().unwrap().to_owned())
    );
    if let Some((mut session, _)) = runs(&text, &[]) {
        assert_eq!(get(&mut session, "d", "type"), json!("vhost-user-blk-pci"));
        assert_eq!(get(&mut session, "d", "num-queues"), json!(2));
        assert_eq!(get(&mut session, "d", "bootindex"), json!(1));
        let memory = session.call("query-memdev", json!({}));
        assert_eq!(memory[0]["share"], true, "{memory}");
        session.quit();
    }
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}
