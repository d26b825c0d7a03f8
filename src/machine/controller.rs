//! Controllers of disks, the threads that do their work, and what virtio devices have in common.

use serde::{Deserialize, Serialize};

use super::{BoardKind, Bus};
use crate::error::{ExitCode, Hint};
use crate::ids::{Id, PciSlot};
use crate::profile::schema::{ControllerKind, ControllerModel, ControllerTable, Layer};

/// How virtio devices reach the guest's memory, where the profile says it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VirtioOptions {
    /// Through the guest's IOMMU.
    pub iommu: Option<bool>,
    /// With translations of its own.
    pub ats: Option<bool>,
    /// With packed queues.
    pub packed: Option<bool>,
}

impl VirtioOptions {
    /// The first key that is said.
    pub(super) fn said(&self) -> Option<&'static str> {
        let keys = [
            ("iommu", self.iommu),
            ("ats", self.ats),
            ("packed", self.packed),
        ];
        keys.into_iter().find_map(|(key, said)| said.map(|_| key))
    }
}

/// A controller of disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controller {
    /// Its name.
    pub id: Id,
    /// What sits on it.
    pub kind: ControllerKind,
    /// Which one the guest sees.
    pub model: ControllerModel,
    /// How many request queues it has.
    pub queues: Option<u32>,
    /// How many requests a queue holds.
    pub queue_size: Option<u32>,
    /// How many sectors a request may have.
    pub max_sectors: Option<u32>,
    /// The thread that does its work.
    pub iothread: Option<Id>,
    /// The slot that the profile names.
    pub address: Option<PciSlot>,
    /// How it reaches the guest's memory.
    pub virtio: VirtioOptions,
}

impl Controller {
    /// How many disks it takes.
    pub const fn targets(&self) -> usize {
        match self.model {
            ControllerModel::Virtio => 255,
            // Target 7 is the controller itself.
            ControllerModel::Lsi53c895a | ControllerModel::Am53c974 => 7,
            ControllerModel::Mptsas1068 => 8,
            ControllerModel::Megasas => 128,
            ControllerModel::Pvscsi => 64,
        }
    }
}

/// A controller that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControllerError {
    /// A key that this model has no use for.
    #[error("controller `{id}`: `{key}` is for the model virtio, and it is {model}")]
    VirtioOnly {
        /// The controller.
        id: Id,
        /// The key.
        key: &'static str,
        /// The model.
        model: ControllerModel,
    },
    /// A model without a bus for it.
    #[error("controller `{id}`: the board {board} has no PCI, which {model} needs")]
    NoPci {
        /// The controller.
        id: Id,
        /// The model.
        model: ControllerModel,
        /// The board.
        board: BoardKind,
    },
    /// A slot without a bus that has slots.
    #[error("controller `{id}`: `address` is a slot of a PCI bus, and the board {board} has none")]
    NoSlots {
        /// The controller.
        id: Id,
        /// The board.
        board: BoardKind,
    },
    /// A number that the device refuses.
    #[error("controller `{id}`: `{key}` is {value}; {rule}")]
    Number {
        /// The controller.
        id: Id,
        /// The key.
        key: &'static str,
        /// What it is.
        value: u32,
        /// What it may be.
        rule: &'static str,
    },
    /// A thread that is not there.
    #[error("controller `{id}`: there is no `[iothread.{iothread}]`")]
    NoIothread {
        /// The controller.
        id: Id,
        /// The thread.
        iothread: Id,
    },
}

impl Hint for ControllerError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::NoIothread { iothread, .. } => {
                vec![format!("`[iothread.{iothread}]` alone makes one")]
            }
            _ => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Profile
    }
}

/// The threads, in the order of their names.
pub(super) fn iothreads(layer: &Layer) -> Vec<Id> {
    let tables = layer.iothread.iter().flatten();
    tables
        .filter(|(_, table)| table.enabled != Some(false))
        .map(|(id, _)| id.clone())
        .collect()
}

/// The controllers, in the order of their names.
pub(super) fn controllers(
    layer: &Layer,
    board: BoardKind,
    iothreads: &[Id],
) -> Result<Vec<Controller>, ControllerError> {
    let tables = layer.controller.iter().flatten();
    tables
        .filter(|(_, table)| table.enabled != Some(false))
        .map(|(id, table)| controller(id, table, board, iothreads))
        .collect()
}

fn controller(
    id: &Id,
    table: &ControllerTable,
    board: BoardKind,
    iothreads: &[Id],
) -> Result<Controller, ControllerError> {
    let model = table.model.unwrap_or(ControllerModel::Virtio);
    let id = || id.clone();
    let virtio = VirtioOptions {
        iommu: table.iommu,
        ats: table.ats,
        packed: table.packed,
    };
    if model != ControllerModel::Virtio {
        let keys = [
            ("queues", table.queues.is_some()),
            ("queue-size", table.queue_size.is_some()),
            ("max-sectors", table.max_sectors.is_some()),
            ("iothread", table.iothread.is_some()),
        ];
        let said = keys.into_iter().find_map(|(key, said)| said.then_some(key));
        if let Some(key) = said.or_else(|| virtio.said()) {
            return Err(ControllerError::VirtioOnly {
                id: id(),
                key,
                model,
            });
        }
        if board.bus() == Bus::Mmio {
            return Err(ControllerError::NoPci {
                id: id(),
                model,
                board,
            });
        }
    }
    if table.address.is_some() && board.bus() == Bus::Mmio {
        return Err(ControllerError::NoSlots { id: id(), board });
    }
    for (key, value, fits, rule) in [
        (
            "queues",
            table.queues,
            (1..=1024).contains(&table.queues.unwrap_or(1)),
            "it has 1 to 1024",
        ),
        (
            "queue-size",
            table.queue_size,
            power(table.queue_size, 4),
            "powers of two from 4 to 1024 are possible",
        ),
        (
            "max-sectors",
            table.max_sectors,
            table.max_sectors != Some(0),
            "a request has at least one",
        ),
    ] {
        if let Some(value) = value.filter(|_| !fits) {
            return Err(ControllerError::Number {
                id: id(),
                key,
                value,
                rule,
            });
        }
    }
    if let Some(iothread) = table
        .iothread
        .as_ref()
        .filter(|one| !iothreads.contains(one))
    {
        return Err(ControllerError::NoIothread {
            id: id(),
            iothread: iothread.clone(),
        });
    }
    Ok(Controller {
        id: id(),
        kind: table.r#type.unwrap_or(ControllerKind::Scsi),
        model,
        queues: table.queues,
        queue_size: table.queue_size,
        max_sectors: table.max_sectors,
        iothread: table.iothread.clone(),
        address: table.address,
        virtio,
    })
}

/// Whether a queue's size is a power of two from `least` to 1024 (`VIRTQUEUE_MAX_SIZE`).
pub(super) fn power(size: Option<u32>, least: u32) -> bool {
    size.is_none_or(|size| size.is_power_of_two() && (least..=1024).contains(&size))
}
