//! Displays and what belongs to them, asked of QEMU itself.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};

use super::session::{Session, installed, program};
use super::{runs, runs_and_ends};
use crate::machine::{Machine, testing};
use crate::qemu::command::FdSource;
use crate::qemu::command_line;

/// Whether QEMU knows what `help` of that switch lists: displays and SPICE are modules.
fn lists(machine: &Machine, switch: &str, name: &str) -> bool {
    let said = Command::new(program(machine))
        .args([switch, "help"])
        .output()
        .unwrap();
    let there = String::from_utf8_lossy(&said.stdout)
        .lines()
        .any(|line| line.trim() == name);
    if !there {
        eprintln!("skipped: this QEMU has no {name} for {switch}");
    }
    there
}

fn of_aarch64(text: &str) -> String {
    format!(
        "machine.arch = \"aarch64\"\nfirmware.type = \"none\"\nboot.kernel = \"kernel\"\n{text}"
    )
}

/// The properties of a device that are asked for.
fn properties(session: &mut Session, id: &str, names: &[&str]) -> Vec<Value> {
    let path = format!("/machine/peripheral/{id}");
    names
        .iter()
        .map(|name| session.call("qom-get", json!({ "path": path, "property": name })))
        .collect()
}

/// Devices by the slot and function on the root bus, as `1.0`, with vendor and device.
fn pci(session: &mut Session) -> BTreeMap<String, (u64, u64)> {
    let buses = session.call("query-pci", json!({}));
    let mut found = BTreeMap::new();
    for device in buses[0]["devices"].as_array().unwrap() {
        let at = format!(
            "{:x}.{}",
            device["slot"].as_u64().unwrap(),
            device["function"]
        );
        let id = &device["id"];
        found.insert(
            at,
            (
                id["vendor"].as_u64().unwrap(),
                id["device"].as_u64().unwrap(),
            ),
        );
    }
    found
}

#[test]
fn vnc_listens_where_the_profile_says() {
    let text = "[display.vnc]\nshare = 'force-shared'";
    let Some((mut first, _)) = runs(text, &[]) else {
        return;
    };
    let (mut second, _) = runs(text, &[]).unwrap();
    // Two guests, two ports: the second takes the next.
    let ports = [&mut first, &mut second].map(|session| {
        let vnc = session.call("query-vnc", json!({}));
        assert_eq!(
            (&vnc["enabled"], &vnc["host"]),
            (&json!(true), &json!("127.0.0.1"))
        );
        assert_eq!(
            (&vnc["auth"], &vnc["family"]),
            (&json!("none"), &json!("ipv4"))
        );
        vnc["service"].as_str().unwrap().parse::<u16>().unwrap()
    });
    assert!(
        ports.iter().all(|port| (5900..=5999).contains(port)),
        "{ports:?}"
    );
    assert_ne!(ports[0], ports[1]);
    first.quit();

    let taken = ports[1];
    let text = format!(
        "[display.vnc]\nlisten = '::1'\nport = {}\nto = {}",
        taken + 40,
        taken + 49
    );
    let (mut session, machine) = runs(&text, &[]).unwrap();
    let vnc = session.call("query-vnc", json!({}));
    assert_eq!(
        (&vnc["host"], &vnc["family"]),
        (&json!("::1"), &json!("ipv6"))
    );
    let port: u16 = vnc["service"].as_str().unwrap().parse().unwrap();
    assert!((taken + 40..=taken + 49).contains(&port), "{vnc}");
    assert!(
        machine.notes.iter().all(|note| !note.contains("VNC")),
        "{:?}",
        machine.notes
    );
    session.quit();
    second.quit();

    let (mut session, machine) = runs("[display.vnc]\nsocket = true", &[]).unwrap();
    let vnc = session.call("query-vnc", json!({}));
    assert_eq!(vnc["family"], "unix");
    assert_eq!(vnc["service"], json!(machine.run_dir.join("vnc.sock")));
    session.quit();
}

/// The certificates of a throw-away authority, made by `openssl`.
fn certificates(dir: &std::path::Path) -> bool {
    let script = "set -e; cd \"$0\"
        openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=ca -days 2 -keyout ca-key.pem -out ca-cert.pem
        openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server-key.pem -out server.csr
        openssl x509 -req -in server.csr -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -days 2 -out server-cert.pem";
    let made = Command::new("sh").args(["-c", script]).arg(dir).output();
    let made = made.is_ok_and(|made| made.status.success());
    if !made {
        eprintln!("skipped: no openssl to make certificates with");
    }
    made
}

