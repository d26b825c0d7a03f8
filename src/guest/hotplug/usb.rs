//! USB devices that are plugged in again come back to their guest.
//!
//! One that is pulled out is taken out of QEMU, and stays the guest's in `devices.json`; when it is plugged
//! in again, wherever that is, it is put in anew under the same name. QEMU's own looking is not relied upon:
//! libusb hears of new devices from udev alone, not every host has that, and a new node may not be open to
//! the user that runs QEMU.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::book::{Phase, Record};
use super::uevents::{Plugged, Uevents};
use super::{Hotplug, HotplugError, Inner, blocking, qom};
use crate::host::Roots;
use crate::host::devices::{DeviceFacts, Holder, Lease, UsbDevice};
use crate::host::links::LinkFacts;
use crate::ids::Id;
use crate::machine::{HostDevice, HostDeviceKind, HostUsb, Machine, UsbAsk};
use crate::plan::Attachment;

/// For the kernel to set up what was plugged in, drivers included.
const SETTLE: Duration = Duration::from_millis(700);
/// How often it is looked for: while a driver is at it, its strings are not told.
const LOOKS: u32 = 5;
/// For QEMU to drop a device; a guest is not asked.
const DROP: Duration = Duration::from_secs(10);

impl Hotplug {
    /// Follows what is plugged in, once the guest has a USB device of the host.
    pub(crate) async fn follow_usb(self: Arc<Self>) {
        let mut changes = self.changes.subscribe();
        while !self
            .plan()
            .is_ok_and(|plan| usb(&plan.machine).next().is_some())
        {
            if changes.changed().await.is_err() {
                return;
            }
        }
        let events = match Uevents::open() {
            Ok(events) => events,
            Err(error) => {
                tracing::warn!(%error, "USB devices at other ports will not be seen");
                return;
            }
        };
        // What came while nobody looked.
        self.plugged_in(None).await;
        loop {
            match events.usb().await {
                Ok(Plugged::Out(name)) => {
                    if let Err(error) = self.pulled_out(&name).await {
                        tracing::warn!(%error, "{name} was pulled out, and QEMU keeps it");
                    }
                }
                Ok(Plugged::In(name)) => {
                    sleep(SETTLE).await;
                    self.plugged_in(Some(&name)).await;
                }
                Ok(Plugged::Unknown) => {
                    sleep(SETTLE).await;
                    self.plugged_in(None).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "USB devices at other ports are no longer seen");
                    return;
                }
            }
        }
    }

    /// Gives what was plugged in to the guest if it is the guest's; without a name, whatever there is.
    async fn plugged_in(self: &Arc<Self>, name: Option<&str>) {
        for look in 0..LOOKS {
            if look > 0 {
                sleep(SETTLE).await;
            }
            let read = blocking(|| Ok(DeviceFacts::read(&Roots::host(None)))).await;
            let Ok(facts) = read else {
                return;
            };
            let wanted = |device: &&UsbDevice| name.is_none_or(|name| device.path == name);
            let mut found = false;
            for device in facts.usb.iter().filter(wanted) {
                found = true;
                match self.bring_back(&facts, device).await {
                    Ok(Some(id)) => tracing::info!("`{id}` is back, at {}", device.port),
                    Ok(None) => {}
                    Err(error) => tracing::warn!(%error, "{} was not given back", device.port),
                }
            }
            // One whose strings could not be read yet may be looked for by its serial number.
            let known = |device: &UsbDevice| device.serial.is_some() || look + 1 == LOOKS;
            if found && facts.usb.iter().filter(wanted).all(known) {
                return;
            }
            if name.is_none() {
                return;
            }
        }
    }

    /// Takes a device of the guest's that is gone out of QEMU.
    async fn pulled_out(&self, name: &str) -> Result<(), HotplugError> {
        let mut inner = self.inner().await?;
        let machine = self.plan()?.machine;
        let was = |usb: &HostUsb| format!("{}-{}", usb.bus, usb.hostport) == name;
        let Some((of_guest, _)) = usb(&machine).find(|(_, usb)| was(usb)) else {
            return Ok(());
        };
        let record = self.known(&inner, of_guest.id.as_str())?;
        if record.phase != Phase::There {
            return Ok(());
        }
        let away = Record {
            phase: Phase::Away,
            ..record
        };
        inner.put(&self.run, away.clone())?;
        tracing::info!("`{}` was pulled out", away.id);
        self.ask(&self.qmp()?, &away, Instant::now() + DROP).await
    }

    /// The name of the guest's device that this one is, if it had to be put in anew.
    async fn bring_back(
        self: &Arc<Self>,
        facts: &DeviceFacts,
        device: &UsbDevice,
    ) -> Result<Option<Id>, HotplugError> {
        let mut inner = self.inner().await?;
        let machine = self.plan()?.machine;
        let theirs = usb(&machine).find(|(_, usb)| is_it(usb, device));
        let Some((of_guest, usb)) = theirs else {
            return Ok(None);
        };
        let away = inner.book.find(of_guest.id.as_str());
        let away = away.is_some_and(|record| record.phase == Phase::Away);
        let stays = if is_at(usb, device) {
            !away && !is_new(usb, device)
        } else {
            !away && is_still_there(usb, facts)
        };
        if stays {
            return Ok(None);
        }
        if !is_free(of_guest, facts, device) {
            return Ok(None);
        }
        let id = of_guest.id.clone();
        let moved = HostDevice {
            text: device.line(),
            kind: HostDeviceKind::Usb(HostUsb::of(device, usb.ask.clone())),
            ..of_guest.clone()
        };
        self.swap(&mut inner, &id, moved).await?;
        Ok(Some(id))
    }

    /// Puts `new` in the place of the device of that name.
    async fn swap(
        self: &Arc<Self>,
        inner: &mut Inner,
        id: &Id,
        new: HostDevice,
    ) -> Result<(), HotplugError> {
        let qmp = self.qmp()?;
        let record = self.known(inner, id.as_str())?;
        let mut addition = record.addition.clone();
        for device in &mut addition.host.devices {
            if device.id == *id {
                *device = new.clone();
            }
        }
        let deadline = Instant::now() + DROP;
        self.ask(&qmp, &record, deadline).await?;
        loop {
            let there = qom::devices(&qmp).await?;
            if !record.devices().any(|device| there.contains(device)) {
                break;
            }
            if Instant::now() >= deadline {
                return Err(HotplugError::GuestRefused(id.to_string()));
            }
            sleep(Duration::from_millis(50)).await;
        }
        self.finish(inner, &qmp, record).await?;
        let machine = self.plan()?.machine;
        // It has neither taps nor disks.
        match Attachment::new(addition, &machine, &LinkFacts::default()) {
            Some(attachment) => self.attach_now(inner, attachment).await.map(drop),
            None => Ok(()),
        }
    }
}

