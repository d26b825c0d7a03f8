//! The addresses that a guest has, as its agent tells them.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::{CallError, Inside};

/// One network interface of a guest; a contract with scripts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Interface {
    /// Its name in the guest; for what only the host knows, the name of the network card in the profile.
    pub name: String,
    /// Its MAC, in small letters.
    pub mac: Option<String>,
    /// Its addresses.
    pub addresses: Vec<Address>,
}

/// An address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Address {
    /// The address.
    pub address: String,
    /// The length of its network's prefix.
    pub prefix: Option<u64>,
    /// Who says so: `agent`, `neighbour` or `lease`.
    pub from: &'static str,
}

impl Interface {
    /// Whether it leads nowhere but to the guest itself.
    pub fn is_loopback(&self) -> bool {
        let local =
            |address: &Address| address.address.starts_with("127.") || address.address == "::1";
        !self.addresses.is_empty() && self.addresses.iter().all(local)
    }
}

/// Asks the agent.
///
/// # Errors
/// As the agent fails.
pub async fn interfaces(
    inside: &mut impl Inside,
    within: Duration,
) -> Result<Vec<Interface>, CallError> {
    let command = "guest-network-get-interfaces";
    let answer = inside.call(command, Value::Null, within).await?;
    Ok(read(&answer))
}

fn read(answer: &Value) -> Vec<Interface> {
    let entries = answer.as_array().into_iter().flatten();
    entries.map(interface).collect()
}

fn interface(entry: &Value) -> Interface {
    let addresses = entry["ip-addresses"].as_array().into_iter().flatten();
    let addresses = addresses.filter_map(|address| {
        Some(Address {
            address: address["ip-address"].as_str()?.to_owned(),
            prefix: address["prefix"].as_u64(),
            from: "agent",
        })
    });
    Interface {
        name: entry["name"].as_str().unwrap_or_default().to_owned(),
        mac: entry["hardware-address"]
            .as_str()
            .map(str::to_ascii_lowercase),
        addresses: addresses.collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_agents_list_is_read() {
        let list = read(&json!([
            {"name": "lo", "hardware-address": "00:00:00:00:00:00", "ip-addresses": [
                {"ip-address-type": "ipv4", "ip-address": "127.0.0.1", "prefix": 8},
                {"ip-address-type": "ipv6", "ip-address": "::1", "prefix": 128}]},
            {"name": "eth0", "hardware-address": "52:54:00:AA:00:01", "ip-addresses": [
                {"ip-address-type": "ipv4", "ip-address": "10.0.2.15", "prefix": 24}]},
            {"name": "sit0"}
        ]));
        let loopback: Vec<bool> = list.iter().map(Interface::is_loopback).collect();
        assert_eq!(loopback, [true, false, false]);
        assert_eq!(list[1].mac.as_deref(), Some("52:54:00:aa:00:01"));
        assert_eq!(
            (list[1].addresses[0].prefix, list[2].addresses.len()),
            (Some(24), 0)
        );
    }
}
