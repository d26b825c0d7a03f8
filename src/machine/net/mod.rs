//! Network cards.

mod addresses;
mod error;
mod options;

use std::net::{IpAddr, Ipv4Addr};

pub use addresses::Addresses;
pub use error::NetError;
pub use options::NicOptions;

use super::ResolveError;
use super::files::find;
use super::names;
use super::{BoardKind, Bus, Forward, Nic, NicBackend};
use crate::host::images::Images;
use crate::host::links::LinkKind;
use crate::host::{DeviceNode, HostFacts};
use crate::ids::{GuestName, Id};
use crate::profile::schema::{Layer, NetworkTable, NicModel, TapNet, UserNet, VhostUserNet};

/// All network cards, in the order of their names.
pub(super) fn nics(
    layer: &Layer,
    guest: &GuestName,
    board: BoardKind,
    facts: &HostFacts,
    images: &Images,
) -> Result<Vec<Nic>, ResolveError> {
    let mut nics: Vec<Nic> = Vec::new();
    for (id, table) in layer.network.iter().flatten() {
        // `none` takes away what a lower layer gave, whatever that was.
        if table.none.is_some() {
            continue;
        }
        let nic = nic(id, table, guest, board, facts, images)?;
        for other in &nics {
            conflict(other, &nic)?;
        }
        nics.push(nic);
    }
    Ok(nics)
}

fn nic(
    id: &Id,
    table: &NetworkTable,
    guest: &GuestName,
    board: BoardKind,
    facts: &HostFacts,
    images: &Images,
) -> Result<Nic, ResolveError> {
    let model = table.model.unwrap_or(NicModel::Virtio);
    if board.bus() == Bus::Mmio && model != NicModel::Virtio {
        return Err(NetError::NoModel {
            id: id.clone(),
            model,
            board,
        }
        .into());
    }
    let options = options::options(id, table, model, board, images)?;
    let backend = match (&table.user, &table.tap, &table.vhost_user) {
        (Some(user), None, None) => user_backend(id, user)?,
        (None, Some(tap), None) => tap_backend(id, tap, model, &options, facts)?,
        (None, None, Some(other)) => vhost_user_backend(id, other, model, images)?,
        (None, None, None) => return Err(NetError::NoBackend(id.clone()).into()),
        _ => return Err(NetError::TwoBackends(id.clone()).into()),
    };
    Ok(Nic {
        id: id.clone(),
        model,
        mac: table.mac.clone().unwrap_or_else(|| names::mac(guest, id)),
        backend,
        options,
    })
}

fn vhost_user_backend(
    id: &Id,
    table: &VhostUserNet,
    model: NicModel,
    images: &Images,
) -> Result<NicBackend, ResolveError> {
    if model != NicModel::Virtio {
        return Err(NetError::VhostModel(id.clone()).into());
    }
    let text = table.socket.as_deref().unwrap_or_default();
    if !std::path::Path::new(text).is_absolute() {
        let text = text.chars().take(200).collect();
        return Err(NetError::BadSocket {
            id: id.clone(),
            text,
        }
        .into());
    }
    let server = table.server.unwrap_or(false);
    if !server {
        let what = format!("network `{id}`");
        let fix = || Some("start the program that listens there first".to_owned());
        find(images, &what, text, fix)?;
    }
    Ok(NicBackend::VhostUser {
        socket: text.into(),
        server,
    })
}

fn user_backend(id: &Id, user: &UserNet) -> Result<NicBackend, NetError> {
    let mut forwards: Vec<Forward> = Vec::new();
    for text in user.forward.iter().flatten() {
        let forward = forward(text).ok_or_else(|| NetError::BadForward {
            id: id.clone(),
            text: text.chars().take(80).collect(),
        })?;
        if let Some(same) = forwards.iter().find(|other| same_port(other, &forward)) {
            return Err(NetError::ForwardTwice {
                first: id.clone(),
                second: id.clone(),
                port: same.to_string(),
            });
        }
        forwards.push(forward);
    }
    Ok(NicBackend::User {
        forwards,
        restrict: user.restrict.unwrap_or(false),
        addresses: addresses::of(id, user)?,
    })
}