/// The guest's USB devices of the host.
fn usb(machine: &Machine) -> impl Iterator<Item = (&HostDevice, &HostUsb)> {
    let devices = machine.host_devices.iter();
    devices.filter_map(|device| match &device.kind {
        HostDeviceKind::Usb(usb) => Some((device, usb)),
        _ => None,
    })
}

/// Whether the device answers to what the guest asked for: for one that was found by ids or words, the
/// device that was found then.
fn is_it(usb: &HostUsb, device: &UsbDevice) -> bool {
    match &usb.ask {
        UsbAsk::Port(port) => device.port == *port,
        UsbAsk::Serial(serial) => device.serial.as_ref() == Some(serial),
        UsbAsk::Id(..) | UsbAsk::Match(..) => {
            (usb.vendor, usb.product) == (device.vendor, device.product)
                && usb.serial == device.serial
        }
    }
}

/// Whether it is where QEMU looks for it.
fn is_at(usb: &HostUsb, device: &UsbDevice) -> bool {
    u32::from(usb.bus) == device.bus && device.hostport() == usb.hostport
}

/// Whether it was plugged in again since the guest got it, and QEMU has not taken it: that has `usbfs` for its
/// driver.
fn is_new(usb: &HostUsb, device: &UsbDevice) -> bool {
    let mut drivers = device.interfaces.iter().map(|interface| &interface.driver);
    let taken = drivers.any(|driver| driver.as_deref() == Some("usbfs"));
    u32::from(usb.address) != device.address && !taken
}

