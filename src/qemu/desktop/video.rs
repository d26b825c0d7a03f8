//! Video devices.

use crate::machine::desktop::video::Value;
use crate::machine::{Bus, Machine};
use crate::qemu::Context;
use crate::qemu::args::{Args, Object};

pub(super) fn add(args: &mut Args, machine: &Machine, context: Context) {
    let placed = machine
        .desktop
        .video
        .iter()
        .filter(|video| video.has_place());
    let several = placed.count() > 1;
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
            index += 1;
            let first = index == 1 && several && context.board.bus() != Bus::Mmio;
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
