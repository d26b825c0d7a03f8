//! Disks, what they sit on, and the threads that do their work.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Aio, Cache, ControllerKind, ControllerModel, DetectZeroes, DiskBus, DiskFormat};
use super::{Media, NoDevice, ReadError, WriteError};
use crate::ids::{Id, PciSlot};
use crate::units::Size;

table! {
    /// `[disk.NAME]`
    DiskTable {
        /// An image file or a block device. Exactly one of `file`, `empty`, `vhost-user` and `none`.
        file: DiskFile,
        /// A drive without a medium (`media = "cdrom"` only): `empty = true`.
        empty: bool,
        /// Another program of the host that does the disk's work in the guest's memory (`virtio`).
        vhost_user: VhostUserDisk,
        /// No disk: takes away one that a lower layer gave, as in `none = {}`.
        none: NoDevice,
        /// What the guest sees it on. By default `virtio`, for a CD-ROM `sata` (`scsi` on `virt`).
        bus: DiskBus,
        /// The controller that a disk on `scsi` sits on: a `[controller.NAME]`. By default mvm's own virtio-scsi.
        controller: Id,
        /// A disk or a CD-ROM drive; by default a disk.
        media: Media,
        /// What the host's page cache is used for. By default `writeback`.
        cache: Cache,
        /// How QEMU does its I/O. By default `threads`.
        aio: Aio,
        /// The `[iothread.NAME]` that does the disk's work (`virtio`); a disk on `scsi` has its controller's.
        iothread: Id,
        /// How many queues the disk has (`virtio`, `nvme`). By default as many as QEMU gives it.
        queues: u32,
        /// How many requests a queue of `virtio` holds: a power of two from 2 to 1024. By default 256.
        queue_size: u32,
        /// Whether the guest's discards free space in the image. By default they do not.
        discard: bool,
        /// What becomes of zeroes that the guest writes. By default `unmap` with `discard`, else `off`.
        detect_zeroes: DetectZeroes,
        /// How much the guest may do with the disk.
        throttle: ThrottleTable,
        /// The guest cannot write. By default so for a CD-ROM.
        read_only: bool,
        /// The place in the boot order, 1 first. Where no disk of a guest without a kernel says one, disks
        /// come before CD-ROMs, in the order of their names.
        boot: u32,
        /// Writes go to a throw-away overlay that is gone when the guest stops.
        ephemeral: bool,
        /// The serial number that the guest sees.
        serial: String,
        /// The world-wide name that the guest sees (`scsi`, `sata`, `ide`): 16 hexadecimal digits, as in
        /// `5000c500a1b2c3d4`.
        wwn: String,
        /// The maker that the guest sees (`scsi`), at most 8 characters.
        vendor: String,
        /// The model that the guest sees: `scsi` at most 16 characters, `sata` and `ide` at most 40.
        product: String,
        /// The block size that the guest addresses by, in bytes. By default 512.
        logical_block_size: u32,
        /// The block size that the guest should write whole, in bytes. By default the logical one.
        physical_block_size: u32,
        /// Turns a minute, 1 for one without moving parts (`scsi`, `sata`, `ide`). By default not told.
        rotation_rate: u16,
        /// What follows an error when the guest reads. By default `report`.
        rerror: ReadError,
        /// What follows an error when the guest writes. By default `enospc`.
        werror: WriteError,
        /// The slot of the guest's root bus, as in `0x10` or `0x10.1`, rather than the one that mvm chooses
        /// (`virtio`, `nvme`).
        address: PciSlot,
        /// The device's memory accesses go through the guest's IOMMU (`virtio`). By default so where `[iommu]`
        /// gives it one.
        iommu: bool,
        /// The device keeps translations of the IOMMU itself (`virtio`). Off by default.
        ats: bool,
        /// Packed queues (`virtio`). Off by default.
        packed: bool,
    }
}

table! {
    /// `disk.NAME.file`
    DiskFile {
        /// The path; a relative one is looked up in the image folders.
        path: String,
        /// The format of the image. By default what the file itself says: qcow2 by its header, else raw.
        format: DiskFormat,
    }
}

table! {
    /// `disk.NAME.vhost-user`
    VhostUserDisk {
        /// The path of the Unix socket at which the program listens.
        socket: String,
    }
}

table! {
    /// `disk.NAME.throttle`: what is left out is not limited.
    ThrottleTable {
        /// Disks that name the same group share its limits, which one of them says.
        group: Id,
        /// Requests a second.
        iops_total: u64,
        /// Reads a second, rather than `iops-total`.
        iops_read: u64,
        /// Writes a second, rather than `iops-total`.
        iops_write: u64,
        /// Bytes a second, as in `100M`.
        bps_total: Size,
        /// Bytes read a second, rather than `bps-total`.
        bps_read: Size,
        /// Bytes written a second, rather than `bps-total`.
        bps_write: Size,
        /// Requests a second in a burst.
        iops_total_max: u64,
        /// Reads a second in a burst.
        iops_read_max: u64,
        /// Writes a second in a burst.
        iops_write_max: u64,
        /// Bytes a second in a burst.
        bps_total_max: Size,
        /// Bytes read a second in a burst.
        bps_read_max: Size,
        /// Bytes written a second in a burst.
        bps_write_max: Size,
        /// How many seconds such a burst may last. By default 1.
        iops_total_max_length: u64,
        /// How many seconds such a burst may last. By default 1.
        iops_read_max_length: u64,
        /// How many seconds such a burst may last. By default 1.
        iops_write_max_length: u64,
        /// How many seconds such a burst may last. By default 1.
        bps_total_max_length: u64,
        /// How many seconds such a burst may last. By default 1.
        bps_read_max_length: u64,
        /// How many seconds such a burst may last. By default 1.
        bps_write_max_length: u64,
        /// A request counts as one more for each of as many bytes. By default each is one.
        iops_size: Size,
    }
}

table! {
    /// `[iothread.NAME]`: the table is enough to have it.
    IothreadTable {
        /// `false` takes away one that a lower layer gave.
        enabled: bool,
    }
}

table! {
    /// `[controller.NAME]`
    ControllerTable {
        /// What sits on it. By default `scsi`.
        r#type: ControllerKind,
        /// Which one the guest sees. By default `virtio`.
        model: ControllerModel,
        /// `false` takes away one that a lower layer gave.
        enabled: bool,
        /// How many request queues it has (`virtio`). By default one for each processor of the guest.
        queues: u32,
        /// How many requests a queue holds: a power of two from 4 to 1024 (`virtio`). By default 256.
        queue_size: u32,
        /// How many sectors a request may have (`virtio`). By default 65535.
        max_sectors: u32,
        /// The `[iothread.NAME]` that does its disks' work (`virtio`).
        iothread: Id,
        /// The slot of the guest's root bus, as in `0x10` or `0x10.1`, rather than the one that mvm chooses.
        address: PciSlot,
        /// Its memory accesses go through the guest's IOMMU (`virtio`). By default so where `[iommu]` gives it one.
        iommu: bool,
        /// It keeps translations of the IOMMU itself (`virtio`). Off by default.
        ats: bool,
        /// Packed queues (`virtio`). Off by default.
        packed: bool,
    }
}
