//! Disks and CD-ROM drives.

mod error;
mod options;
mod throttle;
mod vhost_user;

use std::path::Path;

pub use error::DiskError;
pub use options::DiskOptions;
pub use throttle::Throttle;

use super::error::ResolveError;
use super::files::{find, shown};
use super::{BoardKind, Bus, Controller, Disk, Image};
use crate::host::QemuCaps;
use crate::host::images::{Content, FileKind, ImageFacts, Images};
use crate::ids::Id;
use crate::profile::schema::{Aio, Cache, DiskBus, DiskFile, DiskFormat, DiskTable, Layer, Media};

/// What disks are resolved against.
pub(super) struct Around<'a> {
    pub(super) board: BoardKind,
    pub(super) caps: &'a QemuCaps,
    pub(super) images: &'a Images,
    pub(super) run_dir: &'a Path,
    /// Without a kernel of its own the guest boots from a disk.
    pub(super) boots_from_disk: bool,
    /// The threads that a disk may name.
    pub(super) iothreads: &'a [Id],
    /// The controllers that a disk may name.
    pub(super) controllers: &'a [Controller],
    /// The places in the boot order that cards have.
    pub(super) taken: &'a [u32],
    /// The disks that a running guest has already.
    pub(super) there: &'a [Disk],
}

/// Buses as people list them.
fn on(buses: &[DiskBus]) -> String {
    let names: Vec<&str> = buses.iter().map(|bus| bus.as_str()).collect();
    match names.split_last() {
        Some((last, first)) if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => names.concat(),
    }
}

/// All disks: those with a place in the boot order first, then by name.
pub(super) fn disks(
    layer: &Layer,
    around: &Around,
    notes: &mut Vec<String>,
) -> Result<Vec<Disk>, ResolveError> {
    let mut disks: Vec<Disk> = Vec::new();
    let mut identities: Vec<(Id, (u64, u64), bool)> = Vec::new();
    for (id, table) in layer.disk.iter().flatten() {
        let (disk, facts) = disk(id, table, around, &disks, notes)?;
        if let Some(facts) = facts {
            let shared = disk.read_only || disk.overlay.is_some();
            for (first, identity, first_shared) in &identities {
                if *identity == facts.identity && !(shared && *first_shared) {
                    return Err(DiskError::Twice {
                        first: first.clone(),
                        second: id.clone(),
                        path: facts.path.clone(),
                    }
                    .into());
                }
            }
            identities.push((id.clone(), facts.identity, shared));
        }
        disks.push(disk);
    }
    throttle::settle(&mut disks)?;
    order(&mut disks, around.boots_from_disk, around.taken)?;
    Ok(disks)
}

/// Sorts by boot order, and gives one to guests that need it and do not say any.
fn order(disks: &mut [Disk], boots_from_disk: bool, taken: &[u32]) -> Result<(), DiskError> {
    // Stable: what has no place stays in the order of the names.
    disks.sort_by_key(|disk| disk.boot.unwrap_or(u32::MAX));
    for pair in disks.windows(2) {
        match (pair[0].boot, pair[1].boot) {
            (Some(place), Some(other)) if place == other => {
                return Err(DiskError::BootTwice {
                    first: pair[0].id.clone(),
                    second: pair[1].id.clone(),
                    place,
                });
            }
            _ => {}
        }
    }
    if boots_from_disk && disks.iter().all(|disk| disk.boot.is_none()) {
        disks.sort_by_key(|disk| disk.media == Media::Cdrom);
        let free = (1..).filter(|place| !taken.contains(place));
        for (place, disk) in free.zip(disks) {
            disk.boot = Some(place);
        }
    }
    Ok(())
}

