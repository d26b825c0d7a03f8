//! USB devices.

mod kind;
pub(super) mod read;

use serde::{Deserialize, Serialize};

use super::uses::HostUse;
use crate::handover::Extent;
use crate::ids::{Bdf, PciRef, UsbPort};

pub use kind::UsbKind;
pub(super) use kind::kinds_named;

/// A USB device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct UsbDevice {
    /// The port it is at, by the name of the port's USB 2 half.
    pub port: UsbPort,
    /// The kernel's own name of the device: that of the half that it uses.
    pub path: String,
    /// The bus it is on now: the number in `/dev/bus/usb/BUS/ADDRESS`.
    pub bus: u32,
    /// Its address on that bus, another one after each replugging.
    pub address: u32,
    /// The vendor.
    pub vendor: u16,
    /// The vendor's number for the product.
    pub product: u16,
    /// The vendor's name, from the device itself or a list; may be empty.
    pub vendor_name: String,
    /// The product's name, from the device itself or a list; may be empty.
    pub product_name: String,
    /// What the host's `usb.ids` calls it; empty where it does not say or there is no such list.
    pub listed: String,
    /// Its serial number.
    pub serial: Option<String>,
    /// The class of the whole device; 0 where its interfaces say it.
    pub class: u8,
    /// What it is.
    pub kinds: Vec<UsbKind>,
    /// Megabits per second: `1.5`, `12`, `480`, `5000`, …
    pub speed: String,
    /// Its interfaces in the configuration that is chosen.
    pub interfaces: Vec<UsbInterface>,
    /// The controller that it is behind.
    pub controller: Option<Bdf>,
    /// Whether it is a hub.
    pub hub: bool,
    /// What the host does with it.
    pub used_by_host: Vec<HostUse>,
}

impl UsbDevice {
    /// Its ports from the root hub on, as QEMU names them: `3.2`.
    pub fn hostport(&self) -> &str {
        self.path.split_once('-').map_or("", |(_, ports)| ports)
    }

    /// What a lease of it is of.
    pub fn extent(&self) -> Extent {
        Extent::usb(&self.port, self.controller.map(PciRef::Function))
    }
}

/// An interface of a USB device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct UsbInterface {
    /// The kernel's name, `1-3.2:1.0`.
    pub name: String,
    /// Its class.
    pub class: u8,
    /// Its subclass.
    pub subclass: u8,
    /// Its protocol.
    pub protocol: u8,
    /// The driver that has it.
    pub driver: Option<String>,
}

impl UsbDevice {
    /// Its names, ids and serial number: what words are looked for in.
    pub fn line(&self) -> String {
        let ids = format!("[{:04x}:{:04x}]", self.vendor, self.product);
        let mut line = match self.name() {
            name if name.is_empty() => ids,
            name => format!("{name} {ids}"),
        };
        for more in [self.serial.as_deref().unwrap_or_default(), &self.listed] {
            if !more.is_empty() {
                line.push(' ');
                line.push_str(more);
            }
        }
        line
    }

    /// What people call it.
    pub fn name(&self) -> String {
        let (vendor, product) = (self.vendor_name.as_str(), self.product_name.as_str());
        // Some makers say their name twice.
        if vendor.is_empty() || product.to_lowercase().starts_with(&vendor.to_lowercase()) {
            product.to_owned()
        } else if product.is_empty() {
            vendor.to_owned()
        } else {
            format!("{vendor} {product}")
        }
    }
}
