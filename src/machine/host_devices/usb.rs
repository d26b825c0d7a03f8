//! USB devices.

use super::error::DeviceError;
use super::may::taken;
use super::resolve::Asked;
use super::{GuestSide, HostDevice, HostDeviceKind, HostUsb, UsbAsk};
use crate::host::devices::{UsbDevice, find};
use crate::ids::Id;
use crate::profile::schema::UsbTable;

/// The USB devices of the guest.
pub(super) fn usbs(
    asked: Asked<'_>,
    notes: &mut Vec<String>,
) -> Result<Vec<HostDevice>, DeviceError> {
    let mut out: Vec<HostDevice> = Vec::new();
    for (id, table) in asked.layer.usb.iter().flatten() {
        let what = format!("`[usb.{id}]`");
        let (device, ask) = find_one(asked, &what, table)?;
        if matches!(ask, UsbAsk::Id(..) | UsbAsk::Match(..)) {
            let nth = table.nth.map(|nth| format!(":{nth}"));
            let nth = nth.unwrap_or_default();
            let words = match &ask {
                UsbAsk::Match(words, _) => words.clone(),
                ask => ask.to_string(),
            };
            notes.push(format!("{words}{nth} → {}", find::usb_line(device)));
        }
        let usb = take(asked, id, &what, table, device, ask)?;
        let twin = out.iter().find(|other| match (&other.kind, &usb.kind) {
            (HostDeviceKind::Usb(other), HostDeviceKind::Usb(usb)) => other.port == usb.port,
            _ => false,
        });
        if let Some(twin) = twin {
            return Err(DeviceError::Twice {
                first: format!("`[usb.{}]`", twin.id),
                second: what,
                device: find::usb_line(device),
            });
        }
        out.push(usb);
    }
    Ok(out)
}

/// The device that a table means, and how it was asked for.
fn find_one<'a>(
    asked: Asked<'a>,
    what: &str,
    table: &UsbTable,
) -> Result<(&'a UsbDevice, UsbAsk), DeviceError> {
    let facts = asked.devices();
    let number = table.nth.unwrap_or(1);
    let nth = number as usize;
    let (found, ask) = if let Some(id) = table.id {
        (
            find::usb_id(facts, id.vendor, id.device, nth),
            UsbAsk::Id(id.vendor, id.device),
        )
    } else if let Some(serial) = &table.serial {
        (
            find::usb_serial(facts, serial),
            UsbAsk::Serial(serial.clone()),
        )
    } else if let Some(port) = &table.port {
        (find::usb_at(facts, port), UsbAsk::Port(port.clone()))
    } else {
        let words = table.r#match.clone().unwrap_or_default();
        (
            find::usb_words(facts, &words, nth),
            UsbAsk::Match(words, number),
        )
    };
    match found {
        Ok(device) => Ok((device, ask)),
        Err(error) => Err(DeviceError::Find {
            what: what.to_owned(),
            error,
            gone: facts.usb_controllers_of_guests(),
        }),
    }
}

fn take(
    asked: Asked<'_>,
    id: &Id,
    what: &str,
    table: &UsbTable,
    device: &UsbDevice,
    ask: UsbAsk,
) -> Result<HostDevice, DeviceError> {
    let what = || what.to_owned();
    let text = find::usb_line(device);
    if device.hub {
        return Err(DeviceError::Hub {
            what: what(),
            device: text,
        });
    }
    if let Some(lease) = asked.other_guest(&device.extent()) {
        let device = match lease.pci() {
            Some(controller) => format!("its controller {controller}"),
            None => text,
        };
        return Err(taken(&what(), device, lease));
    }
    let take_from_host = table.take_from_host.or(asked.layer.take_from_host);
    let take_from_host = take_from_host.unwrap_or(false);
    if !take_from_host && !device.used_by_host.is_empty() {
        return Err(DeviceError::Host {
            what: what(),
            device: text,
            uses: device
                .used_by_host
                .iter()
                .map(ToString::to_string)
                .collect(),
        });
    }
    Ok(HostDevice {
        id: id.clone(),
        text: device.line(),
        kind: HostDeviceKind::Usb(HostUsb::of(device, ask)),
        take_from_host,
        park: false,
        guest: GuestSide::default(),
    })
}

impl HostUsb {
    /// The device where it is plugged in now.
    pub fn of(device: &UsbDevice, ask: UsbAsk) -> Self {
        // The kernel's numbers are smaller: 127 devices on a bus.
        let number = |number: u32| u8::try_from(number).unwrap_or(u8::MAX);
        let interfaces = device.interfaces.iter();
        Self {
            port: device.port.clone(),
            part_of: device.extent().part_of,
            bus: number(device.bus),
            address: number(device.address),
            hostport: device.hostport().to_owned(),
            vendor: device.vendor,
            product: device.product,
            serial: device.serial.clone(),
            interfaces: interfaces
                .map(|interface| (interface.name.clone(), interface.driver.clone()))
                .collect(),
            ask,
        }
    }
}
