//! Network cards.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NicModel, NoDevice};
use crate::ids::{MacAddr, PciSlot};

table! {
    /// `[network.NAME]`: exactly one of `user`, `tap`, `vhost-user` and `none`.
    NetworkTable {
        /// QEMU's own NAT: no rights needed, the guest reaches out, forwards reach in.
        user: UserNet,
        /// A tap device of the host.
        tap: TapNet,
        /// Another program of the host that takes the guest's packets out of its memory (`virtio`).
        vhost_user: VhostUserNet,
        /// No card: takes away one that a lower layer gave, as in `none = {}`.
        none: NoDevice,
        /// What the guest sees. By default `virtio`.
        model: NicModel,
        /// The card's address. By default one derived from the guest's and the card's name.
        mac: MacAddr,
        /// How many pairs of queues the card has (`virtio` on `tap` or `vhost-user`). By default 1.
        queues: u32,
        /// The largest packet, in bytes: the guest is told so (`virtio`), and a tap that mvm makes has it.
        mtu: u16,
        /// How many packets a receive queue holds: a power of two from 256 to 1024 (`virtio`). By default 256.
        rx_queue_size: u16,
        /// How many packets a send queue holds (`virtio`): 256, with `vhost-user` up to 1024.
        tx_queue_size: u16,
        /// The place in the boot order, 1 first; disks and cards share it. By default the guest does not boot
        /// from the card.
        boot: u32,
        /// An image that the guest sees as the card's option ROM. By default none, but for a card to boot from
        /// QEMU's own.
        rom: String,
        /// The slot of the guest's root bus, as in `0x10` or `0x10.1`, rather than the one that mvm chooses.
        address: PciSlot,
        /// The card's memory accesses go through the guest's IOMMU (`virtio`). By default so where `[iommu]`
        /// gives it one.
        iommu: bool,
        /// The card keeps translations of the IOMMU itself (`virtio`). Off by default.
        ats: bool,
        /// Packed queues (`virtio`). Off by default.
        packed: bool,
    }
}

table! {
    /// `network.NAME.user`
    UserNet {
        /// Host ports that lead into the guest: `2222:22`, `udp:5353:53` or `127.0.0.1:8080:80`.
        /// They listen on 127.0.0.1 unless an address is given.
        forward: Vec<String>,
        /// The network that the guest is in, with the length of its prefix. By default `10.0.2.0/24`.
        subnet: String,
        /// The host's address in it. By default its second.
        gateway: String,
        /// The guest's address in it, which it gets by DHCP. By default its fifteenth.
        address: String,
        /// The guest reaches the host and its forwards, and nothing beyond.
        restrict: bool,
    }
}

table! {
    /// `network.NAME.tap`
    TapNet {
        /// The device's name on the host, at most 15 bytes. One that exists is used and left; one that
        /// does not is made for the guest and removed after it.
        name: String,
        /// A bridge that a tap made by mvm joins.
        bridge: String,
        /// An address with prefix length that a tap made by mvm gets on the host, as in `192.168.77.1/24`.
        address: String,
        /// Packets go through the kernel's vhost-net. By default where the host has it.
        vhost: bool,
    }
}

table! {
    /// `network.NAME.vhost-user`
    VhostUserNet {
        /// The path of the Unix socket.
        socket: String,
        /// The guest's end listens, and its start waits for the other program. By default it connects.
        server: bool,
    }
}