#[test]
fn passwords_and_certificates_reach_the_servers() {
    let keys = tempfile::tempdir().unwrap();
    if !certificates(keys.path()) {
        return;
    }
    std::fs::write(keys.path().join("password"), "secret").unwrap();
    let keys = keys.path().to_str().unwrap();
    let text = format!("[display.vnc]\npassword-file = '{keys}/password'");
    let Some((mut session, machine)) = runs(&text, &[]) else {
        return;
    };
    let vnc = session.call("query-vnc", json!({}));
    assert_eq!(vnc["auth"], "vnc");
    session.quit();
    // What QEMU itself gets is a copy in memory, and the command line has nothing of it.
    let line = command_line(&machine);
    let secret = line
        .fds
        .iter()
        .find(|fd| matches!(fd.source, FdSource::Secret(_)))
        .unwrap();
    assert_eq!(secret.name, "mvm-vnc-password");
    assert!(
        !line.argv().join(" ").contains("password\"}"),
        "{:?}",
        line.argv()
    );

    let text = format!(
        "[display.vnc]\ntls = '{keys}'\ntls-verify = true\npassword-file = '{keys}/password'"
    );
    let (mut session, _) = runs(&text, &[]).unwrap();
    let servers = session.call("query-vnc-servers", json!({}));
    assert_eq!(servers[0]["auth"], "vencrypt", "{servers}");
    assert_eq!(servers[0]["vencrypt"], "x509-vnc", "{servers}");
    let verify = json!({ "path": "/objects/mvm-vnc-tls", "property": "verify-peer" });
    assert_eq!(session.call("qom-get", verify), true);
    session.quit();

    let text =
        format!("[display.spice]\ntls = '{keys}'\npassword-file = '{keys}/password'\nport = 5947");
    let dir = tempfile::tempdir().unwrap();
    let machine = testing::real(dir.path(), &text, &testing::facts()).unwrap();
    if !lists(&machine, "-display", "spice-app") {
        return;
    }
    let (mut session, _) = runs(&text, &[]).unwrap();
    let spice = session.call("query-spice", json!({}));
    assert_eq!(
        (&spice["tls-port"], &spice["auth"]),
        (&json!(5947), &json!("spice")),
        "{spice}"
    );
    assert!(spice.get("port").is_none(), "{spice}");
    session.quit();
}

#[test]
fn spice_is_as_the_profile_says() {
    let dir = tempfile::tempdir().unwrap();
    let plain = testing::real(dir.path(), "display.type = 'spice'", &testing::facts()).unwrap();
    if !installed(&plain) || !lists(&plain, "-display", "spice-app") {
        return;
    }
    let text = "[display.spice]\nport = 5951\nimage-compression = 'auto-lz'\njpeg-compression = 'never'\n\
                zlib-compression = 'always'\nplayback-compression = false\nstreaming = 'filter'\n\
                agent-mouse = false\nfile-transfer = false\nwebdav = true\n\
                [display]\ntype = ['spice', 'vnc']\n[usb-redirect]\n[audio.sound]\n[agent]";
    let (mut session, machine) = runs(text, &[]).unwrap();
    let spice = session.call("query-spice", json!({}));
    assert_eq!(
        (&spice["host"], &spice["port"]),
        (&json!("127.0.0.1"), &json!(5951))
    );
    assert_eq!(
        (&spice["auth"], &spice["mouse-mode"]),
        (&json!("none"), &json!("server"))
    );
    assert_eq!(session.call("query-vnc", json!({}))["enabled"], true);
    let chardevs = session.call("query-chardev", json!({}));
    let kind = |label: &str| {
        let all = chardevs.as_array().unwrap().iter();
        let found = all.clone().find(|chardev| chardev["label"] == label);
        found.map(|chardev| chardev["filename"].as_str().unwrap().to_owned())
    };
    for (label, filename) in [
        ("mvm-spice-agent", "spicevmc"),
        ("mvm-spice-webdav", "spiceport"),
        ("mvm-usb-redirect-0", "spicevmc"),
        ("mvm-usb-redirect-1", "spicevmc"),
    ] {
        assert_eq!(kind(label).as_deref(), Some(filename), "{chardevs}");
    }
    assert_eq!(
        properties(&mut session, "mvm-spice-agent", &["name", "nr"]),
        [json!("com.redhat.spice.0"), json!(30)]
    );
    assert_eq!(
        properties(&mut session, "mvm-spice-webdav", &["name", "nr"]),
        [json!("org.spice-space.webdav.0"), json!(29)]
    );
    let there = session.names("/machine/peripheral");
    assert!(
        there.contains("mvm-usb-redirect-1") && there.contains("mvm-agent"),
        "{there:?}"
    );
    // QEMU tells nothing of these but by not refusing them: each is one of its words.
    let shown = command_line(&machine).shown().join(" ");
    for word in [
        "image-compression=auto_lz",
        "jpeg-wan-compression=never",
        "zlib-glz-wan-compression=always",
        "playback-compression=off",
        "streaming-video=filter",
        "disable-agent-file-xfer=on",
    ] {
        assert!(shown.contains(word), "{shown}");
    }
    session.quit();

    let text =
        "[display]\nclipboard = false\n[display.spice]\nsocket = true\nagent = false\ngl = false";
    let (mut session, machine) = runs(text, &[]).unwrap();
    assert!(machine.run_dir.join("spice.sock").exists());
    assert!(
        !session
            .names("/machine/peripheral")
            .contains("mvm-spice-agent")
    );
    session.quit();
}

