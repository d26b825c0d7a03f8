//! Each board with every device that it can have.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{DEADLINE, DISKS, EVERYTHING, disks, runs, runs_and_ends};
use crate::machine::{drivers, testing};
use crate::qemu::command_line;

#[test]
fn q35_takes_every_device() {
    let text = format!(
        "{}{}{}",
        EVERYTHING,
        "[network.old]\nuser = {}\nmodel = \"e1000\"\n[panic]\n[watchdog]\n[disk.cd]\nmedia = \"cdrom\"\nempty = true\n\
         [disk.ucd]\nmedia = \"cdrom\"\nbus = \"usb\"\nfile.path = \"f.img\"\n",
        disks(&["virtio", "scsi", "sata", "nvme", "usb"])
    );
    runs_and_ends(&text, DISKS);
}

#[test]
fn pc_takes_every_device() {
    let text = format!(
        "machine.type = \"pc\"\n{}{}{}",
        EVERYTHING,
        "[network.old]\nuser = {}\nmodel = \"e1000\"\n[panic]\n[watchdog]\naction = \"inject-nmi\"\n\
         [disk.cd]\nmedia = \"cdrom\"\nbus = \"ide\"\nempty = true\n",
        disks(&["virtio", "scsi", "sata", "nvme", "usb", "ide"])
    );
    runs_and_ends(&text, DISKS);
}

#[test]
fn virt_takes_every_device() {
    let text = format!(
        "machine.arch = \"aarch64\"\nfirmware.type = \"uefi\"\n{}{}{}",
        EVERYTHING,
        "[network.old]\nuser = {}\nmodel = \"e1000\"\n[panic]\n[watchdog]\n[disk.cd]\nmedia = \"cdrom\"\nempty = true\n",
        disks(&["virtio", "scsi", "sata", "nvme", "usb"])
    );
    if Path::new("/usr/share/AAVMF/AAVMF_CODE.fd").exists() {
        runs_and_ends(&text, DISKS);
    }
}

#[test]
fn microvm_takes_every_device_that_it_has() {
    let text = format!(
        "machine.type = \"microvm\"\n{EVERYTHING}[gpu]\nvirtio = true\n{}",
        disks(&["virtio", "scsi", "virtio"])
    );
    runs_and_ends(&text, DISKS);
}

#[test]
fn boards_take_as_many_devices_as_mvm_lets_them_have() {
    let cards = |count: usize| -> String {
        (0..count)
            .map(|n| format!("[network.n{n}]\nuser = {{}}\n"))
            .collect()
    };
    let names: Vec<String> = (0..15).map(|n| format!("d{n}.img")).collect();
    let files: Vec<&str> = names.iter().map(String::as_str).collect();
    let disks = |count: usize| -> String {
        (0..count)
            .map(|n| format!("[disk.d{n}]\nfile.path = \"d{n}.img\"\n"))
            .collect()
    };
    let shares = |count: usize| -> String {
        (0..count)
            .map(|n| format!("[share.s{n}]\npath = \"@\"\n"))
            .collect()
    };
    runs_and_ends(&format!("{}{}{}", cards(11), disks(15), shares(11)), &files);
    runs_and_ends(
        &format!("machine.type = \"pc\"\n{}{}", cards(10), disks(10)),
        &files,
    );
    runs_and_ends(
        &format!("machine.type = \"microvm\"\n{}{}", cards(9), disks(10)),
        &files,
    );
}

#[test]
fn an_iommu_translates_every_virtio_device() {
    for arch in ["x86_64", "aarch64"] {
        let text = format!(
            "machine.arch = \"{arch}\"\niommu.model = \"virtio\"\nfirmware.type = \"uefi\"\n{}{}",
            EVERYTHING,
            disks(&["virtio", "scsi", "nvme"])
        );
        if !Path::new("/usr/share/AAVMF/AAVMF_CODE.fd").exists() {
            continue;
        }
        let Some((mut session, _)) = runs(&text, DISKS) else {
            continue;
        };
        for device in ["a", "lan", "data", "mvm-rng", "mvm-serial", "mvm-scsi"] {
            let path = format!("/machine/peripheral/{device}");
            let on = session.call(
                "qom-get",
                json!({ "path": path, "property": "iommu_platform" }),
            );
            assert_eq!(on, json!(true), "{device}");
        }
        session.quit();
    }
}

