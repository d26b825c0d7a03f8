//! Devices are found by what people say.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use proptest::prelude::*;

use super::super::{Names, UsbDevice, UsbInterface, UsbKind};
use super::*;

fn pci_device(bdf: &str, ids: (u16, u16), class: (u32, &str), names: (&str, &str)) -> PciDevice {
    PciDevice {
        bdf: bdf.parse().unwrap(),
        vendor: ids.0,
        device: ids.1,
        class: class.0,
        names: Names {
            class: class.1.to_owned(),
            vendor: names.0.to_owned(),
            device: names.1.to_owned(),
        },
        ..PciDevice::default()
    }
}

fn facts() -> DeviceFacts {
    let intel = "Intel Corporation";
    let ethernet = (0x020000, "Ethernet controller");
    let stick = |port: &str, name: &str, serial: &str, kinds: &[UsbKind], hub| UsbDevice {
        port: port.parse().unwrap(),
        path: port.replace("1-", "2-"),
        vendor: 0x0781,
        product: 0x5583,
        vendor_name: "SanDisk".to_owned(),
        product_name: name.to_owned(),
        serial: Some(serial.to_owned()),
        kinds: kinds.to_vec(),
        interfaces: vec![UsbInterface::default()],
        hub,
        ..UsbDevice::default()
    };
    DeviceFacts {
        pci: vec![
            pci_device(
                "00:00.0",
                (0x8086, 0xa700),
                (0x060000, "Host bridge"),
                (intel, "Device a700"),
            ),
            pci_device(
                "00:14.3",
                (0x8086, 0x7af0),
                (0x028000, "Network controller"),
                (intel, "Wi-Fi 6 AX201"),
            ),
            pci_device(
                "03:00.0",
                (0x8086, 0x15f3),
                ethernet,
                (intel, "Ethernet Controller I225-V"),
            ),
            pci_device(
                "04:00.0",
                (0x8086, 0x15f3),
                ethernet,
                (intel, "Ethernet Controller I225-V"),
            ),
            pci_device(
                "10000:e1:00.0",
                (0x144d, 0xa80c),
                (0x010802, "Non-Volatile memory controller"),
                ("Samsung", "NVMe SSD"),
            ),
        ],
        usb: vec![
            stick("1-2", "USB Keyboard Hub", "A1", &[UsbKind::Hub], true),
            stick("1-3", "Ultra Fit", "B2", &[UsbKind::Storage], false),
            stick("1-4.1", "Model M", "C3", &[UsbKind::Keyboard], false),
            stick("1-4.2", "Keyboard Lamp", "D4", &[UsbKind::Input], false),
            stick("1-10", "Ultra Fit", "E5", &[UsbKind::Storage], false),
        ],
        ..DeviceFacts::default()
    }
}

#[test]
fn pci_as_people_say_it() {
    let facts = facts();
    for (asked, found) in [
        ("0000:03:00.0", "0000:03:00.0"),
        ("03:00.0", "0000:03:00.0"),
        ("10000:e1:00.0", "10000:e1:00.0"),
        ("8086:15f3", "0000:03:00.0"),
        ("8086:15F3:2", "0000:04:00.0"),
        ("wi-fi", "0000:00:14.3"),
        ("I225", "0000:03:00.0"),
        ("i225:2", "0000:04:00.0"),
        ("network controller", "0000:00:14.3"),
        ("[0200]:2", "0000:04:00.0"),
        ("samsung nvme", "10000:e1:00.0"),
        // No line holds the phrase, one line each word.
        ("nvme samsung", "10000:e1:00.0"),
        ("intel 7af0", "0000:00:14.3"),
        ("wifi", "0000:00:14.3"),
    ] {
        let bdf = pci(&facts, asked).unwrap().bdf.to_string();
        assert_eq!(bdf, found, "{asked}");
    }
}

