//! USB devices: QEMU takes them from their drivers by itself (libusb), and gives them back, unless it is
//! killed. Then the interfaces are left without a driver, and are probed again here.

use std::path::{Path, PathBuf};

use super::device_error::DeviceError;
use super::holders;
use super::sysfs::{Place, plain};
use crate::ids::UsbPort;
use crate::plan::step::Interface;

fn dir_of(name: &str) -> PathBuf {
    Path::new("bus/usb/devices").join(name)
}

/// The driver of an interface; QEMU's hold on it (`usbfs`) is none.
fn driver(place: &Place, interface: &str) -> Option<String> {
    place
        .link_name(dir_of(interface).join("driver"))
        .filter(|driver| driver != "usbfs")
}

/// The interfaces with the drivers that they have now.
pub(crate) fn observe(place: &Place, interfaces: &[Interface]) -> Vec<Interface> {
    let now = |interface: &Interface| Interface {
        name: interface.name.clone(),
        driver: driver(place, &interface.name),
    };
    interfaces.iter().map(now).collect()
}

/// The device that an interface belongs to, by the kernel's name: `1-3.2` of `1-3.2:1.0`.
fn device_of(interface: &str) -> &str {
    interface
        .split_once(':')
        .map_or(interface, |(name, _)| name)
}

/// Gives the interfaces that have lost their driver back to it. A device that was pulled out, or was
/// replaced by another, needs nothing: the kernel looks for drivers when one is plugged in.
pub(crate) fn give_back(
    place: &Place,
    port: &UsbPort,
    interfaces: &[Interface],
) -> Result<(), DeviceError> {
    let Some(name) = interfaces.first().map(|first| device_of(&first.name)) else {
        return Ok(());
    };
    for interface in interfaces {
        plain(&interface.name)?;
        interface.driver.as_deref().map_or(Ok(()), plain)?;
    }
    if !place.exists(dir_of(name)) {
        return Ok(());
    }
    let number = |file: &str| place.number::<u32>(dir_of(name).join(file));
    if let (Some(bus), Some(address)) = (number("busnum"), number("devnum")) {
        if let Some(by) = holders::wait_for_usb(place, bus, address) {
            let device = format!("the USB device at {port}");
            return Err(DeviceError::InUse { device, by });
        }
    }
    let device = place.device(format!("usb-{name}"));
    device.wait_until_quiet()?;
    let lost = || -> Vec<&Interface> {
        interfaces
            .iter()
            .filter(|interface| {
                interface.driver.is_some() && driver(place, &interface.name).is_none()
            })
            .collect()
    };
    // A guest may have left it without a configuration, and so without interfaces: its own driver
    // (`usb`) chooses one when it is given the device again.
    let configured = place
        .read(dir_of(name).join("bConfigurationValue"))
        .is_none_or(|value| !value.is_empty() && value != "0");
    if !configured && !lost().is_empty() {
        device.command("bus/usb/drivers/usb/unbind", &format!("{name}\n"))?;
        device.command("bus/usb/drivers/usb/bind", &format!("{name}\n"))?;
    }
    for interface in lost() {
        if place.exists(dir_of(&interface.name)) {
            device.command("bus/usb/drivers_probe", &format!("{}\n", interface.name))?;
        }
    }
    match lost()
        .into_iter()
        .find(|interface| place.exists(dir_of(&interface.name)))
    {
        None => Ok(()),
        Some(interface) => Err(DeviceError::NotBound {
            device: format!("the USB interface {}", interface.name),
            wanted: interface.driver.clone().unwrap_or_default(),
            got: None,
            hint: Some("unplug it and plug it in again".to_owned()),
        }),
    }
}
