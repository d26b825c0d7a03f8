//! Ports of the USB controller.

use crate::machine::{HostDeviceKind, Machine};
use crate::profile::schema::DiskBus;

/// How many USB devices of the host there are.
pub(super) fn usb_hosts(machine: &Machine) -> usize {
    let devices = machine.host_devices.iter();
    devices
        .filter(|device| matches!(device.kind, HostDeviceKind::Usb(_)))
        .count()
}

/// Whether the guest has the USB controller, whose ports count from 1.
pub fn has_usb(machine: &Machine) -> bool {
    usb_hosts(machine) > 0
        || machine.disks.iter().any(|disk| disk.bus == DiskBus::Usb)
        || machine.desktop.usb.asked
        || machine.desktop.on_usb() > 0
}

/// The port of a USB device of the host, from the last down: disks have the first ones.
pub fn usb_port(machine: &Machine, index: usize) -> usize {
    usize::from(machine.desktop.usb.ports).saturating_sub(index)
}

/// The ports of the desktop's USB devices, in their order: from the middle on to both sides, so that neither
/// another disk nor another device of the host moves them.
pub fn desktop_ports(machine: &Machine) -> Vec<(String, usize)> {
    let ports = usize::from(machine.desktop.usb.ports);
    let disks = machine.disks.iter().filter(|disk| disk.bus == DiskBus::Usb);
    let first_free = disks.count() + 1;
    let last_free = ports.saturating_sub(usb_hosts(machine));
    let middle = ports / 2 + 1;
    let mut free: Vec<usize> = (first_free..=last_free).collect();
    free.sort_by_key(|port| (port.abs_diff(middle), *port));
    // `check` lets no more devices through than there are ports.
    machine.desktop.usb_devices().zip(free).collect()
}
