//! What of the host only one port of one guest can have.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use super::End;

/// What of the host only one port of one guest can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exclusive<'a> {
    /// A file, device or socket.
    Path(&'a Path),
    /// A port of an address, where connections or packets arrive.
    Port {
        /// UDP rather than TCP.
        udp: bool,
        /// The address or name.
        address: &'a str,
        /// The port.
        port: u16,
    },
}

impl<'a> Exclusive<'a> {
    /// What that end has for itself.
    pub fn of(end: &'a End) -> Option<Self> {
        match end {
            End::Host(path) | End::File { path, .. } => Some(Self::Path(path)),
            End::Unix {
                path, listen: true, ..
            } => Some(Self::Path(path)),
            End::Tcp {
                address,
                port,
                listen: true,
                ..
            } => Some(Self::Port {
                udp: false,
                address,
                port: *port,
            }),
            End::Udp {
                local_address,
                local_port: Some(port),
                ..
            } => Some(Self::Port {
                udp: true,
                address: local_address,
                port: *port,
            }),
            End::Pty | End::Null | End::Unix { .. } | End::Tcp { .. } | End::Udp { .. } => None,
        }
    }

    /// Whether only one of the two can be had.
    pub fn meets(&self, other: &Exclusive) -> bool {
        match (self, other) {
            (Self::Path(one), Exclusive::Path(other)) => one == other,
            (
                Self::Port { udp, address, port },
                Exclusive::Port {
                    udp: other_udp,
                    address: other,
                    port: other_port,
                },
            ) => {
                let (one, other) = (Address::of(address), Address::of(other));
                let same = one == other || one.covers(&other) || other.covers(&one);
                (udp, port) == (other_udp, other_port) && same
            }
            (Self::Path(_), Exclusive::Port { .. }) | (Self::Port { .. }, Exclusive::Path(_)) => {
                false
            }
        }
    }
}

impl fmt::Display for Exclusive<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Port { udp, address, port } => {
                let protocol = if *udp { "UDP" } else { "TCP" };
                match (Address::of(address), address.contains(':')) {
                    (Address::Any | Address::AnyOf4, _) => write!(f, "the {protocol} port {port}"),
                    (_, true) => write!(f, "the {protocol} port [{address}]:{port}"),
                    (_, false) => write!(f, "the {protocol} port {address}:{port}"),
                }
            }
        }
    }
}

/// Where connections arrive.
#[derive(Debug, PartialEq, Eq)]
enum Address<'a> {
    /// Every address; that of IPv6 takes those of IPv4 as well.
    Any,
    /// Every one of IPv4.
    AnyOf4,
    One(IpAddr),
    /// A name, which is not looked up.
    Name(&'a str),
}

impl<'a> Address<'a> {
    /// Whether what arrives there can arrive here.
    fn covers(&self, other: &Address) -> bool {
        match self {
            Self::Any => true,
            // A name may be one of IPv4.
            Self::AnyOf4 => !matches!(other, Address::One(IpAddr::V6(_))),
            Self::One(_) | Self::Name(_) => false,
        }
    }

    fn of(text: &'a str) -> Self {
        match text {
            "" => return Self::Any,
            "localhost" => return Self::One(IpAddr::from([127, 0, 0, 1])),
            _ => {}
        }
        match text.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => Self::AnyOf4,
            Ok(address) if address.is_unspecified() => Self::Any,
            Ok(address) => Self::One(address),
            Err(_) => Self::Name(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_meet_where_their_addresses_do() {
        let tcp = |address, port| Exclusive::Port {
            udp: false,
            address,
            port,
        };
        let meets = |one, other| tcp(one, 5000).meets(&tcp(other, 5000));
        assert!(meets("127.0.0.1", "127.0.0.1"));
        assert!(meets("127.0.0.1", "0.0.0.0") && meets("::", "127.0.0.1") && meets("", "::1"));
        assert!(meets("0.0.0.0", "::") && !meets("0.0.0.0", "::1") && meets("host", "0.0.0.0"));
        assert!(meets("localhost", "127.0.0.1") && meets("[::1]", "::1"));
        assert!(!meets("127.0.0.1", "127.0.0.2") && !meets("::1", "127.0.0.1"));
        assert!(!tcp("", 1).meets(&tcp("", 2)));
        let udp = Exclusive::Port {
            udp: true,
            address: "",
            port: 5000,
        };
        assert!(!udp.meets(&tcp("", 5000)));
        assert!(!udp.meets(&Exclusive::Path(Path::new("/dev/ttyS0"))));
        let told = |address| tcp(address, 5000).to_string();
        assert_eq!(told("0.0.0.0"), "the TCP port 5000");
        assert_eq!(told("::1"), "the TCP port [::1]:5000");
        assert_eq!(told("localhost"), "the TCP port localhost:5000");
    }
}