/// Whether the guest's device has never gone: then the new one is its twin.
fn is_still_there(usb: &HostUsb, facts: &DeviceFacts) -> bool {
    let same = |device: &UsbDevice| {
        is_at(usb, device) && (usb.vendor, usb.product) == (device.vendor, device.product)
    };
    facts.usb.iter().any(same)
}

/// Whether neither the host nor another guest has it.
fn is_free(of_guest: &HostDevice, facts: &DeviceFacts, device: &UsbDevice) -> bool {
    let wanted = device.extent();
    let held = |lease: &Lease| lease.holder != Holder::Gone && wanted.excludes(&lease.extent());
    let leased = facts.leases.iter().any(held);
    let ours = matches!(&of_guest.kind, HostDeviceKind::Usb(usb) if usb.port == device.port);
    let used = !of_guest.take_from_host && !device.used_by_host.is_empty();
    if used {
        tracing::warn!(
            "`{}` was plugged in at {}, and the host uses it already",
            of_guest.id,
            device.port
        );
    }
    (ours || !leased) && !used
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::host::devices::UsbInterface;

    fn stick(path: &str, serial: &str) -> UsbDevice {
        UsbDevice {
            port: path.parse().unwrap(),
            path: path.to_owned(),
            bus: path[..1].parse().unwrap(),
            vendor: 0x46f4,
            product: 1,
            serial: Some(serial.to_owned()),
            ..UsbDevice::default()
        }
    }

    fn asked(ask: UsbAsk) -> HostUsb {
        HostUsb::of(&stick("1-3", "A"), ask)
    }

    #[test]
    fn a_device_is_known_by_how_it_was_asked_for() {
        let other = |path, serial| stick(path, serial);
        let serial = asked(UsbAsk::Serial("A".to_owned()));
        assert!(is_it(&serial, &other("2-1", "A")) && !is_it(&serial, &other("1-3", "B")));
        let id = asked(UsbAsk::Id(0x46f4, 1));
        assert!(is_it(&id, &other("2-1", "A")) && !is_it(&id, &other("1-3", "B")));
        let port = asked(UsbAsk::Port("1-3".parse().unwrap()));
        assert!(is_it(&port, &other("1-3", "B")) && !is_it(&port, &other("1-4", "A")));
    }

    #[test]
    fn what_qemu_has_taken_by_itself_is_not_put_in_anew() {
        let usb = asked(UsbAsk::Serial("A".to_owned()));
        let plugged = |address, driver: &str| UsbDevice {
            address,
            interfaces: vec![UsbInterface {
                driver: Some(driver.to_owned()),
                ..UsbInterface::default()
            }],
            ..stick("1-3", "A")
        };
        assert!(!is_new(&usb, &plugged(0, "usb-storage")), "it never went");
        assert!(is_new(&usb, &plugged(7, "usb-storage")));
        assert!(!is_new(&usb, &plugged(7, "usbfs")));
    }

    #[test]
    fn a_twin_is_left_alone_while_the_device_is_there() {
        let usb = asked(UsbAsk::Serial("A".to_owned()));
        let facts = |devices: &[UsbDevice]| DeviceFacts {
            usb: devices.to_vec(),
            ..DeviceFacts::default()
        };
        let there = facts(&[stick("1-3", "A"), stick("2-1", "A")]);
        assert!(is_still_there(&usb, &there));
        assert!(is_at(&usb, &there.usb[0]) && !is_at(&usb, &there.usb[1]));
        assert!(!is_still_there(&usb, &facts(&[stick("2-1", "A")])));
    }
}
