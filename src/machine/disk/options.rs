//! What few disks have: threads, queues, limits, names and numbers that the guest sees.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::DiskError;
use super::throttle::{Throttle, throttle};
use super::{Around, on};
use crate::ids::{Id, PciSlot};
use crate::machine::controller::power;
use crate::machine::{Bus, Disk, VirtioOptions};
use crate::profile::schema::{DetectZeroes, DiskBus, DiskTable, Media, ReadError, WriteError};

/// What few disks have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskOptions {
    /// The thread that does its work.
    pub iothread: Option<Id>,
    /// The controller it sits on, where that is not mvm's own.
    pub controller: Option<Id>,
    /// How many queues it has.
    pub queues: Option<u32>,
    /// How many requests a queue holds.
    pub queue_size: Option<u32>,
    /// What becomes of zeroes, where it does not follow from the discards.
    pub detect_zeroes: Option<DetectZeroes>,
    /// Its limits.
    pub throttle: Option<Throttle>,
    /// The world-wide name.
    pub wwn: Option<u64>,
    /// The maker.
    pub vendor: Option<String>,
    /// The model.
    pub product: Option<String>,
    /// The block size that the guest addresses by.
    pub logical_block_size: Option<u32>,
    /// The block size that it should write whole.
    pub physical_block_size: Option<u32>,
    /// Turns a minute.
    pub rotation_rate: Option<u16>,
    /// What follows a read error.
    pub rerror: Option<ReadError>,
    /// What follows a write error.
    pub werror: Option<WriteError>,
    /// The slot that the profile names.
    pub address: Option<PciSlot>,
    /// How it reaches the guest's memory.
    pub virtio: VirtioOptions,
    /// The socket of the program that does its work.
    pub vhost_user: Option<PathBuf>,
}