/// `[tcp:|udp:][ADDRESS:]HOST:GUEST`
fn forward(text: &str) -> Option<Forward> {
    let (udp, rest) = match text.split_once(':')? {
        ("tcp", rest) => (false, rest),
        ("udp", rest) => (true, rest),
        _ => (false, text),
    };
    let parts: Vec<&str> = rest.split(':').collect();
    let (address, host, guest) = match parts.as_slice() {
        [host, guest] => (Ipv4Addr::LOCALHOST, host, guest),
        [address, host, guest] => (address.parse().ok()?, host, guest),
        _ => return None,
    };
    let port = |text: &str| {
        // `parse` takes a leading `+`.
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| digits && *port > 0)
    };
    Some(Forward {
        udp,
        address,
        host: port(host)?,
        guest: port(guest)?,
    })
}

impl std::fmt::Display for Forward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let protocol = if self.udp { "udp" } else { "tcp" };
        write!(f, "{protocol} {}:{}", self.address, self.host)
    }
}

/// Whether two forwards listen on one port of one address (0.0.0.0 is all of them).
fn same_port(a: &Forward, b: &Forward) -> bool {
    let all = a.address.is_unspecified() || b.address.is_unspecified();
    a.udp == b.udp && a.host == b.host && (all || a.address == b.address)
}

/// `IFNAMSIZ` of `linux/if.h` less the final NUL; `/`, `:` and white space the kernel refuses
/// (`dev_valid_name`), the others would have to be quoted everywhere.
fn is_link_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && !name.starts_with(['-', '.'])
}

fn tap_backend(
    id: &Id,
    tap: &TapNet,
    model: NicModel,
    options: &NicOptions,
    facts: &HostFacts,
) -> Result<NicBackend, NetError> {
    let name = tap
        .name
        .clone()
        .ok_or_else(|| NetError::NoTapName(id.clone()))?;
    for name in [Some(&name), tap.bridge.as_ref()].into_iter().flatten() {
        if !is_link_name(name) {
            return Err(NetError::BadLinkName {
                id: id.clone(),
                name: name.chars().take(80).collect(),
            });
        }
    }
    match facts.links.get(&name) {
        Some(LinkKind::Tap {
            multi_queue, mtu, ..
        }) => {
            if let Some(queues) = options.queues.filter(|_| !multi_queue) {
                return Err(NetError::TapQueues {
                    id: id.clone(),
                    queues,
                    name,
                });
            }
            let asked = options.mtu.map(u32::from);
            if let (Some(asked), Some(has)) = (asked, mtu) {
                // A virtio card is told to send less than its tap takes; any other takes what the tap takes.
                let fits = asked == has || (model == NicModel::Virtio && asked < has);
                if !fits {
                    return Err(NetError::TapMtu {
                        id: id.clone(),
                        asked,
                        name,
                        has,
                    });
                }
            }
        }
        Some(_) => {
            return Err(NetError::NotATap {
                id: id.clone(),
                name,
            });
        }
        None => new_tap(id, tap, facts)?,
    }
    if !facts.tun.usable {
        return Err(NetError::NoTun {
            id: id.clone(),
            node: facts.tun.path.clone(),
            why: why(&facts.tun),
        });
    }
    let virtio = model == NicModel::Virtio;
    let vhost = match tap.vhost {
        Some(true) if !virtio => return Err(NetError::VhostModel(id.clone())),
        Some(true) if !facts.vhost_net.usable => {
            return Err(NetError::NoVhost {
                id: id.clone(),
                node: facts.vhost_net.path.clone(),
                why: why(&facts.vhost_net),
            });
        }
        Some(asked) => asked,
        None => virtio && facts.vhost_net.usable,
    };
    Ok(NicBackend::Tap {
        name,
        bridge: tap.bridge.clone(),
        address: tap.address.clone(),
        vhost,
    })
}

