//! What few cards have: queues, sizes, a place in the boot order, a slot.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::NetError;
use crate::host::images::{FileKind, Images};
use crate::ids::{Id, PciSlot};
use crate::machine::files::{FileError, find};
use crate::machine::{BoardKind, Bus, ResolveError, VirtioOptions};
use crate::profile::schema::{NetworkTable, NicModel};

/// What few cards have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NicOptions {
    /// How many pairs of queues, where there is more than one.
    pub queues: Option<u32>,
    /// The largest packet.
    pub mtu: Option<u16>,
    /// How many packets a receive queue holds.
    pub rx_queue_size: Option<u16>,
    /// How many packets a send queue holds.
    pub tx_queue_size: Option<u16>,
    /// The place in the boot order.
    pub boot: Option<u32>,
    /// The option ROM.
    pub rom: Option<PathBuf>,
    /// The slot that the profile names.
    pub address: Option<PciSlot>,
    /// How it reaches the guest's memory.
    pub virtio: VirtioOptions,
}

impl NicOptions {
    /// Whether the card has nothing of it.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl NicModel {
    /// Whether it is a card of the time before PCI Express: it wants ports of the x86's I/O space, which those of PCI
    /// Express do not let through, and sits on the root bus.
    pub const fn is_conventional(self) -> bool {
        !matches!(
            self,
            Self::Virtio | Self::E1000 | Self::E1000e | Self::Igb | Self::Vmxnet3
        )
    }
}

/// What the table says beyond the ordinary.
pub(super) fn options(
    id: &Id,
    table: &NetworkTable,
    model: NicModel,
    board: BoardKind,
    images: &Images,
) -> Result<NicOptions, ResolveError> {
    let virtio = VirtioOptions {
        iommu: table.iommu,
        ats: table.ats,
        packed: table.packed,
    };
    let keys = [
        ("queues", table.queues.is_some()),
        ("rx-queue-size", table.rx_queue_size.is_some()),
        ("tx-queue-size", table.tx_queue_size.is_some()),
    ];
    let said = keys.into_iter().find_map(|(key, said)| said.then_some(key));
    let said = said.or_else(|| virtio.said());
    if let Some(key) = said.filter(|_| model != NicModel::Virtio) {
        let id = id.clone();
        return Err(NetError::VirtioOnly { id, key, model }.into());
    }
    if board.bus() == Bus::Mmio {
        let keys = [
            ("rom", table.rom.is_some()),
            ("address", table.address.is_some()),
        ];
        if let Some((key, _)) = keys.into_iter().find(|(_, said)| *said) {
            let id = id.clone();
            return Err(NetError::NoPci { id, key, board }.into());
        }
    }
    if table.queues.is_some_and(|queues| queues > 1) && table.user.is_some() {
        return Err(NetError::OneQueue(id.clone()).into());
    }
    let power = |size: u16, most| size.is_power_of_two() && (256..=most).contains(&size);
    // QEMU's user networking and the kernel's tap take what fits one ring of the old kind.
    let most = if table.vhost_user.is_some() {
        1024
    } else {
        256
    };
    for (key, value, fits, rule) in [
        (
            "queues",
            table.queues,
            table
                .queues
                .is_none_or(|queues| (1..=256).contains(&queues)),
            "a card has 1 to 256",
        ),
        (
            "mtu",
            table.mtu.map(u32::from),
            table.mtu.is_none_or(|mtu| mtu >= 68),
            "IP needs at least 68 bytes",
        ),
        (
            "rx-queue-size",
            table.rx_queue_size.map(u32::from),
            table.rx_queue_size.is_none_or(|size| power(size, 1024)),
            "powers of two from 256 to 1024 are possible",
        ),
        (
            "tx-queue-size",
            table.tx_queue_size.map(u32::from),
            table.tx_queue_size.is_none_or(|size| power(size, most)),
            "256 is possible, with `vhost-user` 512 and 1024 too",
        ),
        (
            "boot",
            table.boot,
            table.boot != Some(0),
            "the first place is 1",
        ),
    ] {
        if let Some(value) = value.filter(|_| !fits) {
            let id = id.clone();
            return Err(NetError::Number {
                id,
                key,
                value,
                rule,
            }
            .into());
        }
    }
    if let (Some(_), true, None) = (table.mtu, model != NicModel::Virtio, &table.tap) {
        return Err(NetError::NobodyTold(id.clone()).into());
    }
    Ok(NicOptions {
        queues: table.queues.filter(|queues| *queues > 1),
        mtu: table.mtu,
        rx_queue_size: table.rx_queue_size,
        tx_queue_size: table.tx_queue_size,
        boot: table.boot,
        rom: match &table.rom {
            Some(text) => Some(rom(id, text, images)?),
            None => None,
        },
        address: table.address,
        virtio,
    })
}

fn rom(id: &Id, text: &str, images: &Images) -> Result<PathBuf, FileError> {
    let what = format!("the option ROM of network `{id}`");
    let facts = find(images, &what, text, || None)?;
    match facts.kind {
        FileKind::File => Ok(facts.path.clone()),
        _ => Err(FileError::WrongKind {
            what,
            path: facts.path.clone(),
            expected: "a regular file",
        }),
    }
}
