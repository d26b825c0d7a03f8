//! The addresses of QEMU's own network.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::NetError;
use crate::ids::Id;
use crate::profile::schema::UserNet;

/// The network and the addresses in it, where they are not QEMU's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Addresses {
    /// The network, as in `192.168.122.0/24`.
    pub subnet: Option<String>,
    /// The host's address.
    pub gateway: Option<Ipv4Addr>,
    /// The guest's address.
    pub guest: Option<Ipv4Addr>,
}

/// QEMU's network where the profile names none (`net_slirp_init`).
const DEFAULT: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 0, 2, 0), 24);

pub(super) fn of(id: &Id, user: &UserNet) -> Result<Addresses, NetError> {
    let bad = |key: &'static str, text: &str, expected: &'static str| NetError::BadUserAddress {
        id: id.clone(),
        key,
        text: text.chars().take(80).collect(),
        expected,
    };
    let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let subnet = said(&user.subnet);
    let (network, length) = match &subnet {
        None => DEFAULT,
        Some(text) => subnet_of(text)
            .ok_or_else(|| bad("subnet", text, "a network as in 192.168.122.0/24"))?,
    };
    let mask = u32::MAX << (32 - u32::from(length));
    let within = |key, text: Option<String>| -> Result<Option<Ipv4Addr>, NetError> {
        let Some(text) = text else { return Ok(None) };
        let address = text.parse::<Ipv4Addr>().ok().filter(|address| {
            let bits = address.to_bits();
            bits & mask == network.to_bits() && bits & !mask != 0 && bits | mask != u32::MAX
        });
        address
            .map(Some)
            .ok_or_else(|| bad(key, &text, "an address of a machine in its network"))
    };
    let found = Addresses {
        gateway: within("gateway", said(&user.gateway))?,
        guest: within("address", said(&user.address))?,
        subnet,
    };
    match (found.gateway, found.guest) {
        (Some(gateway), Some(guest)) if gateway == guest => Err(bad(
            "address",
            &guest.to_string(),
            "another than the host's",
        )),
        _ => Ok(found),
    }
}

/// A network: nothing is set behind its prefix, and it has room for the four machines of QEMU's.
fn subnet_of(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (network, length) = text.split_once('/')?;
    let network: Ipv4Addr = network.parse().ok()?;
    let digits = length.bytes().all(|b| b.is_ascii_digit());
    let length: u8 = length
        .parse()
        .ok()
        .filter(|length| digits && (4..=28).contains(length))?;
    let mask = u32::MAX << (32 - u32::from(length));
    (network.to_bits() & !mask == 0).then_some((network, length))
}

#[cfg(test)]
mod tests {
    use crate::machine::testing::machine;

    #[test]
    fn addresses_lie_in_their_network() {
        let told = |text: &str| match machine(&format!("[network.lan]\nuser = {{ {text} }}")) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        let good =
            "subnet = '192.168.122.0/24', gateway = '192.168.122.1', address = '192.168.122.11'";
        assert_eq!(told(good), "");
        assert_eq!(told("address = '10.0.2.77'"), "");
        for (text, expected) in [
            ("subnet = '192.168.122.1/24'", "a network as in"),
            ("subnet = '192.168.122.0'", "a network as in"),
            ("address = '10.0.3.1'", "an address of a machine"),
            ("address = '10.0.2.255'", "an address of a machine"),
            ("gateway = '10.0.2.0'", "an address of a machine"),
            ("gateway = '10.0.2.9', address = '10.0.2.9'", "another than"),
        ] {
            let said = told(text);
            assert!(said.contains(expected), "{text}: {said}");
        }
    }
}
