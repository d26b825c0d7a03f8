//! USB devices.

use serde::{Deserialize, Serialize};

use crate::ids::{Bdf, UsbPort};

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

/// What a USB device is to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UsbKind {
    /// A keyboard.
    Keyboard,
    /// A mouse.
    Mouse,
    /// Another input device: a tablet, a game controller.
    Tablet,
    /// A disk, a stick, a card reader.
    Storage,
    /// A wired network adapter.
    Ethernet,
    /// A wireless network adapter or modem.
    Wireless,
    /// Bluetooth.
    Bluetooth,
    /// Sound.
    Audio,
    /// A camera.
    Camera,
    /// A serial port.
    Serial,
    /// A printer.
    Printer,
    /// A reader of chip cards.
    SmartCard,
    /// A phone or music player that shows its files.
    Phone,
    /// A hub.
    Hub,
}
