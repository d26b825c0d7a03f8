//! Network devices: the default route, bridges and bonds.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::HostUse;
use crate::host::devices::place::{self, Place};
use crate::host::sysfs::Sysfs;

/// `linux/if.h`.
const IFF_UP: u64 = 0x1;
/// How far links are stacked: a VLAN on a bridge on a bond on a NIC is three.
const DEEP: usize = 8;

/// A network device, its place, and what the host does with it.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    /// Its name.
    pub(crate) name: String,
    /// Whose it is.
    pub(crate) place: Place,
    /// Whether it is switched off; one without a cable is not.
    pub(crate) down: bool,
    /// What the host does with it.
    pub(crate) uses: Vec<HostUse>,
}

/// All network devices that belong to a device of the host.
pub(in crate::host::devices) fn read(sysfs: &Sysfs, around: Option<&Path>) -> Vec<Link> {
    let names = sysfs.list("class/net").unwrap_or_default();
    let routed = routed(sysfs, around);
    let mut all = Vec::new();
    for name in names {
        let place = place::of(sysfs, &format!("class/net/{name}"));
        if place.function().is_none() && place.usb.is_empty() {
            continue;
        }
        let mut uses = Vec::new();
        if routed.contains(&name) {
            uses.push(HostUse::DefaultRoute { link: name.clone() });
        }
        let port = sysfs.link_name(format!("class/net/{name}/brport/bridge"));
        let master = sysfs.link_name(format!("class/net/{name}/master"));
        let link = name.clone();
        match (port.ok().flatten(), master.ok().flatten()) {
            (Some(bridge), _) => uses.push(HostUse::BridgeMember { link, bridge }),
            (None, Some(bridge)) if sysfs.exists(format!("class/net/{bridge}/bridge")) => {
                uses.push(HostUse::BridgeMember { link, bridge });
            }
            (None, Some(bond)) => uses.push(HostUse::BondMember { link, bond }),
            (None, None) => {}
        }
        let flags = sysfs.read_u64(format!("class/net/{name}/flags"));
        let down = flags.is_ok_and(|flags| flags & IFF_UP == 0);
        all.push(Link {
            name,
            place,
            down,
            uses,
        });
    }
    all
}

/// The links that the default routes go over, and those below them.
fn routed(sysfs: &Sysfs, around: Option<&Path>) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let Some(around) = around else {
        return all;
    };
    let read = |file: &str| fs::read_to_string(around.join(file)).unwrap_or_default();
    let v4 = read("proc/net/route");
    let v6 = read("proc/net/ipv6_route");
    let links = v4.lines().skip(1).filter_map(default_v4);
    for link in links.chain(v6.lines().filter_map(default_v6)) {
        below(sysfs, link, &mut all, DEEP);
    }
    all
}

/// Flags of a route (`linux/route.h`).
const RTF_UP: u32 = 0x1;
const RTF_REJECT: u32 = 0x200;

fn usable(flags: &str) -> bool {
    u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & (RTF_UP | RTF_REJECT) == RTF_UP)
}

/// Iface, Destination, Gateway, Flags, RefCnt, Use, Metric, Mask, …
fn default_v4(line: &str) -> Option<&str> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let zero = |at: usize| fields.get(at).is_some_and(|f| f.bytes().all(|b| b == b'0'));
    (zero(1) && zero(7) && usable(fields.get(3)?)).then(|| fields[0])
}

/// Destination, its prefix, source, its prefix, next hop, metric, references, use, flags, device.
fn default_v6(line: &str) -> Option<&str> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let zero = |at: usize| fields.get(at).is_some_and(|f| f.bytes().all(|b| b == b'0'));
    let link = *fields.get(9)?;
    // `lo` holds the route that refuses what has no other.
    (zero(0) && zero(1) && link != "lo" && usable(fields.get(8)?)).then_some(link)
}

/// The link and all that carry it: a bridge's ports, a bond's parts, a VLAN's device.
fn below(sysfs: &Sysfs, link: &str, all: &mut BTreeSet<String>, deep: usize) {
    if !all.insert(link.to_owned()) || deep == 0 {
        return;
    }
    for entry in sysfs.list(format!("class/net/{link}")).unwrap_or_default() {
        if let Some(lower) = entry.strip_prefix("lower_") {
            below(sysfs, lower, all, deep - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_are_those_to_everywhere_that_are_up() {
        let v4 = "eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0";
        assert_eq!(default_v4(v4), Some("eth0"));
        for other in [
            "eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0",
            "eth0\t00000000\t0101A8C0\t0002\t0\t0\t100\t00000000\t0\t0\t0",
            "",
            "eth0",
        ] {
            assert_eq!(default_v4(other), None, "{other}");
        }
        let zero = "00000000000000000000000000000000";
        let gateway = "fe800000000000000000000000000001";
        let v6 = |flags: &str, link: &str| {
            format!("{zero} 00 {zero} 00 {gateway} 00000400 00000001 00000000 {flags} {link}")
        };
        assert_eq!(default_v6(&v6("00000003", "eth1")), Some("eth1"));
        assert_eq!(default_v6(&v6("00200200", "lo")), None);
        assert_eq!(default_v6(&v6("00000202", "eth1")), None);
    }
}
