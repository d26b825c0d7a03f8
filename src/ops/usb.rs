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
    // An interface that QEMU holds has lost its driver as well. Where none has, whoever has the device
    // open is no concern of ours.
    if lost().is_empty() {
        return Ok(());
    }
    let number = |file: &str| place.number::<u32>(dir_of(name).join(file));
    if let (Some(bus), Some(address)) = (number("busnum"), number("devnum")) {
        if let Some(by) = holders::wait_for_usb(place, bus, address) {
            let device = format!("the USB device at {port}");
            return Err(DeviceError::InUse { device, by });
        }
    }
    // A guest may have left it without a configuration, and so without interfaces: its own driver
    // (`usb`) chooses one when it is given the device again.
    let configured = match device.read(dir_of(name).join("bConfigurationValue")) {
        // Pulled out meanwhile.
        Err(_) if !place.exists(dir_of(name)) => return Ok(()),
        value => value?.is_none_or(|value| !value.is_empty() && value != "0"),
    };
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::hosts;
    use crate::ops::standin;

    #[test]
    fn a_device_that_lost_no_driver_is_given_back_whoever_has_it_open() {
        let tree = hosts::Host::new("intel-i915-7vf");
        let top = tempfile::tempdir().unwrap();
        let place = standin::slow(tree.root(), &top.path().join("host"), "bConfigurationValue");
        let _lock = place.host.lock().unwrap();
        let port: UsbPort = "1-3".parse().unwrap();
        let interfaces = observe(
            &place,
            &["1-3:1.0", "1-3:1.1", "1-3:1.2"].map(|name| Interface {
                name: name.to_owned(),
                driver: None,
            }),
        );
        assert!(interfaces.iter().any(|one| one.driver.is_some()));
        // A process of the host's own has it open, beside the kernel's drivers.
        let number = |file: &str| -> u32 { place.number(dir_of("1-3").join(file)).unwrap() };
        let (bus, address) = (number("busnum"), number("devnum"));
        let fds = place.proc.join("4242/fd");
        std::fs::create_dir_all(&fds).unwrap();
        let node = format!("/dev/bus/usb/{bus:03}/{address:03}");
        symlink(node, fds.join("3")).unwrap();
        give_back(&place, &port, &interfaces).unwrap();
        // Where one is lost, the configuration is looked at, but not for ever.
        std::fs::remove_file(fds.join("3")).unwrap();
        let bound = |one: &&Interface| one.driver.is_some();
        let lost = &interfaces.iter().find(bound).unwrap().name;
        std::fs::remove_file(place.path(dir_of(lost).join("driver"))).unwrap();
        let error = give_back(&place, &port, &interfaces).unwrap_err();
        assert!(matches!(error, DeviceError::Stuck { .. }), "{error}");
    }
}