/// The words of QEMU that mvm has for SPICE's, all of them.
#[test]
fn every_word_of_spice_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let plain = testing::real(dir.path(), "display.type = 'spice'", &testing::facts()).unwrap();
    if !installed(&plain) || !lists(&plain, "-display", "spice-app") {
        return;
    }
    for (images, wan, streaming) in [
        ("auto-glz", "auto", "off"),
        ("quic", "never", "all"),
        ("glz", "always", "filter"),
        ("lz", "auto", "off"),
        ("off", "auto", "off"),
    ] {
        runs_and_ends(
            &format!(
                "[display.spice]\nsocket = true\nimage-compression = '{images}'\njpeg-compression = '{wan}'\n\
                 zlib-compression = '{wan}'\nstreaming = '{streaming}'"
            ),
            &[],
        );
    }
}

#[test]
fn video_devices_are_as_the_profile_says() {
    let text = "[display]\ntype = 'vnc'\noutputs = 3\n[video.main]\nblob = false\nxres = 1600\nyres = 900\n\
                [video.second]\nmodel = 'qxl'\nram = '32M'\nvram = '16M'\nvgamem = '8M'\noutputs = 2\n\
                [video.third]\nmodel = 'bochs'\nvgamem = '32M'\n[video.gone]\nmodel = 'none'";
    let Some((mut session, _)) = runs(text, &[]) else {
        return;
    };
    assert_eq!(
        properties(
            &mut session,
            "main",
            &["max_outputs", "blob", "xres", "yres"]
        ),
        [json!(3), json!(false), json!(1600), json!(900)]
    );
    assert_eq!(
        properties(
            &mut session,
            "second",
            &["ram_size_mb", "vram_size_mb", "vgamem_mb", "max_outputs"]
        ),
        [json!(32), json!(16), json!(8), json!(2)]
    );
    assert_eq!(
        properties(&mut session, "third", &["vgamem"]),
        [json!(32 << 20)]
    );
    assert!(!session.names("/machine/peripheral").contains("gone"));
    let found = pci(&mut session);
    assert_eq!(found["1.0"], (0x1af4, 0x1050));
    assert_eq!(found["1.1"], (0x1b36, 0x0100));
    assert_eq!(found["1.2"], (0x1234, 0x1111));
    session.quit();

    for (board, slot) in [("q35", "1.0"), ("pc", "2.0")] {
        for (model, id) in [
            ("qxl", (0x1b36, 0x0100)),
            ("virtio-vga", (0x1af4, 0x1050)),
            ("virtio-gpu", (0x1af4, 0x1050)),
            ("std", (0x1234, 0x1111)),
            ("cirrus", (0x1013, 0x00b8)),
            ("bochs", (0x1234, 0x1111)),
        ] {
            let text = format!(
                "machine.type = '{board}'\ndisplay.type = 'vnc'\n[video.v]\nmodel = '{model}'"
            );
            let (mut session, _) = runs(&text, &[]).unwrap();
            let found = pci(&mut session);
            assert_eq!(found[slot], id, "{board} {model}: {found:?}");
            session.quit();
        }
    }
    let text = "display.type = 'vnc'\n[video.v]\nmodel = 'ramfb'\n[video.w]\nmodel = 'std'\nvgamem = '64M'\nprimary = true";
    let (mut session, machine) = runs(text, &[]).unwrap();
    assert_eq!(machine.desktop.video[0].id.as_str(), "w");
    let there = session.names("/machine/peripheral");
    assert!(there.contains("v") && there.contains("w"), "{there:?}");
    assert_eq!(properties(&mut session, "w", &["vgamem_mb"]), [json!(64)]);
    session.quit();
}

