//! Which addresses the host has seen behind which MAC: its neighbour table, and what DHCP servers on it lent.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;

/// An address that the host knows of a MAC.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Sighting {
    /// The MAC, in small letters.
    pub mac: String,
    /// The address.
    pub address: String,
    /// Where the host has it from.
    pub from: Origin,
}

/// Where an address is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The kernel's neighbour table: it was talked to.
    Neighbour,
    /// A DHCP server's lease: it may have left since.
    Lease,
}

impl Origin {
    /// As it is shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Neighbour => "neighbour",
            Self::Lease => "lease",
        }
    }
}

/// Everything that is known, each address once: what the kernel has seen goes before what was lent.
pub fn sightings(root: &Path) -> Vec<Sighting> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    let mut all = arp(&read(&root.join("proc/net/arp")));
    for path in lease_files(root) {
        let text = read(&path);
        let is_json = path.extension().is_some_and(|kind| kind == "status");
        all.extend(if is_json {
            status(&text, now)
        } else {
            leases(&text, now)
        });
    }
    let mut known = BTreeSet::new();
    all.retain(|seen| known.insert((seen.mac.clone(), seen.address.clone())));
    all
}

/// A file, as far as it may be read.
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Where dnsmasq keeps its leases, by itself and under libvirt and NetworkManager.
fn lease_files(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in [
        "var/lib/misc",
        "var/lib/dnsmasq",
        "var/lib/libvirt/dnsmasq",
        "var/lib/NetworkManager",
    ] {
        let entries = fs::read_dir(root.join(folder)).into_iter().flatten();
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".leases") || name.ends_with(".status") {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    files
}

fn sighting(mac: &str, address: &str, from: Origin) -> Sighting {
    Sighting {
        mac: mac.to_ascii_lowercase(),
        address: address.to_owned(),
        from,
    }
}

/// `/proc/net/arp`: address, type, flags, MAC, mask, device. Without a flag the entry is not complete.
fn arp(text: &str) -> Vec<Sighting> {
    let lines = text.lines().skip(1).map(str::split_whitespace);
    let entries = lines.filter_map(|mut words| {
        let address = words.next()?;
        let flags = words.nth(1)?.trim_start_matches("0x");
        let mac = words.next()?;
        let complete = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & 2 != 0);
        complete.then(|| sighting(mac, address, Origin::Neighbour))
    });
    entries.collect()
}

/// dnsmasq's own file: until when (0: for ever), MAC, address, name, client id. A line `duid …` begins the
/// leases of IPv6, which have no MAC.
fn leases(text: &str, now: u64) -> Vec<Sighting> {
    let lines = text.lines().take_while(|line| !line.starts_with("duid"));
    let leases = lines.map(str::split_whitespace).filter_map(|mut words| {
        let until: u64 = words.next()?.parse().ok()?;
        let (mac, address) = (words.next()?, words.next()?);
        (until == 0 || until > now).then(|| sighting(mac, address, Origin::Lease))
    });
    leases.collect()
}

/// What libvirt's helper writes for dnsmasq.
fn status(text: &str, now: u64) -> Vec<Sighting> {
    let list: Value = serde_json::from_str(text).unwrap_or_default();
    let leases = list.as_array().into_iter().flatten().filter_map(|lease| {
        let until = lease["expiry-time"].as_u64()?;
        let (mac, address) = (
            lease["mac-address"].as_str()?,
            lease["ip-address"].as_str()?,
        );
        (until == 0 || until > now).then(|| sighting(mac, address, Origin::Lease))
    });
    leases.collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_knowledge_is_read_from_where_it_is() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(sightings(root.path()), []);
        write(
            "proc/net/arp",
            "IP address       HW type     Flags       HW address            Mask     Device\n\
             192.168.7.5      0x1         0x2         52:54:00:AA:bb:01     *        br0\n\
             192.168.7.6      0x1         0x0         00:00:00:00:00:00     *        br0\n\
             192.168.7.7      0x1         0x6         52:54:00:aa:bb:02     *        br0\n",
        );
        write(
            "var/lib/misc/dnsmasq.leases",
            "4102444800 52:54:00:aa:bb:01 192.168.7.5 web *\n\
             0 52:54:00:aa:bb:03 192.168.7.8 * *\n\
             1000 52:54:00:aa:bb:04 192.168.7.9 old *\n\
             duid 00:01\n4102444800 1 fd00::5 web 00:01\n",
        );
        write(
            "var/lib/libvirt/dnsmasq/virbr0.status",
            r#"[{"ip-address": "192.168.122.9", "mac-address": "52:54:00:aa:bb:05", "expiry-time": 4102444800},
                {"ip-address": "192.168.122.8", "mac-address": "52:54:00:aa:bb:06", "expiry-time": 1}]"#,
        );
        let seen = sightings(root.path());
        let told: Vec<String> = seen
            .iter()
            .map(|s| format!("{} {} {}", &s.mac[15..], s.address, s.from.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                "01 192.168.7.5 neighbour",
                "02 192.168.7.7 neighbour",
                "05 192.168.122.9 lease",
                "03 192.168.7.8 lease",
            ]
        );
    }
}