#[test]
fn needed_devices_are_those_of_the_command_line() {
    let text = format!(
        "{}[network.old]\nuser = {{}}\nmodel = \"e1000\"\n[panic]\n[watchdog]\n[vsock]\n[iommu]\nmodel = \"virtio\"\n\
         [disk.ucd]\nmedia = \"cdrom\"\nbus = \"usb\"\nempty = true\n",
        EVERYTHING.replace('@', "/srv")
    );
    for (board, buses) in [
        ("q35", ["virtio", "scsi", "sata", "nvme", "usb"].as_slice()),
        ("pc", &["virtio", "scsi", "sata", "ide", "usb"]),
        ("microvm", &["virtio", "scsi"]),
    ] {
        let mut text = format!("machine.type = \"{board}\"\n{text}{}", disks(buses));
        if board != "q35" {
            text = text.replace("[iommu]\nmodel = \"virtio\"", "");
        }
        if board == "microvm" {
            text = text
                .replace("[panic]\n[watchdog]", "")
                .replace("model = \"e1000\"", "")
                .replace("bus = \"usb\"\nempty", "bus = \"scsi\"\nempty");
        }
        let machine = testing::machine(&text).unwrap();
        let line = command_line(&machine);
        let shown = line.shown();
        let on_the_line: BTreeSet<String> = shown
            .iter()
            .zip(shown.iter().skip(1))
            .filter(|(switch, _)| *switch == "-device")
            .map(|(_, json)| {
                let json: Value = serde_json::from_str(json).unwrap();
                json["driver"].as_str().unwrap().to_owned()
            })
            .collect();
        let needed: BTreeSet<String> = drivers::needed(&machine)
            .iter()
            .map(|needed| needed.driver.to_owned())
            .collect();
        assert_eq!(on_the_line, needed, "{board}");
    }
}

/// A boot sector that writes a sentence to the first serial port, and halts.
fn boot_sector() -> Vec<u8> {
    let mut sector = vec![
        0xbe, 0x11, 0x7c, // mov si, message
        0xac, // next: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x06, // jz halt
        0xba, 0xf8, 0x03, // mov dx, COM1
        0xee, // out dx, al
        0xeb, 0xf5, // jmp next
        0xf4, // halt: hlt
        0xeb, 0xfd, // jmp halt
    ];
    sector.extend(b"booted from disk\0");
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector.resize(1 << 20, 0);
    sector
}

#[test]
fn a_bios_boots_from_every_kind_of_disk() {
    for (board, bus) in [
        ("q35", "virtio"),
        ("q35", "scsi"),
        ("q35", "sata"),
        ("q35", "nvme"),
        ("q35", "usb"),
        ("pc", "virtio"),
        ("pc", "ide"),
    ] {
        // Not the first by name: the boot order decides.
        let text = format!(
            "machine.type = \"{board}\"\n[disk.a]\nfile.path = \"a.img\"\n\
             [disk.z]\nfile.path = \"b.img\"\nbus = \"{bus}\"\nboot = 1"
        );
        let Some((mut session, machine)) = runs(&text, DISKS) else {
            return;
        };
        let image = &machine.disks[0].image.as_ref().unwrap().path;
        std::fs::write(image, boot_sector()).unwrap();
        session.call("cont", json!({}));
        let log = machine.state_dir.join("log/console-main.log");
        let started = Instant::now();
        while !std::fs::read_to_string(&log)
            .unwrap()
            .contains("booted from disk")
        {
            assert!(
                started.elapsed() < DEADLINE,
                "no boot from {bus} on {board}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        session.quit();
    }
}
