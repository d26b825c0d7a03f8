//! Network devices of the host, as far as guests connect to them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::sysfs::Sysfs;

/// The network devices by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LinkFacts(pub BTreeMap<String, LinkKind>);

/// What a network device is to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkKind {
    /// A tap: packets as Ethernet frames. `vnet_hdr`: it passes virtio-net's headers along.
    Tap {
        /// Whether it was made with `IFF_VNET_HDR`.
        vnet_hdr: bool,
        /// Whether it was made with `IFF_MULTI_QUEUE`.
        #[serde(default)]
        multi_queue: bool,
        /// The largest packet, in bytes.
        #[serde(default)]
        mtu: Option<u32>,
    },
    /// A bridge.
    Bridge,
    /// Anything else.
    Other,
}

/// `IFF_TAP`, `IFF_MULTI_QUEUE` and `IFF_VNET_HDR` of `linux/if_tun.h`.
const IFF_TAP: u64 = 0x2;
const IFF_MULTI_QUEUE: u64 = 0x100;
const IFF_VNET_HDR: u64 = 0x4000;

impl LinkFacts {
    /// Reads `/sys/class/net` of this process's network namespace.
    pub fn read(sysfs: &Sysfs) -> Self {
        // Without the folder (a container that hides it) no device is known; making a tap then says
        // itself that the name is taken.
        let names = sysfs.list("class/net").unwrap_or_default();
        let kind = |name: &str| {
            if let Ok(flags) = sysfs.read_u64(format!("class/net/{name}/tun_flags")) {
                return if flags & IFF_TAP != 0 {
                    LinkKind::Tap {
                        vnet_hdr: flags & IFF_VNET_HDR != 0,
                        multi_queue: flags & IFF_MULTI_QUEUE != 0,
                        mtu: sysfs
                            .read_u64(format!("class/net/{name}/mtu"))
                            .ok()
                            .and_then(|mtu| mtu.try_into().ok()),
                    }
                } else {
                    LinkKind::Other
                };
            }
            if sysfs.exists(format!("class/net/{name}/bridge")) {
                LinkKind::Bridge
            } else {
                LinkKind::Other
            }
        };
        Self(
            names
                .into_iter()
                // Files that are no devices: `bonding_masters`.
                .filter(|name| sysfs.exists(format!("class/net/{name}/ifindex")))
                .map(|name| {
                    let kind = kind(&name);
                    (name, kind)
                })
                .collect(),
        )
    }

    /// What the device of that name is; `None` where there is none.
    pub fn get(&self, name: &str) -> Option<LinkKind> {
        self.0.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use super::*;

    #[test]
    fn taps_and_bridges_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let net = dir.path().join("class/net");
        for (device, file, text) in [
            ("tap0", "tun_flags", "0x5102\n"),
            ("tap0", "mtu", "9000\n"),
            ("tap1", "tun_flags", "0x1002\n"),
            ("tun0", "tun_flags", "0x1001\n"),
            ("br0", "bridge/forward_delay", "0\n"),
            ("eth0", "address", "52:54:00:00:00:01\n"),
        ] {
            let path = net.join(device).join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
            std::fs::write(net.join(device).join("ifindex"), "1\n").unwrap();
        }
        std::fs::write(net.join("bonding_masters"), "").unwrap();

        let links = LinkFacts::read(&Sysfs::at(dir.path()));

        let tap = |both| LinkKind::Tap {
            vnet_hdr: both,
            multi_queue: both,
            mtu: both.then_some(9000),
        };
        assert_eq!(links.get("tap0"), Some(tap(true)));
        assert_eq!(links.get("tap1"), Some(tap(false)));
        assert_eq!(links.get("tun0"), Some(LinkKind::Other));
        assert_eq!(links.get("br0"), Some(LinkKind::Bridge));
        assert_eq!(links.get("eth0"), Some(LinkKind::Other));
        assert_eq!(links.0.len(), 5);
    }
}
