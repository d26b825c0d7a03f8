//! Reading `/sys/bus/usb/devices` (`Documentation/ABI/stable/sysfs-bus-usb` and `testing/sysfs-bus-usb`).

use std::path::Path;

use super::kind;
use super::{UsbDevice, UsbInterface};
use crate::host::devices::slow::Answers;
use crate::host::devices::{names, place};
use crate::host::sysfs::Sysfs;
use crate::ids::UsbPort;

const DEVICES: &str = "bus/usb/devices";

/// From here on a device uses the USB 3 half of its port, in Mbit/s.
const SUPER_SPEED: f64 = 5000.0;

/// The kernel takes the device's lock to show these.
const STRINGS: [&str; 3] = ["manufacturer", "product", "serial"];

/// The kernel's names of the devices. `usb1` is a root hub, `1-3:1.0` an interface.
fn paths(sysfs: &Sysfs) -> Vec<String> {
    let mut names = sysfs.list(DEVICES).unwrap_or_default();
    names.retain(|name| name.parse::<UsbPort>().is_ok());
    names
}

fn file(path: &str, file: &str) -> String {
    format!("{DEVICES}/{path}/{file}")
}

/// The files of the devices' own words, read beside others that may not answer.
pub(in crate::host::devices) fn slow_files(sysfs: &Sysfs) -> Vec<String> {
    let paths = paths(sysfs);
    let each = |path: &String| STRINGS.map(|string| file(path, string));
    paths.iter().flat_map(each).collect()
}

/// Every device but root hubs, in the order of the ports; what the host does with them is left open.
pub(in crate::host::devices) fn read(
    sysfs: &Sysfs,
    around: Option<&Path>,
    answers: &Answers,
) -> Vec<UsbDevice> {
    let mut all: Vec<UsbDevice> = paths(sysfs)
        .iter()
        .filter_map(|path| device(sysfs, path, answers))
        .collect();
    let found = names::usb(around, all.iter().map(|d| (d.vendor, d.product)));
    for device in &mut all {
        let vendor = found.vendor(device.vendor).unwrap_or_default();
        let product = found
            .device(device.vendor, device.product)
            .unwrap_or_default();
        device.listed = format!("{vendor} {product}").trim().to_owned();
        if device.vendor_name.is_empty() {
            device.vendor_name = vendor;
        }
        if device.product_name.is_empty() {
            device.product_name = product;
        }
        device.kinds = kind::kinds(device);
    }
    all.sort_by_cached_key(|device| (order(&device.port), order_of(&device.path)));
    all
}

/// Bus, then port by port, as numbers.
fn order(port: &UsbPort) -> Vec<u32> {
    order_of(port.as_str())
}

fn order_of(path: &str) -> Vec<u32> {
    path.split(['-', '.'])
        .filter_map(|part| part.parse().ok())
        .collect()
}

/// One that went away while it was read is left out.
fn device(sysfs: &Sysfs, path: &str, answers: &Answers) -> Option<UsbDevice> {
    let text = |name: &str| sysfs.read(file(path, name)).ok();
    let hex = |name: &str| u16::from_str_radix(&text(name)?, 16).ok();
    let number = |name: &str| text(name)?.parse().ok();
    let string = |name: &str| {
        let text = answers.text(&file(path, name)).map(str::trim);
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let words = |name: &str| {
        let text = string(name).unwrap_or_default();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let speed = text("speed").unwrap_or_default();
    let class = hex("bDeviceClass").unwrap_or(0) as u8;
    Some(UsbDevice {
        port: port(sysfs, path, &speed)?,
        path: path.to_owned(),
        bus: number("busnum")?,
        address: number("devnum")?,
        vendor: hex("idVendor")?,
        product: hex("idProduct")?,
        vendor_name: words("manufacturer"),
        product_name: words("product"),
        serial: string("serial"),
        class,
        interfaces: interfaces(sysfs, path),
        controller: place::of(sysfs, &format!("{DEVICES}/{path}")).function(),
        hub: class == 0x09,
        speed,
        ..UsbDevice::default()
    })
}

/// The port by its USB 2 half: the peer's name for a device that uses the USB 3 half.
fn port(sysfs: &Sysfs, path: &str, speed: &str) -> Option<UsbPort> {
    let own = path.parse().ok()?;
    if speed.parse().is_ok_and(|speed: f64| speed >= SUPER_SPEED) {
        let peer = sysfs.link_name(file(path, "port/peer")).ok().flatten();
        if let Some(port) = peer.as_deref().and_then(port_of_name) {
            return Some(port);
        }
    }
    Some(own)
}

/// A port's own name is `usb1-port3` on a root hub and `1-3-port2` on another.
fn port_of_name(name: &str) -> Option<UsbPort> {
    let (hub, port) = name.rsplit_once("-port")?;
    let path = match hub.strip_prefix("usb") {
        Some(bus) => format!("{bus}-{port}"),
        None => format!("{hub}.{port}"),
    };
    path.parse().ok()
}

fn interfaces(sysfs: &Sysfs, path: &str) -> Vec<UsbInterface> {
    let dir = format!("{DEVICES}/{path}");
    let mut names = sysfs.list(&dir).unwrap_or_default();
    let prefix = format!("{path}:");
    names.retain(|name| name.starts_with(&prefix));
    let one = |name: String| {
        let hex = |file: &str| {
            let text = sysfs
                .read(format!("{dir}/{name}/{file}"))
                .unwrap_or_default();
            u8::from_str_radix(&text, 16).unwrap_or(0)
        };
        UsbInterface {
            class: hex("bInterfaceClass"),
            subclass: hex("bInterfaceSubClass"),
            protocol: hex("bInterfaceProtocol"),
            driver: sysfs
                .link_name(format!("{dir}/{name}/driver"))
                .ok()
                .flatten(),
            name,
        }
    };
    names.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_have_names_of_their_own() {
        let port = |name| port_of_name(name).map(|port| port.to_string());
        assert_eq!(port("usb1-port3").as_deref(), Some("1-3"));
        assert_eq!(port("1-3.4-port2").as_deref(), Some("1-3.4.2"));
        assert_eq!(port("nonsense"), None);
    }

    #[test]
    fn ports_are_sorted_by_number() {
        assert!(order_of("1-9") < order_of("1-10"));
        assert!(order_of("1-9") < order_of("1-9.1"));
    }
}