#[test]
fn a_shared_picture_is_refused_by_qemu_alone_where_the_host_has_no_udmabuf() {
    let text = "display.type = 'vnc'\n[video.v]\nblob = true";
    let dir = tempfile::tempdir().unwrap();
    let machine = testing::real(dir.path(), text, &testing::facts()).unwrap();
    if !installed(&machine) {
        return;
    }
    if std::path::Path::new("/dev/udmabuf").exists() {
        let (mut session, _) = runs(text, &[]).unwrap();
        assert_eq!(properties(&mut session, "v", &["blob"]), [json!(true)]);
        session.quit();
        return;
    }
    super::session::prepare(&machine);
    let said = Command::new(program(&machine))
        .args(command_line(&machine).shown())
        .arg("-S")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    // It knows the property, and what it wants is the host's.
    assert!(said.contains("udmabuf"), "{said}");
}

#[test]
fn keyboards_and_pointers_are_there() {
    let text = "[input.t]\ndevice = 'tablet'\n[input.m]\ndevice = 'mouse'\n[input.k]\ndevice = 'keyboard'\n\
                [input.vt]\ndevice = 'tablet'\nbus = 'virtio'\n[input.vm]\ndevice = 'mouse'\nbus = 'virtio'\n\
                [input.vk]\ndevice = 'keyboard'\nbus = 'virtio'\n[input.p]\ndevice = 'mouse'\nbus = 'ps2'";
    for board in ["q35", "pc"] {
        let Some((mut session, _)) = runs(&format!("machine.type = '{board}'\n{text}"), &[]) else {
            return;
        };
        let mice = session.call("query-mice", json!({}));
        let names: Vec<&str> = mice
            .as_array()
            .unwrap()
            .iter()
            .map(|mouse| mouse["name"].as_str().unwrap())
            .collect();
        for wanted in ["QEMU HID Tablet", "QEMU HID Mouse", "QEMU PS/2 Mouse"] {
            assert!(names.contains(&wanted), "{board}: {names:?}");
        }
        let there = session.names("/machine/peripheral");
        for id in ["t", "m", "k", "vt", "vm", "vk"] {
            assert!(there.contains(id), "{id}: {there:?}");
        }
        // From the middle of the ports on: disks count from the first, devices of the host from the last.
        assert_eq!(
            ["k", "m", "t"].map(|id| properties(&mut session, id, &["port"])[0].clone()),
            [json!("8"), json!("7"), json!("9")]
        );
        session.quit();
    }
    let virtio = "[input.vt]\ndevice = 'tablet'\n[input.vk]\ndevice = 'keyboard'\n[video.v]\n[balloon]\n[rng]";
    let text = format!("machine.type = 'microvm'\nboot.kernel = 'kernel'\n{virtio}");
    let (mut session, _) = runs(&text, &["kernel"]).unwrap();
    let there = session.names("/machine/peripheral");
    assert!(there.contains("vt") && there.contains("v"), "{there:?}");
    session.quit();
}