fn disk<'a>(
    id: &Id,
    table: &DiskTable,
    around: &Around<'a>,
    disks: &[Disk],
    notes: &mut Vec<String>,
) -> Result<(Disk, Option<&'a ImageFacts>), ResolveError> {
    let media = table.media.unwrap_or(Media::Disk);
    let cdrom = media == Media::Cdrom;
    let bus = bus(id, table.bus, cdrom, around.board)?;
    let cache = table.cache.unwrap_or(Cache::Writeback);
    let aio = table.aio.unwrap_or(Aio::Threads);
    let read_only = table.read_only.unwrap_or(cdrom);
    let ephemeral = table.ephemeral.unwrap_or(false);
    let contradiction = |first, second| DiskError::Contradiction {
        id: id.clone(),
        first,
        second,
    };
    if cdrom && ephemeral {
        return Err(contradiction("a CD-ROM drive", "ephemeral").into());
    }
    if cdrom && !read_only {
        return Err(contradiction("a CD-ROM drive", "writable").into());
    }
    if read_only && ephemeral {
        return Err(contradiction("read-only", "ephemeral").into());
    }
    if aio == Aio::Native && !matches!(cache, Cache::None | Cache::Directsync) {
        return Err(DiskError::NativeCache {
            id: id.clone(),
            cache,
        }
        .into());
    }
    if !around.caps.aio.is_empty() && !around.caps.aio.contains(aio.as_str()) {
        return Err(DiskError::NoAio {
            id: id.clone(),
            aio,
            version: around.caps.version.to_string(),
        }
        .into());
    }
    if table.boot == Some(0) {
        return Err(DiskError::BootZero(id.clone()).into());
    }
    if let Some(other) = &table.vhost_user {
        let options = options::options(id, table, bus, media, around, disks)?;
        return Ok((
            vhost_user::disk(id, table, other, bus, options, around)?,
            None,
        ));
    }
    let (image, facts) = match (&table.file, table.empty) {
        (_, Some(true)) if cdrom => (None, None),
        (_, Some(true)) => return Err(DiskError::EmptyDisk(id.clone()).into()),
        (None, _) => return Err(DiskError::NoFile(id.clone()).into()),
        (Some(file), _) => {
            let inserted = media != Media::Disk || bus == DiskBus::Floppy;
            let (image, facts) = image(id, file, inserted, around.images, notes)?;
            if !read_only && !ephemeral && !facts.writable {
                return Err(DiskError::ReadOnly {
                    id: id.clone(),
                    path: image.path,
                }
                .into());
            }
            (Some(image), Some(facts))
        }
    };
    let disk = Disk {
        id: id.clone(),
        image,
        overlay: ephemeral.then(|| around.run_dir.join(format!("disk-{id}.overlay.qcow2"))),
        bus,
        media,
        cache,
        aio,
        discard: table.discard.unwrap_or(false),
        read_only,
        boot: table.boot,
        serial: serial(id, table.serial.as_deref(), bus)?,
        options: options::options(id, table, bus, media, around, disks)?,
    };
    Ok((disk, facts))
}

fn bus(
    id: &Id,
    asked: Option<DiskBus>,
    cdrom: bool,
    board: BoardKind,
) -> Result<DiskBus, DiskError> {
    let bus = asked.unwrap_or(match (cdrom, board) {
        (false, _) => DiskBus::Virtio,
        (true, BoardKind::Q35 | BoardKind::Pc) => DiskBus::Sata,
        (true, _) => DiskBus::Scsi,
    });
    let there = match board.bus() {
        Bus::Mmio => matches!(bus, DiskBus::Virtio | DiskBus::Scsi),
        Bus::Pci | Bus::Pcie => match bus {
            DiskBus::Ide => board == BoardKind::Pc,
            DiskBus::Floppy => board != BoardKind::Virt,
            _ => true,
        },
    };
    if !there {
        return Err(DiskError::NoBus {
            id: id.clone(),
            bus,
            board,
            has: match board {
                BoardKind::Microvm => "virtio and scsi (virtio-scsi)",
                BoardKind::Pc => "virtio, scsi, sata, ide, nvme, usb and floppy",
                BoardKind::Q35 => "virtio, scsi, sata, nvme, usb and floppy",
                BoardKind::Virt => "virtio, scsi, sata, nvme and usb",
            },
        });
    }
    if cdrom && matches!(bus, DiskBus::Virtio | DiskBus::Nvme | DiskBus::Floppy) {
        return Err(DiskError::NoCdrom {
            id: id.clone(),
            bus,
        });
    }
    Ok(bus)
}

