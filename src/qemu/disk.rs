//! Disks and drives: the chain of block nodes, the controllers, the devices.
//!
//! The node `ID` is what the device sees; `ID-file` is the file below it. A throw-away overlay takes
//! those names, and the image below it is `ID-base` over `ID-base-file`, opened read-only. Where there are limits, `ID`
//! is the node that holds them, over `ID-format`.

use serde_json::json;

use super::Context;
use super::args::{Args, Object, path};
use super::{chardev, storage};
use crate::ids::Id;
use crate::machine::drivers::{self, Virtio};
use crate::machine::slots::{Single, has_usb, own};
use crate::machine::{BoardKind, Disk, Image, Machine};
use crate::profile::schema::{Aio, Cache, DetectZeroes, DiskBus, DiskFormat, Media, UsbModel};

pub(super) const SCSI: &str = "mvm-scsi";
/// The USB controller.
pub(super) const USB: &str = "mvm-usb";
const AHCI: &str = "mvm-ahci";

pub(super) fn add(args: &mut Args, machine: &Machine, context: Context) {
    storage::iothreads(args, machine);
    storage::throttles(args, machine);
    controllers(args, machine, context);
    storage::controllers(args, machine, context);
    // Each bus counts its own.
    let mut counts = [0u32; 6];
    for (at, disk) in machine.disks.iter().enumerate() {
        if let Some(image) = &disk.image {
            nodes(args, disk, image);
        }
        if let Some(socket) = &disk.options.vhost_user {
            chardev::connect(args, &storage::socket(disk), socket);
        }
        let index = match &disk.options.controller {
            Some(controller) => {
                let before = machine.disks[..at].iter();
                let on_it =
                    before.filter(|disk| disk.options.controller.as_ref() == Some(controller));
                u32::try_from(on_it.count()).unwrap_or(u32::MAX)
            }
            None => {
                let count = &mut counts[match disk.bus {
                    DiskBus::Virtio | DiskBus::Nvme => 0,
                    DiskBus::Scsi => 1,
                    DiskBus::Sata => 2,
                    DiskBus::Ide => 3,
                    DiskBus::Usb => 4,
                    DiskBus::Floppy => 5,
                }];
                let index = *count;
                // A place that the profile names is not one of the row.
                *count += u32::from(disk.options.address.is_none());
                index
            }
        };
        // Where it has been at earlier starts.
        let index = machine.positions.unit(disk).map_or(index, u32::from);
        device(args, machine, disk, index, context);
    }
}

fn controllers(args: &mut Args, machine: &Machine, context: Context) {
    let has = |bus| {
        let mut disks = machine.disks.iter();
        disks.any(|disk| disk.bus == bus && disk.options.controller.is_none())
    };
    if has(DiskBus::Scsi) {
        let place = context.slots.single(Single::Scsi);
        args.device(context.virtio(Virtio::Scsi, SCSI).at(place));
    }
    if has(DiskBus::Sata) && context.board != BoardKind::Q35 {
        let place = context.slots.single(Single::Ahci);
        args.device(Object::device(drivers::AHCI, AHCI).at(place));
    }
    if has(DiskBus::Floppy) {
        storage::floppy_controller(args, machine);
    }
    if has_usb(machine) {
        let place = context.slots.single(Single::Usb);
        let usb = machine.desktop.usb;
        let device = Object::device(drivers::usb(usb.model), USB).at(place);
        args.device(match usb.model {
            UsbModel::Xhci | UsbModel::NecXhci => device.set("p2", usb.ports).set("p3", usb.ports),
            UsbModel::Ehci | UsbModel::Uhci => device,
        });
    }
}

/// How the nodes of an image are opened.
#[derive(Clone, Copy)]
struct Opened {
    direct: bool,
    no_flush: bool,
    aio: Aio,
    discard: bool,
    detect_zeroes: Option<DetectZeroes>,
    read_only: bool,
}

fn nodes(args: &mut Args, disk: &Disk, image: &Image) {
    let opened = Opened {
        direct: matches!(disk.cache, Cache::None | Cache::Directsync),
        no_flush: disk.cache == Cache::Unsafe,
        aio: disk.aio,
        discard: disk.discard,
        // Zeroes that the guest writes are freed as well, as its discards are.
        detect_zeroes: disk
            .options
            .detect_zeroes
            .or(disk.discard.then_some(DetectZeroes::Unmap)),
        read_only: disk.read_only || disk.overlay.is_some(),
    };
    let file = if image.block_device {
        "host_device"
    } else {
        "file"
    };
    // The file of a node called `ID-format` is `ID-file`.
    let (top, below) = storage::top(disk);
    let (name, name_below) = match &disk.overlay {
        Some(_) => (
            format!("{}-base", disk.id),
            format!("{}-base-file", disk.id),
        ),
        None => (top.clone(), below.clone()),
    };
    pair(
        args,
        (&name, name_below),
        file,
        &path(&image.path),
        image.format,
        opened,
        None,
    );
    if let Some(overlay) = &disk.overlay {
        // It is gone when the guest stops, so nothing has to reach the disk. The run-time directory
        // may be a tmpfs, which takes no O_DIRECT.
        let opened = Opened {
            direct: false,
            no_flush: true,
            aio: Aio::Threads,
            read_only: false,
            ..opened
        };
        let overlay = path(overlay);
        pair(
            args,
            (&top, below),
            "file",
            &overlay,
            DiskFormat::Qcow2,
            opened,
            Some(&name),
        );
    }
    storage::throttle(args, disk, &top);
}

