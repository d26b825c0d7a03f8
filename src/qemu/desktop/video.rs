//! Video devices.

use crate::machine::Machine;
use crate::machine::desktop::video::Value;
use crate::qemu::Context;
use crate::qemu::args::{Args, Object};

pub(super) fn add(args: &mut Args, machine: &Machine, context: Context) {
    let placed = machine
        .desktop
        .video
        .iter()
        .filter(|video| video.has_place());
    let count = placed.count();
    let mut index = 0;
    for video in &machine.desktop.video {
        let driver = video.driver(context.board);
        let id = video.id.as_str();
        let device = if !video.is_virtio() {
            Object::device(driver, id)
        } else if driver.starts_with("virtio-vga") && context.translated {
            // With VGA it is a legacy device too.
            Object::device(driver, id).set("iommu_platform", true)
        } else {
            context.virtio_named(driver, id)
        };
        let device = if video.has_place() {
            let place = context.slots.video(index);
            let first = context.slots.video_hides_others(index, count);
            index += 1;
            device
                .at(place)
                .set_some("multifunction", first.then_some(true))
        } else {
            device
        };
        let properties = video.properties();
        args.device(
            properties
                .iter()
                .fold(device, |device, (name, value)| match *value {
                    Value::Bool(on) => device.set(name, on),
                    Value::Number(number) => device.set(name, number),
                }),
        );
    }
}