#[test]
fn usb_controllers_have_their_ports() {
    for (model, ports, path) in [
        ("xhci", 4, "qemu-xhci"),
        ("nec-xhci", 8, "nec-usb-xhci"),
        ("ehci", 6, "usb-ehci"),
        ("uhci", 2, "piix3-usb-uhci"),
    ] {
        let ports_key = if model.contains("xhci") {
            format!("ports = {ports}\n")
        } else {
            String::new()
        };
        let text =
            format!("[usb-controller]\nmodel = '{model}'\n{ports_key}[input.t]\ndevice = 'tablet'");
        let Some((mut session, machine)) = runs(&text, &[]) else {
            return;
        };
        assert_eq!(
            properties(&mut session, "mvm-usb", &["type"]),
            [json!(path)]
        );
        assert_eq!(usize::from(machine.desktop.usb.ports), ports);
        if model.contains("xhci") {
            assert_eq!(
                properties(&mut session, "mvm-usb", &["p2", "p3"]),
                [json!(ports), json!(ports)]
            );
        }
        session.quit();
    }
    let Some((mut session, _)) = runs("[usb-controller]", &[]) else {
        return;
    };
    assert_eq!(properties(&mut session, "mvm-usb", &["p2"]), [json!(15)]);
    session.quit();
}

#[test]
fn sound_cards_are_there_with_their_backends() {
    let text = "[audio.a]\n[audio.b]\ndevice = 'ich6'\ncodec = 'micro'\n[audio.c]\ndevice = 'ac97'\n\
                [audio.d]\ndevice = 'es1370'\n[audio.e]\ndevice = 'sb16'\n[audio.f]\ndevice = 'usb'\n\
                [audio.g]\ndevice = 'ich9'\ncodec = 'output'\n[audio.h]\ndevice = 'none'\n\
                [display.vnc]\naudio = 'c'";
    for board in ["q35", "pc"] {
        let Some((mut session, machine)) = runs(&format!("machine.type = '{board}'\n{text}"), &[])
        else {
            return;
        };
        for (id, kind) in [
            ("a", "ich9-intel-hda"),
            ("mvm-codec-a", "hda-duplex"),
            ("b", "intel-hda"),
            ("mvm-codec-b", "hda-micro"),
            ("c", "AC97"),
            ("d", "ES1370"),
            ("e", "sb16"),
            ("f", "usb-audio"),
            ("mvm-codec-g", "hda-output"),
        ] {
            assert_eq!(
                properties(&mut session, id, &["type"]),
                [json!(kind)],
                "{id}"
            );
        }
        for (id, backend) in [
            ("mvm-codec-a", "audio-a"),
            ("c", "audio-c"),
            ("f", "audio-f"),
        ] {
            assert_eq!(
                properties(&mut session, id, &["audiodev"]),
                [json!(backend)]
            );
        }
        assert_eq!(machine.desktop.audio.len(), 7);
        session.quit();
    }
}

#[test]
fn virtio_sound_is_there_from_its_version_on() {
    let text = "[audio.v]\ndevice = 'virtio'";
    let dir = tempfile::tempdir().unwrap();
    let mut facts = testing::facts();
    if let Some(crate::host::QemuFacts::Found(caps)) = facts.qemu.get_mut(&crate::ids::Arch::X86_64)
    {
        caps.devices = crate::host::qemu::Names::default();
    }
    let machine = testing::real(dir.path(), text, &facts).unwrap();
    if !installed(&machine) {
        return;
    }
    let said = Command::new(program(&machine))
        .args(["-device", "help"])
        .output()
        .unwrap();
    if !String::from_utf8_lossy(&said.stdout).contains("\"virtio-sound-pci\"") {
        eprintln!("skipped: this QEMU has no virtio-sound");
        return;
    }
    let mut session = Session::start(&machine, dir);
    assert_eq!(
        properties(&mut session, "v", &["type", "audiodev"]),
        [json!("virtio-sound-pci"), json!("audio-v")]
    );
    session.quit();
}

#[test]
fn memory_is_shared_with_programs_of_the_host() {
    let text =
        "[shmem.glass]\nsize = '32M'\npath = '@/looking glass, x'\n[shmem.scream]\nsize = '2M'";
    for board in ["q35", "pc"] {
        let Some((mut session, machine)) = runs(&format!("machine.type = '{board}'\n{text}"), &[])
        else {
            return;
        };
        let memdevs = session.call("query-memdev", json!({}));
        let memory = |id: &str| {
            memdevs
                .as_array()
                .unwrap()
                .iter()
                .find(|memory| memory["id"] == id)
                .unwrap()
                .clone()
        };
        let glass = memory("mem-glass");
        assert_eq!(
            (&glass["size"], &glass["share"]),
            (&json!(32 << 20), &json!(true))
        );
        let paths = [
            &machine.desktop.shmem[0].path,
            &machine.desktop.shmem[1].path,
        ];
        assert_eq!(std::fs::metadata(paths[0]).unwrap().len(), 32 << 20);
        assert_eq!(std::fs::metadata(paths[1]).unwrap().len(), 2 << 20);
        assert_eq!(paths[1], &machine.run_dir.join("shmem-scream"));
        assert_eq!(
            properties(&mut session, "glass", &["memdev"]),
            [json!("/objects/mem-glass")]
        );
        session.quit();
    }
}

