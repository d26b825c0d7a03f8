//! No two ports meet.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::collections::BTreeSet;

use super::*;

#[test]
fn first_ports_have_slots_of_their_own() {
    let addr = |index| PORTS[1].get(index).addr();
    assert_eq!(addr(0), "0x10.0x0");
    assert_eq!(addr(6), "0x16.0x0");
    assert_eq!(addr(7), "0x17.0x0");
    assert_eq!(addr(14), "0x17.0x7");
    assert!(PORTS[1].get(7).is_first_of_slot() && !PORTS[1].get(8).is_first_of_slot());
    // Every port has an address of its own, whatever it is for.
    let numbers = PORTS
        .iter()
        .flat_map(|kind| (0..small(kind.max())).map(|at| kind.get(at)));
    let addrs: Vec<String> = numbers.map(|port| port.addr()).collect();
    assert_eq!(addrs.iter().collect::<BTreeSet<_>>().len(), addrs.len());
    assert_eq!(
        late_port(PortKind::Disk, &[16], &BTreeSet::new())
            .map(|number| port_slot(number, BoardKind::Q35)),
        Some(0x11)
    );
    assert_eq!(
        RootPort::new(late_port(PortKind::Disk, &[73], &BTreeSet::new()).unwrap()).addr(),
        "0x1d.0x1"
    );
}