/// How long a serial number the devices take: they cut it (virtio-blk, ATA, NVMe) or refuse it (SCSI).
fn serial(id: &Id, serial: Option<&str>, bus: DiskBus) -> Result<Option<String>, DiskError> {
    let max = match bus {
        DiskBus::Scsi | DiskBus::Usb => 36,
        DiskBus::Virtio | DiskBus::Sata | DiskBus::Ide | DiskBus::Nvme => 20,
        DiskBus::Floppy => 0,
    };
    match serial {
        Some(_) if max == 0 => Err(DiskError::NotOn {
            id: id.clone(),
            key: "serial",
            bus,
            on: "every other bus".to_owned(),
        }),
        // NVMe drives are told apart by theirs, and QEMU makes none without.
        None if bus == DiskBus::Nvme => Ok(Some(id.as_str().chars().take(max).collect())),
        None => Ok(None),
        Some(text)
            if (1..=max).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') =>
        {
            Ok(Some(text.to_owned()))
        }
        Some(text) => Err(DiskError::Serial {
            id: id.clone(),
            serial: text.chars().take(80).collect(),
            max,
        }),
    }
}

fn image<'a>(
    id: &Id,
    file: &DiskFile,
    inserted: bool,
    images: &'a Images,
    notes: &mut Vec<String>,
) -> Result<(Image, &'a ImageFacts), ResolveError> {
    let Some(text) = file.path.as_deref() else {
        return Err(DiskError::NoFile(id.clone()).into());
    };
    let facts = find(images, &format!("disk `{id}`"), text, || {
        let name = shown(Path::new(text));
        let raw = if file.format == Some(DiskFormat::Raw) {
            " --type raw"
        } else {
            ""
        };
        Some(if Path::new(text).starts_with("/dev") {
            "there is no such device; `lsblk` lists those that there are".to_owned()
        } else if inserted {
            format!("put the image there, or name another: `file.path` of `[disk.{id}]`")
        } else {
            format!(
                "`mvm disk create {name} --size 20G{raw}` makes an empty one, `mvm disk import FILE {name}` takes over one that you have"
            )
        })
    })?;
    let path = facts.path.clone();
    if !matches!(facts.kind, FileKind::File | FileKind::Block) {
        return Err(DiskError::NoImage {
            id: id.clone(),
            path,
        }
        .into());
    }
    let format = match (file.format, &facts.content) {
        (Some(DiskFormat::Raw), Some(Content::Qcow2 { .. })) => {
            notes.push(format!(
                "disk `{id}`: {path:?} is a qcow2 image, and the guest sees its raw bytes because `format` says so"
            ));
            DiskFormat::Raw
        }
        (Some(DiskFormat::Raw), _) => DiskFormat::Raw,
        (_, Some(Content::Qcow2 { .. })) => DiskFormat::Qcow2,
        (Some(DiskFormat::Qcow2), _) => {
            return Err(DiskError::NotQcow2 {
                id: id.clone(),
                path,
            }
            .into());
        }
        (None, Some(Content::Other(format))) => {
            return Err(DiskError::OtherFormat {
                id: id.clone(),
                path,
                format: format.clone(),
            }
            .into());
        }
        (None, _) => DiskFormat::Raw,
    };
    let image = Image {
        path,
        format,
        block_device: facts.kind == FileKind::Block,
    };
    Ok((image, facts))
}
