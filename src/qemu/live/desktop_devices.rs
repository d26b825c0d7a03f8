//! Video, sound, input and shared memory, asked of QEMU itself.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::json;

use super::desktop::properties;
use super::runs;
use super::session::{Session, installed, program};
use crate::machine::testing;
use crate::qemu::command_line;

fn of_aarch64(text: &str) -> String {
    format!(
        "machine.arch = \"aarch64\"\nfirmware.type = \"none\"\nboot.kernel = \"kernel\"\n{text}"
    )
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

#[test]
fn the_hosts_memory_has_a_window_from_its_version_on() {
    let text = "[video.v]\nhostmem = '64M'";
    let dir = tempfile::tempdir().unwrap();
    let machine = testing::real(dir.path(), text, &testing::facts()).unwrap();
    if !installed(&machine) {
        return;
    }
    let said = Command::new(program(&machine))
        .args(["-device", "virtio-vga,help"])
        .output()
        .unwrap();
    if !String::from_utf8_lossy(&said.stdout).contains(" hostmem=") {
        eprintln!("skipped: this QEMU's virtio-vga has no hostmem");
        return;
    }
    let mut session = Session::start(&machine, dir);
    assert_eq!(
        properties(&mut session, "v", &["hostmem"]),
        [json!(64 << 20)]
    );
    session.quit();
}
