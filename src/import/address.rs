//! Places on buses: what of them a machine file says.

use super::Told;
use super::draft::Draft;
use super::reader::El;

/// The place of a device. On the guest's root bus it is kept where the table has `address`; what is below a
/// bridge of libvirt's is mvm's to place, and told once for all.
pub(super) fn place(device: El<'_>, table: Option<&str>, out: &mut Draft) {
    let Some(address) = device.child("address") else {
        return;
    };
    if address.peek("type") != Some("pci") {
        out.fine(
            address,
            "mvm numbers drives, USB ports and virtio ports in the order of their names",
        );
        return;
    }
    address.attr("type");
    // mvm sets it where a slot has several functions.
    let _ = address.flag("multifunction");
    let parts = ["domain", "bus", "slot", "function"];
    let parts = parts.map(|part| match address.peek(part) {
        None => Some(0),
        Some(_) => address.number(part),
    });
    // One that is not understood is no place, and told as such.
    let [Some(domain), Some(bus), Some(slot), Some(function)] = parts else {
        return;
    };
    match table {
        Some(table) if domain == 0 && bus == 0 && slot > 0 => {
            let slot = if function == 0 {
                format!("{slot:#x}")
            } else {
                format!("{slot:#x}.{function}")
            };
            out.put(address, table, "address", slot);
        }
        _ if (domain, bus, slot, function) == (0, 0, 0, 0) => {}
        _ => out.placed.push(address.line()),
    }
}

/// One line for all that mvm places itself.
pub(super) fn told(out: &mut Draft) {
    let Some(first) = out.placed.iter().min().copied() else {
        return;
    };
    let many = out.placed.len();
    let what = if many == 1 {
        "the PCI address of one device".to_owned()
    } else {
        format!("the PCI addresses of {many} devices, of which this is the first")
    };
    out.left.push(Told {
        line: first,
        what,
        why: "mvm gives each device a place of its own that it keeps from start to start; the guest finds its \
              devices at new places once, and Linux may give its network cards new names"
            .to_owned(),
    });
}
