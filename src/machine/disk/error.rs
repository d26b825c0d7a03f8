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
    /// A key that the bus has no use for.
    #[error("disk `{id}`: `{key}` is not for disks on {bus}, but on {on}")]
    NotOn {
        /// The disk.
        id: Id,
        /// The key.
        key: &'static str,
        /// The bus.
        bus: DiskBus,
        /// The buses that have it.
        on: String,
    },
    /// A key that drives have no use for.
    #[error("drive `{id}`: `{key}` is for disks, not for CD-ROM drives")]
    NotOfDrives {
        /// The drive.
        id: Id,
        /// The key.
        key: &'static str,
    },
    /// A slot without a bus that has slots.
    #[error("disk `{id}`: `address` is a slot of a PCI bus, and the board {board} has none")]
    NoSlots {
        /// The disk.
        id: Id,
        /// The board.
        board: BoardKind,
    },
    /// A number that the device refuses.
    #[error("disk `{id}`: `{key}` is {value}; {rule}")]
    Number {
        /// The disk.
        id: Id,
        /// The key.
        key: &'static str,
        /// What it is.
        value: u64,
        /// What it may be.
        rule: &'static str,
    },
    /// A name that cannot be read.
    #[error("disk `{id}`: {text:?} is not a world-wide name (16 hexadecimal digits)")]
    Wwn {
        /// The disk.
        id: Id,
        /// The text.
        text: String,
    },
    /// A text that does not fit.
    #[error("disk `{id}`: `{key}` {text:?} is not 1 to {max} printable ASCII characters")]
    Words {
        /// The disk.
        id: Id,
        /// The key.
        key: &'static str,
        /// The text.
        text: String,
        /// How many fit.
        max: usize,
    },
    /// Zeroes that are freed while discards are not.
    #[error("disk `{0}`: `detect-zeroes = \"unmap\"` needs `discard = true`")]
    UnmapWithoutDiscard(Id),
    /// A thread or a controller that is not there.
    #[error("disk `{id}`: there is no `[{kind}.{name}]`")]
    NoSuch {
        /// The disk.
        id: Id,
        /// The table.
        kind: &'static str,
        /// The name.
        name: Id,
    },
    /// A key that another program decides.
    #[error("disk `{id}`: `{key}` is for the program behind `vhost-user` to decide")]
    OfTheProgram {
        /// The disk.
        id: Id,
        /// The key.
        key: &'static str,
    },
    /// No socket, or one without a fixed place.
    #[error("disk `{id}`: `vhost-user.socket` is {text:?}, not the absolute path of a socket")]
    BadSocket {
        /// The disk.
        id: Id,
        /// The text.
        text: String,
    },
    /// A throttle that limits nothing.
    #[error("disk `{0}`: `throttle` says no limit")]
    NoLimits(Id),
    /// Limits that contradict each other.
    #[error("disk `{id}`: `throttle`: {message}")]
    Limits {
        /// The disk.
        id: Id,
        /// What is wrong.
        message: String,
    },
    /// One group, two limits.
    #[error("disks `{first}` and `{second}` say different limits for the throttle group `{group}`")]
    GroupDiffers {
        /// The group.
        group: Id,
        /// The one.
        first: Id,
        /// The other.
        second: Id,
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
            Self::NoSuch { kind, name, .. } => vec![format!("`[{kind}.{name}]` alone makes one")],
            Self::NotOn {
                key: "iothread" | "queues",
                bus: DiskBus::Scsi,
                ..
            } => {
                vec!["a disk on scsi has those of its `[controller.NAME]`".to_owned()]
            }
            Self::NoLimits(id) => vec![format!(
                "as in `disk.{id}.throttle = {{ iops-total = 500, bps-total = \"100M\" }}`"
            )],
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
