//! What few disks have: threads, limits, controllers of their own, what the guest sees of them.

use serde_json::{Map, Value};

use super::Context;
use super::args::{Args, Object, Options};
use crate::ids::{Id, PciSlot};
use crate::machine::drivers::{self, Virtio};
use crate::machine::slots::shares_slot;
use crate::machine::{BoardKind, Disk, Machine, Throttle};
use crate::profile::schema::{ControllerModel, DiskBus};

/// The floppy controller.
const FLOPPY: &str = "mvm-fdc";

/// The threads.
pub(super) fn iothreads(args: &mut Args, machine: &Machine) {
    for id in &machine.iothreads {
        let thread = Object::new("qom-type", drivers::IOTHREAD);
        args.json("-object", thread.set("id", id.as_str()));
    }
}

/// The object that holds the limits of a group.
pub(crate) fn shared_limiter(group: &Id) -> String {
    format!("mvm-throttle-{group}")
}

/// The object that holds the limits of a disk; that of a group is mvm's own, as others use it too.
fn limiter(disk: &Disk, throttle: &Throttle) -> String {
    match &throttle.group {
        Some(group) => shared_limiter(group),
        None => format!("throttle-{}", disk.id),
    }
}

/// The limits.
pub(super) fn throttles(args: &mut Args, machine: &Machine) {
    let mut made: Vec<String> = Vec::new();
    for disk in &machine.disks {
        let Some(throttle) = &disk.options.throttle else {
            continue;
        };
        let id = limiter(disk, throttle);
        if made.contains(&id) {
            continue;
        }
        let limits = throttle.limits.iter();
        let limits: Map<String, Value> = limits
            .map(|(key, value)| (key.clone(), (*value).into()))
            .collect();
        let group = Object::new("qom-type", drivers::THROTTLE)
            .set("id", id.as_str())
            .set("limits", limits);
        args.json("-object", group);
        made.push(id);
    }
}

/// The names of the format's node and of the file's below it.
pub(super) fn top(disk: &Disk) -> (String, String) {
    let id = &disk.id;
    let top = match &disk.options.throttle {
        Some(_) => format!("{id}-format"),
        None => id.to_string(),
    };
    (top, format!("{id}-file"))
}

/// The node that holds the limits, over the one of the format.
pub(super) fn throttle(args: &mut Args, disk: &Disk, below: &str) {
    if let Some(throttle) = &disk.options.throttle {
        let node = Object::new("driver", "throttle")
            .set("node-name", disk.id.as_str())
            .set("throttle-group", limiter(disk, throttle))
            .set("file", below)
            // As the node below it is: what is thrown away is written to.
            .set_some(
                "read-only",
                (disk.read_only && disk.overlay.is_none()).then_some(true),
            );
        args.json("-blockdev", node);
    }
}

/// The named controllers.
pub(super) fn controllers(args: &mut Args, machine: &Machine, context: Context) {
    let mut index = 0;
    for controller in &machine.controllers {
        let id = controller.id.as_str();
        let place = match controller.address {
            Some(slot) => context.slots.at(slot),
            None => {
                index += 1;
                context.slots.controller(index - 1)
            }
        };
        let device = match controller.model {
            ControllerModel::Virtio => context.virtio_as(Virtio::Scsi, id, controller.virtio),
            model => Object::device(drivers::controller(model, context.board.bus()), id),
        };
        args.device(
            device
                .at(place)
                .set_some(
                    "multifunction",
                    first_of_several(machine, controller.address),
                )
                .set_some("num_queues", controller.queues)
                .set_some("virtqueue_size", controller.queue_size)
                .set_some("max_sectors", controller.max_sectors)
                .set_some(
                    "iothread",
                    controller.iothread.as_ref().map(ToString::to_string),
                ),
        );
    }
}

/// Function 0 of a slot tells of the others.
pub(super) fn first_of_several(machine: &Machine, address: Option<PciSlot>) -> Option<bool> {
    address
        .filter(|slot| shares_slot(machine, *slot))
        .map(|_| true)
}

/// The floppy controller: pc has one of its own. The boot order is the controller's word.
pub(super) fn floppy_controller(args: &mut Args, machine: &Machine) {
    let boots = machine.kernel.is_none();
    let floppies = machine
        .disks
        .iter()
        .filter(|disk| disk.bus == DiskBus::Floppy);
    let places = floppies.map(|disk| disk.boot.filter(|_| boots));
    let places = ["bootindexA", "bootindexB"].into_iter().zip(places);
    let places = places.filter_map(|(key, place)| Some((key, place?)));
    if machine.board.kind == BoardKind::Pc {
        for (key, place) in places {
            let order = Options::with("driver", drivers::FLOPPY_CONTROLLER)
                .set("property", key)
                .set("value", place);
            args.options("-global", order);
        }
    } else {
        let controller = Object::device(drivers::FLOPPY_CONTROLLER, FLOPPY);
        args.device(places.fold(controller, |device, (key, place)| device.set(key, place)));
    }
}

/// The connection to the program that does a disk's work.
pub(super) fn socket(disk: &Disk) -> String {
    format!("disk-{}-socket", disk.id)
}

/// What the guest sees of a disk, and what follows its errors.
pub(super) fn options(device: Object, disk: &Disk) -> Object {
    let options = &disk.options;
    let nvme = disk.bus == DiskBus::Nvme;
    let scsi = disk.bus == DiskBus::Scsi;
    let queues = if nvme { "max_ioqpairs" } else { "num-queues" };
    let product = if scsi { "product" } else { "model" };
    device
        .set_some("chardev", options.vhost_user.as_ref().map(|_| socket(disk)))
        .set_some(
            "iothread",
            options.iothread.as_ref().map(ToString::to_string),
        )
        .set_some(queues, options.queues)
        .set_some("queue-size", options.queue_size)
        .set_some("wwn", options.wwn)
        .set_some("vendor", options.vendor.as_deref())
        .set_some(product, options.product.as_deref())
        .set_some("logical_block_size", options.logical_block_size)
        .set_some("physical_block_size", options.physical_block_size)
        .set_some("rotation_rate", options.rotation_rate)
        .set_some("rerror", options.rerror.map(|word| word.as_str()))
        .set_some("werror", options.werror.map(|word| word.as_str()))
}
