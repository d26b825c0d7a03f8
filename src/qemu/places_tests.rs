//! Where a guest sees its devices: no two meet, and none moves from start to start.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::Value;

use super::command_line;
use crate::ids::PciSlot;
use crate::machine::slots::{RootPort, Slots};
use crate::machine::testing::{facts, machine, machine_kept};
use crate::machine::{Machine, Positions};

/// The devices of QEMU's command line.
fn devices(machine: &Machine) -> Vec<serde_json::Map<String, Value>> {
    let args = command_line(machine).shown();
    let json = args
        .iter()
        .filter_map(|arg| serde_json::from_str(arg).ok())
        .filter_map(|value: Value| value.as_object().cloned());
    json.filter(|object| object.contains_key("driver") && object.contains_key("addr"))
        .collect()
}

fn text<'a>(device: &'a serde_json::Map<String, Value>, key: &str) -> &'a str {
    device.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn slot(device: &serde_json::Map<String, Value>) -> PciSlot {
    text(device, "addr").parse().unwrap()
}

/// Where a guest's `lspci` shows each device: firmware numbers the buses behind bridges in the order of their slots.
fn lspci(machine: &Machine) -> BTreeMap<String, String> {
    let all = devices(machine);
    let root = Slots::of(machine).root();
    let is_bridge = |device: &serde_json::Map<String, Value>| {
        text(device, "driver").contains("bridge") || text(device, "driver").contains("root-port")
    };
    let bridges = all.iter().filter(|device| is_bridge(device));
    let mut bridges: Vec<(PciSlot, &str)> = bridges
        .map(|device| (slot(device), text(device, "id")))
        .collect();
    bridges.sort_by_key(|(at, _)| (at.slot, at.function));
    let mut buses: BTreeMap<&str, u8> = BTreeMap::from([(root, 0)]);
    for (_, id) in bridges {
        let number = u8::try_from(buses.len()).unwrap();
        assert_eq!(buses.insert(id, number), None, "{id} twice");
    }
    // What hides behind function 0 of a slot is found only where that is there, and tells of others.
    let on_root = all.iter().filter(|device| text(device, "bus") == root);
    let on_root: Vec<_> = on_root.collect();
    for device in &on_root {
        let at = slot(device);
        let first = on_root
            .iter()
            .find(|other| slot(other).slot == at.slot && slot(other).function == 0);
        let tells = first.and_then(|first| first.get("multifunction")) == Some(&Value::Bool(true));
        // Function 0 of that slot is the board's, on pc.
        let of_board = root == "pci.0" && at.slot == 1;
        assert!(at.function == 0 || tells || of_board, "{device:?}");
    }
    let mut taken = BTreeSet::new();
    let named = all.iter().map(|device| {
        let at = slot(device);
        let bus = buses[text(device, "bus")];
        let place = format!("{bus:02x}:{:02x}.{}", at.slot, at.function);
        assert!(taken.insert(place.clone()), "{device:?} where another is");
        (text(device, "id").to_owned(), place)
    });
    let named: Vec<_> = named.collect();
    named.into_iter().collect()
}

/// Devices that a guest can have, in the order of their bits.
const CHOICES: [&str; 16] = [
    "[network.b]\nuser = {}\n",
    "[network.a]\nuser = {}\nmodel = 'e1000'\n",
    "[network.c]\nuser = {}\n",
    "[network.d]\nuser = {}\nmodel = 'rtl8139'\n",
    "[network.e]\nuser = {}\n",
    "[disk.root]\nfile.path = 'root'\n",
    "[disk.data]\nfile.path = 'data'\nbus = 'nvme'\n",
    "[disk.zero]\nfile.path = 'zero'\n",
    "[disk.mid]\nfile.path = 'mid'\ncontroller = 'scsi-b'\nbus = 'scsi'\n[controller.scsi-b]\n",
    "[share.home]\npath = '/srv'\n",
    "[share.boot]\npath = '/boot'\n",
    "[controller.scsi-a]\n",
    "[audio.card]\n",
    "[shmem.glass]\nsize = '32M'\n",
    "[rng]\n[watchdog]\n",
    "[disk.sata-b]\nfile.path = 'b'\nbus = 'sata'\n",
];