impl DiskOptions {
    /// Whether the disk has nothing of it.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

const VIRTIO: &[DiskBus] = &[DiskBus::Virtio];
const OWN: &[DiskBus] = &[DiskBus::Virtio, DiskBus::Nvme];
const SCSI: &[DiskBus] = &[DiskBus::Scsi];
const NAMED: &[DiskBus] = &[DiskBus::Scsi, DiskBus::Sata, DiskBus::Ide];
const BLOCKS: &[DiskBus] = &[
    DiskBus::Virtio,
    DiskBus::Scsi,
    DiskBus::Sata,
    DiskBus::Ide,
    DiskBus::Nvme,
    DiskBus::Usb,
];
const ERRORS: &[DiskBus] = &[
    DiskBus::Virtio,
    DiskBus::Scsi,
    DiskBus::Sata,
    DiskBus::Ide,
    DiskBus::Usb,
];

/// Each key that is said, with the buses that know it.
fn keys(table: &DiskTable) -> impl Iterator<Item = (&'static str, &'static [DiskBus])> {
    [
        ("iothread", table.iothread.is_some(), VIRTIO),
        ("queues", table.queues.is_some(), OWN),
        ("queue-size", table.queue_size.is_some(), VIRTIO),
        ("controller", table.controller.is_some(), SCSI),
        ("wwn", table.wwn.is_some(), NAMED),
        ("vendor", table.vendor.is_some(), SCSI),
        ("product", table.product.is_some(), NAMED),
        (
            "logical-block-size",
            table.logical_block_size.is_some(),
            BLOCKS,
        ),
        (
            "physical-block-size",
            table.physical_block_size.is_some(),
            BLOCKS,
        ),
        ("rotation-rate", table.rotation_rate.is_some(), NAMED),
        ("rerror", table.rerror.is_some(), ERRORS),
        ("werror", table.werror.is_some(), ERRORS),
        ("address", table.address.is_some(), OWN),
        ("iommu", table.iommu.is_some(), VIRTIO),
        ("ats", table.ats.is_some(), VIRTIO),
        ("packed", table.packed.is_some(), VIRTIO),
    ]
    .into_iter()
    .filter_map(|(key, said, buses)| said.then_some((key, buses)))
}

/// What the table says beyond the ordinary; `disks` are those resolved so far.
pub(super) fn options(
    id: &Id,
    table: &DiskTable,
    bus: DiskBus,
    media: Media,
    around: &Around,
    disks: &[Disk],
) -> Result<DiskOptions, DiskError> {
    if let Some((key, buses)) = keys(table).find(|(_, buses)| !buses.contains(&bus)) {
        return Err(DiskError::NotOn {
            id: id.clone(),
            key,
            bus,
            on: on(buses),
        });
    }
    let cdrom = media == Media::Cdrom;
    let of_disks = [
        ("rotation-rate", table.rotation_rate.is_some()),
        ("logical-block-size", table.logical_block_size.is_some()),
        ("physical-block-size", table.physical_block_size.is_some()),
        ("throttle", table.throttle.is_some()),
    ];
    let said = of_disks.into_iter().find(|(_, said)| cdrom && *said);
    if let Some((key, _)) = said {
        return Err(DiskError::NotOfDrives {
            id: id.clone(),
            key,
        });
    }
    if table.address.is_some() && around.board.bus() == Bus::Mmio {
        return Err(DiskError::NoSlots {
            id: id.clone(),
            board: around.board,
        });
    }
    numbers(id, table, bus)?;
    if table.detect_zeroes == Some(DetectZeroes::Unmap) && table.discard != Some(true) {
        return Err(DiskError::UnmapWithoutDiscard(id.clone()));
    }
    let missing = |kind, name: &Id| DiskError::NoSuch {
        id: id.clone(),
        kind,
        name: name.clone(),
    };
    if let Some(name) = &table.iothread {
        if !around.iothreads.contains(name) {
            return Err(missing("iothread", name));
        }
    }
    if let Some(name) = &table.controller {
        if !around.controllers.iter().any(|one| one.id == *name) {
            return Err(missing("controller", name));
        }
    }
    let max = if bus == DiskBus::Scsi { 16 } else { 40 };
    Ok(DiskOptions {
        iothread: table.iothread.clone(),
        controller: table.controller.clone(),
        queues: table.queues,
        queue_size: table.queue_size,
        detect_zeroes: table.detect_zeroes,
        throttle: throttle(
            id,
            table.throttle.as_ref(),
            around.there.iter().chain(disks),
        )?,
        wwn: wwn(id, table.wwn.as_deref())?,
        vendor: words(id, "vendor", table.vendor.as_deref(), 8)?,
        product: words(id, "product", table.product.as_deref(), max)?,
        logical_block_size: table.logical_block_size,
        // It is at least the logical one.
        physical_block_size: table.physical_block_size.or(table.logical_block_size),
        rotation_rate: table.rotation_rate,
        rerror: table.rerror,
        werror: table.werror,
        address: table.address,
        virtio: VirtioOptions {
            iommu: table.iommu,
            ats: table.ats,
            packed: table.packed,
        },
        vhost_user: None,
    })
}

fn numbers(id: &Id, table: &DiskTable, bus: DiskBus) -> Result<(), DiskError> {
    // `check_block_size` of QEMU's hw/core/qdev-properties-system.c.
    let block = |size: u32| size.is_power_of_two() && (512..=2 << 20).contains(&size);
    let ata = matches!(bus, DiskBus::Sata | DiskBus::Ide);
    let logical = table.logical_block_size;
    let physical = table.physical_block_size;
    let (queues, queues_rule) = match bus {
        // The device has two entries of its bar for the queues of commands.
        DiskBus::Nvme => (1..=2046, "it has at least 1 and at most 2046"),
        _ => (1..=1024, "it has at least 1 and at most 1024"),
    };
    let checks: [(&str, Option<u32>, bool, &str); 7] = [
        (
            "queues",
            table.queues,
            queues.contains(&table.queues.unwrap_or(1)),
            queues_rule,
        ),
        (
            "queue-size",
            table.queue_size,
            power(table.queue_size, 2),
            "powers of two from 2 to 1024 are possible",
        ),
        (
            "logical-block-size",
            logical,
            logical.is_none_or(block),
            "powers of two from 512 to 2097152 are possible",
        ),
        (
            "logical-block-size",
            logical,
            !ata || logical.is_none_or(|size| size == 512),
            "disks on sata and ide have 512",
        ),
        (
            "physical-block-size",
            physical,
            physical.is_none_or(block),
            "powers of two from 512 to 2097152 are possible",
        ),
        (
            "physical-block-size",
            physical,
            physical.is_none_or(|size| size >= logical.unwrap_or(512)),
            "it is at least the logical one",
        ),
        (
            "rotation-rate",
            table.rotation_rate.map(u32::from),
            // 2 to 1024 are reserved (ATA8-ACS).
            table
                .rotation_rate
                .is_none_or(|rate| rate == 1 || (1025..=0xfffe).contains(&rate)),
            "1, or 1025 to 65534 turns a minute are possible",
        ),
    ];
    for (key, value, fits, rule) in checks {
        if let Some(value) = value.filter(|_| !fits) {
            return Err(DiskError::Number {
                id: id.clone(),
                key,
                value: value.into(),
                rule,
            });
        }
    }
    Ok(())
}

fn wwn(id: &Id, text: Option<&str>) -> Result<Option<u64>, DiskError> {
    let Some(text) = text else { return Ok(None) };
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let hex = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    match u64::from_str_radix(digits, 16) {
        Ok(number) if hex && number > 0 => Ok(Some(number)),
        _ => Err(DiskError::Wwn {
            id: id.clone(),
            text: text.chars().take(80).collect(),
        }),
    }
}

fn words(
    id: &Id,
    key: &'static str,
    text: Option<&str>,
    max: usize,
) -> Result<Option<String>, DiskError> {
    let Some(text) = text else { return Ok(None) };
    let printable = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    if printable && (1..=max).contains(&text.len()) {
        return Ok(Some(text.to_owned()));
    }
    Err(DiskError::Words {
        id: id.clone(),
        key,
        text: text.chars().take(80).collect(),
        max,
    })
}