#[test]
fn what_is_not_there_is_told_with_what_is_near() {
    let facts = facts();
    let report = |asked| crate::error::Report::from(pci(&facts, asked).unwrap_err()).to_string();
    insta::assert_snapshot!(
        ["i225:3", "i226", "8086:15f4", "03:00.1", "00:1f.0", "thunderbolt"].map(report).join("\n"),
        @r#"
        error: `i225` asks for number 3, but only 2 PCI devices match
        hint: these match: 0000:03:00.0 Intel Corporation Ethernet Controller I225-V [8086:15f3]; 0000:04:00.0 Intel Corporation Ethernet Controller I225-V [8086:15f3]
        hint: `mvm devices pci` lists what there is

        error: no PCI device matches `i226`
        hint: perhaps: 0000:03:00.0 Intel Corporation Ethernet Controller I225-V [8086:15f3]; 0000:04:00.0 Intel Corporation Ethernet Controller I225-V [8086:15f3]
        hint: `mvm devices pci` lists what there is

        error: no PCI device matches `8086:15f4`
        hint: perhaps: 0000:00:00.0 Intel Corporation Device a700 [8086:a700]; 0000:00:14.3 Intel Corporation Wi-Fi 6 AX201 [8086:7af0]; 0000:03:00.0 Intel Corporation Ethernet Controller I225-V [8086:15f3]; 0000:04:00.0 Intel Corporation Ethernet Controller I225-V [8086:15f3]
        hint: `mvm devices pci` lists what there is

        error: there is no PCI device at 0000:03:00.1
        hint: near it: 0000:03:00.0 Intel Corporation Ethernet Controller I225-V [8086:15f3]
        hint: `mvm devices pci` lists what there is

        error: there is no PCI device at 0000:00:1f.0
        hint: near it: 0000:00:00.0 Intel Corporation Device a700 [8086:a700]; 0000:00:14.3 Intel Corporation Wi-Fi 6 AX201 [8086:7af0]
        hint: `mvm devices pci` lists what there is

        error: no PCI device matches `thunderbolt`
        hint: `mvm devices pci` lists what there is
        "#
    );
    let report = |asked| crate::error::Report::from(usb(&facts, asked).unwrap_err()).to_string();
    insta::assert_snapshot!(["keyboard:2", "1-7", "printer"].map(report).join("\n"), @r#"
    error: `keyboard` asks for number 2, but only 1 USB device matches
    hint: these match: 1-4.1 SanDisk Model M [0781:5583] C3
    hint: `mvm devices usb` lists what there is

    error: there is no USB device at port 1-7
    hint: near it: 1-3 SanDisk Ultra Fit [0781:5583] B2; 1-4.1 SanDisk Model M [0781:5583] C3; 1-4.2 SanDisk Keyboard Lamp [0781:5583] D4; 1-10 SanDisk Ultra Fit [0781:5583] E5
    hint: `mvm devices usb` lists what there is

    error: no USB device matches `printer`
    hint: `mvm devices usb` lists what there is
    "#);
}

#[test]
fn usb_as_people_say_it() {
    let facts = facts();
    for (asked, port) in [
        ("1-3", "1-3"),
        ("2-3", "1-3"),
        ("0781:5583:4", "1-4.2"),
        ("keyboard", "1-4.1"),
        ("Storage:2", "1-10"),
        ("ultra fit:2", "1-10"),
        ("c3", "1-4.1"),
        ("sandisk storage", "1-3"),
        ("keyboard hub", "1-2"),
        ("keyboard lamp", "1-4.2"),
    ] {
        assert_eq!(usb(&facts, asked).unwrap().port.as_str(), port, "{asked}");
    }
    assert_eq!(usb_serial(&facts, "E5").unwrap().port.as_str(), "1-10");
    assert!(usb_serial(&facts, "e").is_err());
}

#[test]
fn a_mediated_device_by_its_name_type_or_parent() {
    let one = |number, kind: &str, parent: &str| Mdev {
        uuid: Uuid::from_u128(number),
        type_id: kind.to_owned(),
        parent: parent.to_owned(),
        group: None,
        driver: None,
    };
    let facts = DeviceFacts {
        mdevs: vec![
            one(1, "mtty-1", "mtty"),
            one(2, "mtty-2", "mtty"),
            one(3, "mdpy-vga", "mdpy"),
        ],
        ..DeviceFacts::default()
    };
    for (asked, found) in [
        ("00000000-0000-0000-0000-000000000002", 2),
        ("mtty-2", 2),
        ("MDPY", 3),
        ("mtty:2", 2),
    ] {
        let uuid = mdev(&facts, asked).unwrap().uuid;
        assert_eq!(uuid, Uuid::from_u128(found), "{asked}");
    }
    let report = |asked| crate::error::Report::from(mdev(&facts, asked).unwrap_err()).to_string();
    insta::assert_snapshot!(report("mdpy:2"), @r#"
    error: `mdpy` asks for number 2, but only 1 mdev device matches
    hint: these match: 00000000-0000-0000-0000-000000000003 (mdpy-vga of mdpy)
    hint: `mvm devices mdev` lists what there is
    "#);
    assert!(report("nosuch").contains("no mdev device matches `nosuch`"));
}

fn any_words() -> impl Strategy<Value = String> {
    proptest::sample::select(vec![
        "intel",
        "i225",
        "controller",
        "Ethernet",
        "[0200]",
        "8086",
        "corporation",
        "ssd",
        "e",
        "-",
    ])
    .prop_flat_map(|first| {
        proptest::sample::select(vec!["", " controller", " i225-v", " intel", " 15f3]"])
            .prop_map(move |second| format!("{first}{second}"))
    })
}

proptest! {
    #[test]
    fn a_number_counts_the_matches_in_bus_order(words in any_words(), nth in 1usize..7) {
        let facts = facts();
        let all = pci_matching(&facts, &words);
        prop_assert!(all.is_sorted_by_key(|device| device.bdf));
        let numbered = format!("{words}:{nth}");
        match pci(&facts, &numbered) {
            Ok(device) => prop_assert_eq!(device.bdf, all[nth - 1].bdf),
            Err(FindError::TooFew { found, .. }) => {
                prop_assert_eq!(found.len(), all.len());
                prop_assert!(nth > all.len());
            }
            Err(error) => prop_assert!(all.is_empty(), "{}", error),
        }
        // Without a number it is the first.
        prop_assert_eq!(pci(&facts, &words).ok().map(|d| d.bdf), all.first().map(|d| d.bdf));
    }

    #[test]
    fn case_and_spaces_make_no_difference(words in any_words()) {
        let facts = facts();
        let bdfs = |words: &str| -> Vec<Bdf> {
            pci_matching(&facts, words).iter().map(|d| d.bdf).collect()
        };
        let spaced = format!("  {}  ", words.replace(' ', "   "));
        prop_assert_eq!(bdfs(&words), bdfs(&words.to_uppercase()));
        prop_assert_eq!(bdfs(&words), bdfs(&spaced));
    }

    #[test]
    fn a_phrase_is_in_every_line_that_it_finds(words in any_words()) {
        let facts = facts();
        let words = words.to_lowercase();
        let found = pci_matching(&facts, &words);
        let holds = |device: &&PciDevice| device.line().to_lowercase().contains(&words);
        let whole: Vec<&PciDevice> = facts.pci.iter().filter(holds).collect();
        if !whole.is_empty() {
            prop_assert_eq!(found, whole);
        }
    }

    #[test]
    fn no_text_upsets_it(text in ".{0,40}") {
        let facts = facts();
        let _ = (pci(&facts, &text), usb(&facts, &text));
    }

    #[test]
    fn every_address_and_id_finds_its_own(place in 0usize..5) {
        let facts = facts();
        let device = &facts.pci[place];
        prop_assert_eq!(pci(&facts, &device.bdf.to_string()).unwrap(), device);
        let id = format!("{:04x}:{:04x}", device.vendor, device.device);
        prop_assert_eq!(pci(&facts, &id).unwrap().device, device.device);
    }
}