/// The node of a file and the node of its format.
fn pair(
    args: &mut Args,
    (name, below): (&str, String),
    driver: &str,
    file: &str,
    format: DiskFormat,
    opened: Opened,
    backing: Option<&str>,
) {
    let cache = json!({ "direct": opened.direct, "no-flush": opened.no_flush });
    let discard = if opened.discard { "unmap" } else { "ignore" };
    let protocol = Object::new("driver", driver)
        .set("node-name", below.as_str())
        .set("filename", file)
        .set("aio", opened.aio.as_str())
        .set("cache", cache.clone())
        .set("discard", discard)
        .set("read-only", opened.read_only);
    args.json("-blockdev", protocol);
    let node = Object::new("driver", format.as_str())
        .set("node-name", name)
        .set("file", below)
        .set_some("backing", backing)
        .set("cache", cache)
        .set("discard", discard)
        .set_some(
            "detect-zeroes",
            opened.detect_zeroes.map(DetectZeroes::as_str),
        )
        .set("read-only", opened.read_only);
    args.json("-blockdev", node);
}

fn device(args: &mut Args, machine: &Machine, disk: &Disk, index: u32, context: Context) {
    let driver = drivers::disk(disk.bus, disk.media, context.board);
    let id = disk.id.as_str();
    let start = !context.slots.is_hot();
    let device = match disk.bus {
        DiskBus::Virtio if disk.options.vhost_user.is_some() => {
            context.virtio_as(Virtio::VhostUserBlk, id, disk.options.virtio)
        }
        DiskBus::Virtio => context.virtio_as(Virtio::Blk, id, disk.options.virtio),
        _ => Object::device(driver, id),
    };
    let device = match (disk.bus, disk.media) {
        (bus, _) if own(bus) => device.at(match disk.options.address {
            Some(slot) => context.slots.at(slot),
            None => context.slots.disk(index as usize),
        }),
        // Where it comes to a guest that runs, QEMU finds a free target and a free port.
        (DiskBus::Scsi, _) => device
            .set(
                "bus",
                format!(
                    "{}.0",
                    disk.options.controller.as_ref().map_or(SCSI, Id::as_str)
                ),
            )
            .set_some("scsi-id", start.then_some(index))
            .set("lun", 0),
        (DiskBus::Sata, _) => {
            let controller = match context.board {
                BoardKind::Q35 => "ide",
                _ => AHCI,
            };
            device.set("bus", format!("{controller}.{index}"))
        }
        (DiskBus::Floppy, _) => device.set("unit", index),
        (DiskBus::Ide, _) => device
            .set("bus", format!("ide.{}", index / 2))
            .set("unit", index % 2),
        (_, Media::Disk) => device
            .set("bus", format!("{USB}.0"))
            .set_some("port", start.then(|| (index + 1).to_string())),
        (_, Media::Cdrom) => {
            let bot = format!("mvm-usb-{id}");
            args.device(
                Object::device(drivers::USB_SCSI, bot.as_str())
                    .set("bus", format!("{USB}.0"))
                    .set("port", (index + 1).to_string()),
            );
            device
                .set("bus", format!("{bot}.0"))
                .set("scsi-id", 0)
                .set("lun", 0)
        }
    };
    let synchronous = matches!(disk.cache, Cache::Writethrough | Cache::Directsync);
    let boots = machine.kernel.is_none();
    args.device(
        storage::options(device, disk)
            .set_some(
                "multifunction",
                storage::first_of_several(machine, disk.options.address),
            )
            .set_some("drive", disk.image.as_ref().map(|_| id))
            .set_some("serial", disk.serial.as_deref())
            .set_some(
                "write-cache",
                (synchronous && disk.overlay.is_none()).then_some("off"),
            )
            // With a kernel of its own the guest boots from no disk.
            .set_some(
                "bootindex",
                disk.boot.filter(|_| boots && disk.bus != DiskBus::Floppy),
            ),
    );
}
