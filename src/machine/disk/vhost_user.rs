//! Disks whose work another program of the host does in the guest's memory.

use std::path::Path;

use super::error::DiskError;
use super::{Around, DiskOptions};
use crate::ids::Id;
use crate::machine::files::find;
use crate::machine::{Disk, ResolveError};
use crate::profile::schema::{Aio, Cache, DiskBus, DiskTable, Media, VhostUserDisk};

/// The keys that are that program's to decide.
fn of_the_program(table: &DiskTable) -> Option<&'static str> {
    [
        ("cache", table.cache.is_some()),
        ("aio", table.aio.is_some()),
        ("iothread", table.iothread.is_some()),
        ("discard", table.discard.is_some()),
        ("detect-zeroes", table.detect_zeroes.is_some()),
        ("throttle", table.throttle.is_some()),
        ("read-only", table.read_only.is_some()),
        ("ephemeral", table.ephemeral.is_some()),
        ("serial", table.serial.is_some()),
        ("logical-block-size", table.logical_block_size.is_some()),
        ("physical-block-size", table.physical_block_size.is_some()),
        ("rerror", table.rerror.is_some()),
        ("werror", table.werror.is_some()),
        ("media", table.media.is_some()),
    ]
    .into_iter()
    .find_map(|(key, said)| said.then_some(key))
}

pub(super) fn disk(
    id: &Id,
    table: &DiskTable,
    other: &VhostUserDisk,
    bus: DiskBus,
    options: DiskOptions,
    around: &Around,
) -> Result<Disk, ResolveError> {
    if bus != DiskBus::Virtio {
        return Err(DiskError::NotOn {
            id: id.clone(),
            key: "vhost-user",
            bus,
            on: "virtio".to_owned(),
        }
        .into());
    }
    if let Some(key) = of_the_program(table) {
        return Err(DiskError::OfTheProgram {
            id: id.clone(),
            key,
        }
        .into());
    }
    let text = other.socket.as_deref().unwrap_or_default();
    if !Path::new(text).is_absolute() {
        return Err(DiskError::BadSocket {
            id: id.clone(),
            text: text.chars().take(200).collect(),
        }
        .into());
    }
    let fix = || Some("start the program that listens there first".to_owned());
    find(around.images, &format!("disk `{id}`"), text, fix)?;
    Ok(Disk {
        id: id.clone(),
        image: None,
        overlay: None,
        bus,
        media: Media::Disk,
        cache: Cache::Writeback,
        aio: Aio::Threads,
        discard: false,
        read_only: false,
        boot: table.boot,
        serial: None,
        options: DiskOptions {
            vhost_user: Some(text.into()),
            ..options
        },
    })
}
