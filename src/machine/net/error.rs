//! What can be wrong with a network card.

use crate::error::{ExitCode, Hint};
use crate::ids::{Id, MacAddr};
use crate::machine::BoardKind;
use crate::profile::schema::NicModel;

/// A network card that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// An address of QEMU's own network that is none.
    #[error("network `{id}`: `user.{key}` is {text:?}; expected {expected}")]
    BadUserAddress {
        /// The card.
        id: Id,
        /// The key.
        key: &'static str,
        /// What it says.
        text: String,
        /// What would do.
        expected: &'static str,
    },
    /// Nowhere to send packets.
    #[error("network `{0}` says neither `user` nor `tap` nor `vhost-user` nor `none`")]
    NoBackend(Id),
    /// Two places to send packets.
    #[error("network `{0}` says two of `user`, `tap` and `vhost-user`; it is one of them")]
    TwoBackends(Id),
    /// A port forward that cannot be read.
    #[error(
        "network `{id}`: {text:?} is not a port forward (expected `2222:22`, `udp:5353:53` or `127.0.0.1:8080:80`)"
    )]
    BadForward {
        /// The network.
        id: Id,
        /// The text.
        text: String,
    },
    /// One port, two forwards.
    #[error("networks `{first}` and `{second}` both forward the host's port {port}")]
    ForwardTwice {
        /// The one.
        first: Id,
        /// The other.
        second: Id,
        /// The port, as in `tcp 127.0.0.1:2222`.
        port: String,
    },
    /// Not a name that the kernel takes.
    #[error(
        "network `{id}`: {name:?} is not a network device's name (1 to 15 letters, digits, `-`, `_`, `.`)"
    )]
    BadLinkName {
        /// The network.
        id: Id,
        /// The name.
        name: String,
    },
    /// The tap has no name.
    #[error("network `{0}`: `tap` names no device")]
    NoTapName(Id),
    /// The name is taken by something else.
    #[error("network `{id}`: {name} exists on the host and is not a tap device")]
    NotATap {
        /// The network.
        id: Id,
        /// The name.
        name: String,
    },
    /// The bridge is not one, or not there.
    #[error("network `{id}`: there is no bridge {name} on the host")]
    NoBridge {
        /// The network.
        id: Id,
        /// The bridge.
        name: String,
    },
    /// Not an address with prefix length.
    #[error(
        "network `{id}`: {text:?} is not an address with prefix length (expected one as in `192.168.77.1/24`)"
    )]
    BadAddress {
        /// The network.
        id: Id,
        /// The text.
        text: String,
    },
    /// A bridge's port has no address of its own.
    #[error("network `{0}`: a tap that joins a bridge has no address of its own")]
    BridgeAndAddress(Id),
    /// The host cannot make taps.
    #[error("network `{id}`: taps cannot be had here: {node}: {why}")]
    NoTun {
        /// The network.
        id: Id,
        /// The device node.
        node: String,
        /// What is in the way.
        why: String,
    },
    /// vhost was asked for and is not there.
    #[error("network `{id}`: `vhost = true`, and {node} cannot be used: {why}")]
    NoVhost {
        /// The network.
        id: Id,
        /// The device node.
        node: String,
        /// What is in the way.
        why: String,
    },
    /// vhost is for virtio.
    #[error("network `{0}`: vhost is for the model virtio")]
    VhostModel(Id),
    /// One tap, two cards.
    #[error("networks `{first}` and `{second}` both use the tap {name}")]
    TapTwice {
        /// The one.
        first: Id,
        /// The other.
        second: Id,
        /// The tap.
        name: String,
    },
    /// One address, two cards.
    #[error("networks `{first}` and `{second}` have the same address {mac}")]
    MacTwice {
        /// The one.
        first: Id,
        /// The other.
        second: Id,
        /// The address.
        mac: MacAddr,
    },
    /// A key that this model has no use for.
    #[error("network `{id}`: `{key}` is for the model virtio, and it is {model}")]
    VirtioOnly {
        /// The network.
        id: Id,
        /// The key.
        key: &'static str,
        /// The model.
        model: NicModel,
    },
    /// A key that needs a PCI bus.
    #[error("network `{id}`: `{key}` is about a PCI card, and the board {board} has no PCI")]
    NoPci {
        /// The network.
        id: Id,
        /// The key.
        key: &'static str,
        /// The board.
        board: BoardKind,
    },
    /// QEMU's NAT is one thread.
    #[error("network `{0}`: `queues` is for `tap` and `vhost-user`; QEMU's own NAT has one")]
    OneQueue(Id),
    /// A number that the card or the network refuses.
    #[error("network `{id}`: `{key}` is {value}; {rule}")]
    Number {
        /// The network.
        id: Id,
        /// The key.
        key: &'static str,
        /// What it is.
        value: u32,
        /// What it may be.
        rule: &'static str,
    },
    /// Neither the guest nor a tap would know of it.
    #[error(
        "network `{0}`: `mtu` is told to virtio cards and set on taps that mvm makes, and this is neither"
    )]
    NobodyTold(Id),
    /// A tap that is there and has another MTU.
    #[error("network `{id}`: `mtu = {asked}`, and the tap {name}, which is there, has {has}")]
    TapMtu {
        /// The network.
        id: Id,
        /// What was asked for.
        asked: u32,
        /// The tap.
        name: String,
        /// What it has.
        has: u32,
    },
    /// A tap that has one queue.
    #[error("network `{id}`: `queues = {queues}`, and the tap {name} was made with one queue")]
    TapQueues {
        /// The network.
        id: Id,
        /// How many were asked for.
        queues: u32,
        /// The tap.
        name: String,
    },
    /// vhost-user without a socket, or with one that has no fixed place.
    #[error("network `{id}`: `vhost-user.socket` is {text:?}, not the absolute path of a socket")]
    BadSocket {
        /// The network.
        id: Id,
        /// The text.
        text: String,
    },
    /// A place in the boot order that a disk has.
    #[error("disk `{disk}` and network `{id}` both have place {place} in the boot order")]
    BootTwice {
        /// The disk or the other card.
        disk: Id,
        /// The network.
        id: Id,
        /// The place.
        place: u32,
    },
    /// A model that the board cannot have.
    #[error("network `{id}`: the board {board} has no {model}, only virtio")]
    NoModel {
        /// The network.
        id: Id,
        /// The model.
        model: NicModel,
        /// The board.
        board: BoardKind,
    },
}

impl Hint for NetError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::NoBackend(id) | Self::TwoBackends(id) => vec![format!(
                "`[network.{id}.user]` is QEMU's own NAT, `[network.{id}.tap]` a device of the host"
            )],
            Self::NoBridge { name, .. } => vec![format!(
                "`ip link add {name} type bridge` makes one, `ip link set {name} up` starts it"
            )],
            Self::TapMtu { asked, name, .. } => {
                vec![format!("`ip link set {name} mtu {asked}` changes it")]
            }
            Self::TapQueues { name, .. } => vec![format!(
                "`ip tuntap add dev {name} mode tap vnet_hdr multi_queue` makes one with more"
            )],
            Self::NoTun { .. } => vec!["`mvm doctor` says how to get them".to_owned()],
            Self::NoVhost { .. } => vec![
                "`mvm doctor` says how to get it; without `vhost` it is used where the host has it"
                    .to_owned(),
            ],
            _ => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::NotATap { .. }
            | Self::TapMtu { .. }
            | Self::TapQueues { .. }
            | Self::NoBridge { .. }
            | Self::NoTun { .. }
            | Self::NoVhost { .. } => ExitCode::Host,
            _ => ExitCode::Profile,
        }
    }
}