#[test]
fn the_clipboard_of_a_guest_without_spice_is_qemus_own() {
    let text = "[display]\ntype = 'vnc'\nclipboard = true";
    let Some((mut session, _)) = runs(text, &[]) else {
        return;
    };
    let chardevs = session.call("query-chardev", json!({}));
    let agent = chardevs
        .as_array()
        .unwrap()
        .iter()
        .find(|chardev| chardev["label"] == "mvm-spice-agent");
    assert_eq!(agent.unwrap()["filename"], "qemu-vdagent", "{chardevs}");
    assert_eq!(
        properties(&mut session, "mvm-spice-agent", &["name"]),
        [json!("com.redhat.spice.0")]
    );
    session.quit();
}

#[test]
fn the_display_on_dbus_waits_for_viewers() {
    let text = "[display.dbus]\naudio = 'a'\n[audio.a]\nbackend = 'dbus'";
    let dir = tempfile::tempdir().unwrap();
    let machine = testing::real(dir.path(), text, &testing::facts()).unwrap();
    if !installed(&machine)
        || !lists(&machine, "-display", "dbus")
        || !lists(&machine, "-audiodev", "dbus")
    {
        return;
    }
    let (mut session, _) = runs(text, &[]).unwrap();
    let display = session.call("query-display-options", json!({}));
    assert_eq!(
        (&display["type"], &display["p2p"]),
        (&json!("dbus"), &json!(true)),
        "{display}"
    );
    assert_eq!(display["audiodev"], "audio-a");
    session.quit();
}

#[test]
fn virt_has_displays_too() {
    let text = "[display]\ntype = 'vnc'\noutputs = 2\n[audio.a]\n[shmem.s]\nsize = '1M'\n[input.v]\ndevice = 'tablet'\nbus = 'virtio'\n[input.t]\ndevice = 'tablet'";
    if let Some((mut session, _)) = runs(&of_aarch64(text), &["kernel"]) {
        assert_eq!(
            properties(&mut session, "video0", &["type", "max_outputs"]),
            [json!("virtio-gpu-pci"), json!(2)]
        );
        let mice = session.call("query-mice", json!({}));
        assert!(mice.to_string().contains("QEMU HID Tablet"), "{mice}");
        session.quit();
    }
    let text = "display.type = 'vnc'\n[video.r]\nmodel = 'ramfb'\n[video.b]\nmodel = 'bochs'";
    if let Some((mut session, machine)) = runs(&of_aarch64(text), &["kernel"]) {
        let there = session.names("/machine/peripheral");
        for id in ["r", "b", "keyboard", "tablet"] {
            assert!(there.contains(id), "{there:?}");
        }
        assert_eq!(machine.desktop.inputs.len(), 2);
        session.quit();
    }
}

/// Where the host has no keyboard to spare, QEMU says of another device what it is not, having understood all
/// else.
#[test]
fn a_device_of_the_host_is_opened_as_the_profile_says() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[input.desk]\ndevice = 'evdev'\n\
                evdev = { path = '/dev/null', grab-all = true, repeat = true, hotkey = 'ctrl-scrolllock' }";
    let machine = testing::real(dir.path(), text, &testing::facts()).unwrap();
    if !installed(&machine) {
        return;
    }
    let shown = command_line(&machine).shown().join(" ");
    let object = r#"{"qom-type":"input-linux","id":"desk","evdev":"/dev/null","grab_all":true,"repeat":true,"grab-toggle":"ctrl-scrolllock"}"#;
    assert!(shown.contains(object), "{shown}");
    super::session::prepare(&machine);
    let said = Command::new(program(&machine))
        .args(command_line(&machine).shown())
        .arg("-S")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("/dev/null: is not an evdev device"), "{said}");
}