fn guest(board: &str, bits: u32, kept: &Positions) -> Machine {
    let chosen = CHOICES.iter().enumerate();
    let chosen = chosen.filter(|(index, _)| bits & (1 << index) != 0);
    let chosen: String = chosen.map(|(_, text)| *text).collect();
    machine_kept(
        &format!("machine.type = '{board}'\n{chosen}"),
        &facts(),
        kept,
    )
    .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]
    #[test]
    fn whatever_comes_and_goes_moves_nothing_else(
        starts in prop::collection::vec(0u32..1 << CHOICES.len(), 5),
        board in prop::sample::select(vec!["q35", "pc"]),
    ) {
        let mut kept = Positions::default();
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        for bits in starts {
            let machine = guest(board, bits, &kept);
            // What is placed stays placed, and what is written is read.
            prop_assert_eq!(&machine.positions.laid(&machine), &machine.positions);
            kept = serde_json::from_str(&machine.positions.text()).unwrap();
            prop_assert_eq!(&kept, &machine.positions);
            for (id, place) in lspci(&machine) {
                // Bridges for nothing come and go with what hides behind them.
                if id.starts_with("mvm-port-") {
                    continue;
                }
                let before = seen.entry(id.clone()).or_insert_with(|| place.clone());
                prop_assert_eq!(&*before, &place, "{}", id);
            }
        }
    }
}

#[test]
fn more_than_there_is_room_for_to_keep_drops_what_has_gone() {
    let disks = |from: usize, to: usize| -> String {
        let one = |index| format!("[disk.d{index:02}]\nfile.path = 'd{index}'\n");
        (from..to).map(one).collect()
    };
    for board in ["q35", "pc"] {
        let text = |disks: String| format!("machine.type = '{board}'\n{disks}");
        let first = machine(&text(disks(0, 15))).unwrap();
        // One stays, and all others are new ones each time.
        let mut before = first.clone();
        for round in 1..5 {
            let all = disks(0, 1) + &disks(round * 20, round * 20 + 14);
            let now = machine_kept(&text(all), &facts(), &before.positions).unwrap();
            assert_eq!(lspci(&now)["d00"], lspci(&first)["d00"], "{board} {round}");
            assert!(!now.notes.iter().any(|note| note.contains("elsewhere")));
            before = now;
        }
        let many = machine_kept(&text(disks(0, 40)), &facts(), &before.positions).unwrap_err();
        assert!(many.to_string().contains("40 "), "{many}");
    }
}

/// Each start with another card for once, as often as one likes: the buses keep their numbers.
#[test]
fn devices_for_once_move_nothing_however_many_there_were() {
    let always = "[network.lan]\nuser = {}\n[network.wan]\nuser = {}\n[disk.root]\nfile.path = 'r'\n\
                  [disk.cd]\nfile.path = 'c'\nbus = 'sata'\n";
    let mut before = machine(always).unwrap();
    let places = |machine: &Machine| {
        let places = lspci(machine);
        ["lan", "wan", "root"].map(|id| places[id].clone())
    };
    let first = places(&before);
    for round in 0..40 {
        let once = format!(
            "{always}[network.n{round:02}]\nuser = {{}}\n[disk.s{round:02}]\nfile.path = 's'\nbus = 'sata'\n"
        );
        let now = machine_kept(&once, &facts(), &before.positions).unwrap();
        assert_eq!(places(&now), first, "round {round}");
        assert!(!now.notes.iter().any(|note| note.contains("elsewhere")));
        before = now;
    }
}

/// As many as there are slots: what comes then moves others, and that is said.
#[test]
fn devices_that_move_are_told_of() {
    let cards = |count: usize| -> String {
        let one = |index| format!("[network.n{index:02}]\nuser = {{}}\n");
        (0..count).map(one).collect()
    };
    let told = |machine: &Machine| {
        let mut notes = machine.notes.iter();
        notes.any(|note| note.starts_with("devices of the guest sit elsewhere"))
    };
    let disk = "[disk.z]\nfile.path = 'z'\n";
    let mut machine = machine_kept(disk, &facts(), &machine(disk).unwrap().positions).unwrap();
    let mut moved_at = None;
    for count in 1..=11 {
        let shares: String = (0..count)
            .map(|index| format!("[share.s{index:02}]\npath = '/'\n"))
            .collect();
        let text = format!("{disk}{}{shares}", cards(count));
        let now = machine_kept(&text, &facts(), &machine.positions).unwrap();
        let same = lspci(&now)["z"] == lspci(&machine)["z"];
        assert_eq!(told(&now), !same, "{count}");
        if told(&now) && moved_at.is_none() {
            moved_at = Some(count);
        }
        machine = now;
    }
    assert!(moved_at.is_some());
}

