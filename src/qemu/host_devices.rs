//! Devices of the host.

use super::Context;
use super::args::{Args, Object, path};
use super::command::FdSource;
use super::disk::USB;
use crate::machine::drivers;
use crate::machine::host_devices::GuestPlace;
use crate::machine::slots::usb_port;
use crate::machine::{HostDevice, HostDeviceKind, HostPci, HostUsb, Machine, UsbAsk};

const IOMMUFD: &str = "mvm-iommufd";
/// Its descriptor.
const IOMMUFD_FD: &str = "iommu";

pub(super) fn add(args: &mut Args, machine: &Machine, context: Context) {
    if machine.iommufd {
        let object = Object::new("qom-type", drivers::IOMMUFD).set("id", IOMMUFD);
        if machine.run_as.is_some() {
            // It is for all devices of the host: another user gets it open, and not the node.
            let real = object.clone().set("fd", format!("{{fd:{IOMMUFD_FD}}}"));
            args.json_fd("-object", real, object);
            args.fd(IOMMUFD_FD, FdSource::Device("/dev/iommu".into()));
        } else {
            args.json("-object", object);
        }
    }
    let mut usbs = 0;
    for device in &machine.host_devices {
        match &device.kind {
            HostDeviceKind::Usb(usb) => {
                args.device(
                    usb_host(device, usb, context.slots.is_hot())
                        .set("bus", format!("{USB}.0"))
                        // In a guest that runs QEMU takes the first port that is free.
                        .set_some(
                            "port",
                            (!context.slots.is_hot()).then(|| usb_port(machine, usbs).to_string()),
                        ),
                );
                usbs += 1;
            }
            HostDeviceKind::Pci(_) | HostDeviceKind::Mdev(_) => {
                if let Some(vfio) = vfio(device, machine.iommufd) {
                    args.device(at(vfio, device, context));
                }
            }
        }
    }
}

/// A PCI function or a mediated device, without its place in the guest; `None` for what is none of these.
fn vfio(device: &HostDevice, iommufd: bool) -> Option<Object> {
    let object = Object::device(device.guest.driver(), device.id.as_str());
    let object = match &device.kind {
        HostDeviceKind::Pci(HostPci { address, .. }) => object.set("host", address.to_string()),
        HostDeviceKind::Mdev(mdev) => object
            .set("sysfsdev", format!("/sys/bus/mdev/devices/{}", mdev.uuid))
            // Without it its picture is the guest's own affair.
            .set("display", if device.guest.display { "on" } else { "off" }),
        HostDeviceKind::Usb(_) => return None,
    };
    let guest = &device.guest;
    let igd = guest.igd.as_ref();
    Some(
        object
            .set_some("iommufd", iommufd.then_some(IOMMUFD))
            .set_some("romfile", guest.rom.as_deref().map(path))
            .set_some("rombar", guest.no_rom.then_some(0))
            .set_some("ramfb", guest.ramfb.then_some(true))
            .set_some("x-vga", guest.x_vga.then_some(true))
            .set_some("x-igd-opregion", igd.map(|igd| igd.opregion))
            .set_some("x-igd-gms", igd.and_then(|igd| igd.gms)),
    )
}

/// A USB device, without its place in the guest. At the start it is named by its port: what is plugged in
/// there is it. A QEMU that runs gets its node: without udev, libusb does not see what was plugged in since.
fn usb_host(device: &HostDevice, usb: &HostUsb, hot: bool) -> Object {
    let object = Object::device(drivers::USB_HOST, device.id.as_str());
    if hot {
        let node = format!("/dev/bus/usb/{:03}/{:03}", usb.bus, usb.address);
        return object.set("hostdevice", node);
    }
    // QEMU looks there again when the device has gone. What else is plugged in there is the guest's only
    // where it asked for the port.
    let (vendor, product) = match usb.ask {
        UsbAsk::Port(_) => (None, None),
        _ => (Some(usb.vendor), Some(usb.product)),
    };
    object
        .set("hostbus", u32::from(usb.bus))
        .set("hostport", usb.hostport.as_str())
        .set_some("vendorid", vendor)
        .set_some("productid", product)
}

fn at(object: Object, device: &HostDevice, context: Context) -> Object {
    let Some(place) = device.guest.place else {
        return object;
    };
    let (GuestPlace::Root { multifunction, .. } | GuestPlace::Own { multifunction, .. }) = place;
    object
        .at(context.slots.host(place))
        .set_some("multifunction", multifunction.then_some(true))
}