/// What a tap that mvm makes needs.
fn new_tap(id: &Id, tap: &TapNet, facts: &HostFacts) -> Result<(), NetError> {
    if let Some(bridge) = &tap.bridge {
        if facts.links.get(bridge) != Some(LinkKind::Bridge) {
            return Err(NetError::NoBridge {
                id: id.clone(),
                name: bridge.clone(),
            });
        }
        if tap.address.is_some() {
            return Err(NetError::BridgeAndAddress(id.clone()));
        }
    }
    match &tap.address {
        Some(text) if !is_address(text) => Err(NetError::BadAddress {
            id: id.clone(),
            text: text.chars().take(80).collect(),
        }),
        _ => Ok(()),
    }
}

fn is_address(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else {
        return false;
    };
    let max = match address.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    length.bytes().all(|b| b.is_ascii_digit())
        && length.parse::<u8>().is_ok_and(|length| length <= max)
}

pub(super) fn why(node: &DeviceNode) -> String {
    node.why_not
        .as_ref()
        .map_or_else(|| "it cannot be opened".to_owned(), ToString::to_string)
}

/// The places in the boot order that cards have.
pub(super) fn places(layer: &Layer) -> Vec<u32> {
    let cards = layer.network.iter().flatten();
    let cards = cards.filter(|(_, table)| table.none.is_none());
    cards.filter_map(|(_, table)| table.boot).collect()
}

/// Whether a disk or another card has a card's place in the boot order.
pub(super) fn boot_order(disks: &[super::Disk], nics: &[Nic]) -> Result<(), NetError> {
    let mut places: Vec<(&Id, u32)> = disks
        .iter()
        .filter_map(|disk| Some((&disk.id, disk.boot?)))
        .collect();
    for nic in nics {
        let Some(place) = nic.options.boot else {
            continue;
        };
        if let Some((disk, _)) = places.iter().find(|(_, other)| *other == place) {
            return Err(NetError::BootTwice {
                disk: (*disk).clone(),
                id: nic.id.clone(),
                place,
            });
        }
        places.push((&nic.id, place));
    }
    Ok(())
}

pub(super) fn conflict(first: &Nic, second: &Nic) -> Result<(), NetError> {
    let ids = || (first.id.clone(), second.id.clone());
    if first.mac == second.mac {
        let (first, second_id) = ids();
        return Err(NetError::MacTwice {
            first,
            second: second_id,
            mac: second.mac.clone(),
        });
    }
    match (&first.backend, &second.backend) {
        (NicBackend::Tap { name, .. }, NicBackend::Tap { name: other, .. }) if name == other => {
            let (first, second) = ids();
            Err(NetError::TapTwice {
                first,
                second,
                name: name.clone(),
            })
        }
        (NicBackend::User { forwards: a, .. }, NicBackend::User { forwards: b, .. }) => {
            let same = a.iter().find(|one| b.iter().any(|two| same_port(one, two)));
            same.map_or(Ok(()), |same| {
                let (first, second) = ids();
                Err(NetError::ForwardTwice {
                    first,
                    second,
                    port: same.to_string(),
                })
            })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_as_people_write_them() {
        let shown = |text: &str| forward(text).map(|f| format!("{f} -> {}", f.guest));
        assert_eq!(
            shown("2222:22").as_deref(),
            Some("tcp 127.0.0.1:2222 -> 22")
        );
        assert_eq!(
            shown("udp:5353:53").as_deref(),
            Some("udp 127.0.0.1:5353 -> 53")
        );
        assert_eq!(
            shown("tcp:0.0.0.0:8080:80").as_deref(),
            Some("tcp 0.0.0.0:8080 -> 80")
        );
        for bad in [
            "", "22", "0:22", "+1:22", "65536:1", "a:b", "sctp:1:2", "1:2:3", "::1:1:2", "1:2,x=y",
        ] {
            assert_eq!(forward(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_and_addresses_of_taps() {
        assert!(is_link_name("mvm-tap0"));
        for bad in ["", "sixteen-letters-", "a/b", "a b", "-x", "..", "tap,x"] {
            assert!(!is_link_name(bad), "{bad}");
        }
        assert!(is_address("192.168.77.1/24") && is_address("fd00::1/64"));
        for bad in [
            "192.168.77.1",
            "192.168.77.1/33",
            "x/8",
            "10.0.0.1/+8",
            "10.0.0.1/",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