#[test]
fn a_slot_that_the_profile_names_is_left_out_on_pc() {
    let text = |more: &str| {
        format!(
            "machine.type = 'pc'\n[disk.root]\nfile.path = 'r'\n[disk.y]\nfile.path = 'y'\naddress = '0x0d'\n{more}"
        )
    };
    let first = machine(&text("")).unwrap();
    let second = machine_kept(
        &text("[disk.n]\nfile.path = 'n'\n"),
        &facts(),
        &first.positions,
    )
    .unwrap();
    let (one, two) = (lspci(&first), lspci(&second));
    assert_eq!([&one["root"], &one["y"]], [&two["root"], &two["y"]]);
    assert_eq!(two["n"], "00:0e.0");
}

#[test]
fn a_bridge_that_is_kept_for_nothing_gives_way_on_virt() {
    let with = |text: &str, before: &Machine| {
        machine_kept(
            &format!("machine.arch = 'aarch64'\n{text}"),
            &facts(),
            &before.positions,
        )
    };
    let none = machine("machine.arch = 'aarch64'\n").unwrap();
    let sound = with("[audio.a]\nbackend = 'none'\n", &none).unwrap();
    let disk = "[disk.d]\nfile.path = 'd'\naddress = '2'\n";
    assert_eq!(lspci(&with(disk, &sound).unwrap())["d"], "00:02.0");
}

#[test]
fn a_file_that_mvm_has_not_written_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    for (text, told) in [
        (
            r#"{"pcie": {"network.lan": 0, "network.wan": 0}}"#,
            "`network.lan` and `network.wan` have the same place",
        ),
        (
            r#"{"pcie": {"network.lan": 16}, "pcie-cards": {"network.wan": 16}}"#,
            "have the same place",
        ),
        (
            r#"{"pcie": {"network.lan": 12}}"#,
            "`network.lan` has the place 12, which no board has",
        ),
        (r#"{"sata": {"disk.a": 1, "disk.b": 1}}"#, "the same place"),
        ("[]", "invalid type"),
    ] {
        std::fs::write(dir.path().join("places.json"), text).unwrap();
        let error = Positions::read(dir.path()).unwrap_err();
        let report: crate::error::Report = error.into();
        assert!(report.chain.join(": ").contains(told), "{report}");
        assert!(report.hints[0].starts_with("remove it"), "{report}");
    }
}

#[test]
fn disks_keep_their_ports_of_controllers_as_long_as_there_are_enough() {
    let disks = |names: &str| -> String {
        let one = |name| format!("[disk.{name}]\nfile.path = '{name}'\nbus = 'sata'\n");
        names.chars().map(one).collect()
    };
    let port = |machine: &Machine, id: &str| {
        let args = command_line(machine).shown();
        let json = args.iter().filter_map(|arg| serde_json::from_str(arg).ok());
        let mut devices = json.filter(|one: &Value| one["driver"] == "ide-hd");
        let device = devices.find(|one| one["id"] == id).unwrap();
        device["bus"].as_str().unwrap().to_owned()
    };
    let first = machine(&disks("bcd")).unwrap();
    let kept = |names: &str, before: &Machine| {
        machine_kept(&disks(names), &facts(), &before.positions).unwrap()
    };
    let second = kept("acd", &first);
    assert_eq!([port(&second, "c"), port(&second, "a")], ["ide.1", "ide.3"]);
    // There are six: what has gone gives way, and the others stay.
    let third = kept("acdefg", &second);
    assert_eq!([port(&third, "c"), port(&third, "a")], ["ide.1", "ide.3"]);
    let mut ports: Vec<String> = "acdefg"
        .chars()
        .map(|id| port(&third, &id.to_string()))
        .collect();
    ports.sort();
    assert_eq!(ports.join(" "), "ide.0 ide.1 ide.2 ide.3 ide.4 ide.5");
}

#[test]
fn a_slot_that_the_profile_names_is_not_kept_for_what_has_gone() {
    let both = machine("[disk.a]\nfile.path = 'a'\n[disk.b]\nfile.path = 'b'\n").unwrap();
    assert_eq!(lspci(&both)["mvm-port-17"], "00:11.0");
    let text = "[disk.a]\nfile.path = 'a'\n[disk.c]\nfile.path = 'c'\naddress = '11'\n";
    let other = machine_kept(text, &facts(), &both.positions).unwrap();
    let places = lspci(&other);
    assert_eq!(places["c"], "00:11.0");
    assert_eq!(places["a"], lspci(&both)["a"]);
}

