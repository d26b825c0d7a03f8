//! What can be wrong with a disk.

use std::path::PathBuf;

use crate::error::{ExitCode, Hint};
use crate::ids::Id;
use crate::machine::BoardKind;
use crate::machine::files::shown;
use crate::profile::schema::{Aio, Cache, DiskBus};

/// A disk that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// No image, and not said to be empty.
    #[error("disk `{0}` names no image")]
    NoFile(Id),
    /// A disk without a medium.
    #[error("disk `{0}` is empty; only a drive with `media = \"cdrom\"` can be")]
    EmptyDisk(Id),
    /// A bus that the board does not have.
    #[error("disk `{id}`: the board {board} has no {bus} bus for it")]
    NoBus {
        /// The disk.
        id: Id,
        /// The bus.
        bus: DiskBus,
        /// The board.
        board: BoardKind,
        /// The buses it has.
        has: &'static str,
    },
    /// CD-ROM drives exist on some buses only.
    #[error("disk `{id}`: there are no CD-ROM drives on the bus {bus}")]
    NoCdrom {
        /// The disk.
        id: Id,
        /// The bus.
        bus: DiskBus,
    },
    /// Linux AIO needs O_DIRECT.
    #[error(
        "disk `{id}`: `aio = \"native\"` needs cache `none` or `directsync`, and it is `{cache}`"
    )]
    NativeCache {
        /// The disk.
        id: Id,
        /// The cache mode.
        cache: Cache,
    },
    /// This QEMU does not have the I/O engine.
    #[error("disk `{id}`: this QEMU ({version}) is built without `aio = \"{aio}\"`")]
    NoAio {
        /// The disk.
        id: Id,
        /// The engine.
        aio: Aio,
        /// QEMU's version.
        version: String,
    },
    /// Settings that contradict each other.
    #[error("disk `{id}` is both {first} and {second}")]
    Contradiction {
        /// The disk.
        id: Id,
        /// The one.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// Too long a serial number, or an odd character in it.
    #[error(
        "disk `{id}`: the serial number {serial:?} is not {max} printable ASCII characters or fewer"
    )]
    Serial {
        /// The disk.
        id: Id,
        /// The serial number.
        serial: String,
        /// How many characters the bus takes.
        max: usize,
    },
    /// The image is in another format than the profile says.
    #[error("disk `{id}`: {path:?} is not a qcow2 image, and `format` says so")]
    NotQcow2 {
        /// The disk.
        id: Id,
        /// The image.
        path: PathBuf,
    },
    /// The image looks like one that QEMU would have to convert first.
    #[error("disk `{id}`: {path:?} is {format}, which no guest can use as it is")]
    OtherFormat {
        /// The disk.
        id: Id,
        /// The image.
        path: PathBuf,
        /// What it looks like.
        format: String,
    },
    /// Neither file nor block device.
    #[error("disk `{id}`: {path:?} is neither a regular file nor a block device")]
    NoImage {
        /// The disk.
        id: Id,
        /// The path.
        path: PathBuf,
    },
    /// The image cannot be written by this user.
    #[error("disk `{id}`: {path:?} cannot be written by this user")]
    ReadOnly {
        /// The disk.
        id: Id,
        /// The image.
        path: PathBuf,
    },
    /// One image, two disks.
    #[error("disks `{first}` and `{second}` are the same image {path:?}")]
    Twice {
        /// The one.
        first: Id,
        /// The other.
        second: Id,
        /// The image.
        path: PathBuf,
    },
    /// Places in the boot order count from 1.
    #[error("disk `{0}`: `boot = 0`; the first place is 1")]
    BootZero(Id),
    /// One place in the boot order, two disks.
    #[error("disks `{first}` and `{second}` both have place {place} in the boot order")]
    BootTwice {
        /// The one.
        first: Id,
        /// The other.
        second: Id,
        /// The place.
        place: u32,
    },
}

impl Hint for DiskError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::NoFile(id) => vec![
                format!("set `disk.{id}.file = {{ path = \"NAME.qcow2\" }}`"),
                "`mvm disk create NAME.qcow2 --size 20G` makes an image".to_owned(),
            ],
            Self::EmptyDisk(id) => vec![format!("name an image in `disk.{id}.file`")],
            Self::NoBus { has, .. } => vec![format!("it has {has}")],
            Self::NoCdrom { .. } => vec!["drives are on sata, scsi, ide or usb".to_owned()],
            Self::NativeCache { id, .. } => vec![format!("set `disk.{id}.cache = \"none\"`")],
            Self::NotQcow2 { id, .. } => {
                vec![format!(
                    "leave `disk.{id}.file.format` out: the image itself tells it"
                )]
            }
            Self::OtherFormat { path, id, format } => vec![
                if format.starts_with("a ") && !format.contains("archive") {
                    format!(
                        "`mvm disk import {}` makes a qcow2 image of it",
                        shown(path)
                    )
                } else {
                    "unpack it first".to_owned()
                },
                format!(
                    "set `disk.{id}.file.format = \"raw\"` where the guest is to see these very bytes"
                ),
            ],
            Self::ReadOnly { id, .. } => vec![format!(
                "set `disk.{id}.read-only = true`, or `disk.{id}.ephemeral = true` to keep the writes in a throw-away overlay"
            )],
            Self::Twice { .. } => {
                vec!["one image can be two disks only where none is written: `read-only` or `ephemeral`".to_owned()]
            }
            _ => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoAio { .. } | Self::ReadOnly { .. } => ExitCode::Host,
            _ => ExitCode::Profile,
        }
    }
}
