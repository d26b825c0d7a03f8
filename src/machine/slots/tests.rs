//! No two devices meet, and none moves.

use super::*;

const EMPTY: Slots = Slots {
    bus: Bus::Pcie,
    counts: [0; 4],
    controllers: 0,
    old_cards: 0,
    own: 0,
    gpu: None,
    hot: false,
};

#[test]
fn another_disk_moves_no_card_and_no_share() {
    let places = |disks| {
        let slots = Slots {
            counts: [2, disks, 1, 4],
            ..EMPTY
        };
        (slots.nic(0), slots.nic(1), slots.share(0))
    };
    assert_eq!(places(1), places(9));
}

#[test]
fn disks_and_controllers_leave_each_other_where_they_are() {
    let places = |disks, controllers| {
        let slots = Slots {
            counts: [2, disks, 1, 4],
            controllers,
            ..EMPTY
        };
        (slots.disk(0), slots.controller(0), slots.share(0))
    };
    assert_eq!(places(1, 1), places(11, 3));
    for (disks, controllers) in [(1, 1), (7, 7), (8, 7), (12, 3)] {
        let slots = Slots {
            counts: [0, disks, 0, 0],
            controllers,
            ..EMPTY
        };
        let ports: Vec<RootPort> = slots.root_ports().collect();
        let addrs: std::collections::BTreeSet<String> = ports.iter().map(RootPort::addr).collect();
        assert_eq!(addrs.len(), ports.len(), "{disks} {controllers}");
        // What hides behind a first port is seen only where that is there.
        assert!(addrs.contains("0x17.0x0"));
        for index in 0..controllers {
            let place = slots.controller(index);
            assert!(ports.iter().any(|port| port.id() == place.bus));
        }
    }
}

#[test]
fn no_two_devices_share_a_place() {
    for (bus, counts) in [
        (Bus::Pcie, [11, 15, 11, 8]),
        (Bus::Pci, [5, 10, 5, 0]),
        (Bus::Mmio, [5, 10, 4, 0]),
    ] {
        for (own, gpu) in [(0, None), (0x1ff, Some(2)), (7, Some(4)), (0x1ff, None)] {
            if bus == Bus::Mmio && own > 0 {
                continue;
            }
            let counts = if bus == Bus::Pci && own > 0 {
                [2, 5, 3, 0]
            } else {
                counts
            };
            let slots = Slots {
                bus,
                counts,
                controllers: 0,
                old_cards: 0,
                own,
                gpu,
                hot: false,
            };
            let own = |index| {
                slots.host(GuestPlace::Own {
                    index,
                    function: 0,
                    multifunction: false,
                })
            };
            let mut places: Vec<String> = (0..counts[0])
                .map(|n| slots.nic(n))
                .chain((0..counts[1]).map(|n| slots.disk(n)))
                .chain((0..counts[2]).map(|n| slots.share(n)))
                .chain([slots.single(Single::Serial), slots.single(Single::Scsi)])
                .chain(
                    (bus != Bus::Mmio)
                        .then(|| slots.single(Single::Display))
                        .filter(|_| gpu != Some(2)),
                )
                .chain((0..small(slots.own_end())).map(own))
                .chain(gpu.map(|slot| {
                    slots.host(GuestPlace::Root {
                        slot,
                        function: 0,
                        multifunction: false,
                    })
                }))
                .map(|place| {
                    // A slot and its first function are one place.
                    let addr = place
                        .addr
                        .map(|addr| addr.trim_end_matches(".0x0").to_owned());
                    format!("{} {addr:?}", place.bus)
                })
                .chain(slots.root_ports().map(|port| {
                    format!(
                        "{} {:?}",
                        slots.root(),
                        Some(port.addr().trim_end_matches(".0x0"))
                    )
                }))
                .collect();
            let all = places.len();
            places.sort();
            places.dedup();
            assert_eq!(places.len(), all, "{slots:?}");
        }
    }
}

#[test]
fn first_ports_have_slots_of_their_own() {
    let addr = |index| PORTS[1].get(index).addr();
    assert_eq!(addr(0), "0x10.0x0");
    assert_eq!(addr(6), "0x16.0x0");
    assert_eq!(addr(7), "0x17.0x0");
    assert_eq!(addr(14), "0x17.0x7");
    assert!(PORTS[1].get(7).is_first_of_slot() && !PORTS[1].get(8).is_first_of_slot());
    assert!(PORTS[1].get(14).number < PORTS[2].get(0).number);
}