#[test]
fn a_display_stays_when_others_come_and_the_first_function_is_never_empty() {
    let with = |ids: &str, before: &Machine| {
        let one = |id| {
            format!(
                "[video.{id}]\nmodel = 'virtio-gpu'\nprimary = {}\n",
                id == 'm'
            )
        };
        let text: String = ids.chars().map(one).collect();
        machine_kept(&text, &facts(), &before.positions).unwrap()
    };
    let places = |machine: &Machine, ids: &str| -> Vec<String> {
        let places = lspci(machine);
        ids.chars()
            .map(|id| places[&id.to_string()].clone())
            .collect()
    };
    let one = with("m", &machine("").unwrap());
    assert_eq!(places(&one, "m"), ["00:01.0"]);
    // One before it in the alphabet.
    let two = with("am", &one);
    assert_eq!(places(&two, "am"), ["00:01.1", "00:01.0"]);
    let three = with("abm", &two);
    assert_eq!(places(&three, "abm"), ["00:01.1", "00:01.2", "00:01.0"]);
    // The first goes: what is new takes its function rather than one that would have to move.
    let other = with("abz", &three);
    assert_eq!(places(&other, "abz"), ["00:01.1", "00:01.2", "00:01.0"]);
    let rest = with("ab", &other);
    assert_eq!(places(&rest, "ab"), ["00:01.0", "00:01.2"]);
}

#[test]
fn another_board_begins_anew() {
    let text = |board: &str| format!("machine.type = '{board}'\n[disk.a]\nfile.path = 'a'\n");
    let one = machine(&text("q35")).unwrap();
    let other = machine_kept(&text("pc"), &facts(), &one.positions).unwrap();
    assert_eq!(lspci(&other), lspci(&machine(&text("pc")).unwrap()));
    // And back: it is as it was.
    let back = machine_kept(&text("q35"), &facts(), &other.positions).unwrap();
    assert_eq!(lspci(&back), lspci(&one));
}

#[test]
fn disks_and_controllers_leave_each_other_where_they_are() {
    for (disks, controllers) in [(1, 1), (7, 7), (8, 7), (12, 3)] {
        let disks = (0..disks).map(|at| format!("[disk.d{at:02}]\nfile.path = 'd{at}'\n"));
        let controllers = (0..controllers).map(|at| format!("[controller.c{at}]\n"));
        let text: String = disks.chain(controllers).collect();
        let machine = machine(&text).unwrap();
        let places = lspci(&machine);
        // `lspci` has looked that nothing meets.
        assert!(places.contains_key("c0"), "{places:?}");
        let ports: Vec<RootPort> = Slots::of(&machine).root_ports().collect();
        assert!(ports.iter().any(|port| port.addr() == "0x17.0x0"));
    }
}

#[test]
fn a_full_machine_has_a_place_for_each() {
    let many = |count: usize, text: &str| -> String {
        let one = |at: usize| text.replace('@', &format!("{at:02}"));
        (0..count).map(one).collect()
    };
    for (board, [nics, disks, shares]) in [
        ("q35", [11, 15, 11]),
        ("pc", [5, 10, 5]),
        ("microvm", [5, 10, 4]),
    ] {
        let text = format!(
            "machine.type = '{board}'\n{}{}{}",
            many(nics, "[network.n@]\nuser = {}\n"),
            many(disks, "[disk.d@]\nfile.path = 'd@'\n"),
            many(shares, "[share.s@]\npath = '/srv'\n"),
        );
        let machine = machine(&text).unwrap();
        if board == "microvm" {
            let args = command_line(&machine).shown();
            let buses: Vec<&String> = args.iter().filter(|arg| arg.contains("mmio-bus")).collect();
            let different: BTreeSet<String> = buses
                .iter()
                .map(|arg| {
                    let value: Value = serde_json::from_str(arg).unwrap();
                    value["bus"].as_str().unwrap().to_owned()
                })
                .collect();
            assert_eq!(different.len(), buses.len());
        } else {
            assert!(lspci(&machine).len() >= nics + disks + shares);
        }
        let more = machine_kept(
            &format!("{text}[network.more]\nuser = {{}}\n"),
            &facts(),
            &machine.positions,
        );
        assert!(more.is_err(), "{board}");
    }
}
