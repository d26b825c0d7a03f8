//! Where a device of the host sits: PCI functions, virtual functions, USB ports.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::BadName;

/// The place of a PCI function: domain, bus, device and function, `0000:01:00.0`.
///
/// A domain has four hexadecimal digits, more where the kernel made it up (`10000` and above: VMD,
/// Hyper-V). Ordered as on the bus.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Bdf {
    /// The PCI domain, also called segment.
    pub domain: u32,
    /// The bus.
    pub bus: u8,
    /// The device on the bus, at most 31.
    pub device: u8,
    /// The function of the device, at most 7.
    pub function: u8,
}

impl Bdf {
    /// The routing id within the domain: bus, device and function in 16 bits. SR-IOV's offset and
    /// stride count in it.
    pub const fn routing_id(self) -> u16 {
        (self.bus as u16) << 8 | (self.device as u16) << 3 | self.function as u16
    }

    /// The function of that routing id.
    pub const fn from_routing_id(domain: u32, id: u16) -> Self {
        Self {
            domain,
            bus: (id >> 8) as u8,
            device: (id >> 3 & 0x1f) as u8,
            function: (id & 7) as u8,
        }
    }

    /// Whether both are functions of one device.
    pub const fn same_slot(self, other: Self) -> bool {
        self.domain == other.domain && self.bus == other.bus && self.device == other.device
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            bus,
            device,
            function,
        } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

impl FromStr for Bdf {
    type Err = BadName;

    /// `0000:01:00.0`, or `01:00.0` in domain 0.
    fn from_str(text: &str) -> Result<Self, BadName> {
        parse_bdf(text).ok_or_else(|| bad(text, "a PCI address", "as in 0000:01:00.0"))
    }
}

fn parse_bdf(text: &str) -> Option<Bdf> {
    let (rest, function) = text.rsplit_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let (domain, bus) = rest.split_once(':').unwrap_or(("0", rest));
    Some(Bdf {
        domain: hex(domain, 8)?,
        bus: u8::try_from(hex(bus, 2)?).ok()?,
        device: u8::try_from(hex(device, 2)?)
            .ok()
            .filter(|device| *device < 32)?,
        function: u8::try_from(hex(function, 1)?)
            .ok()
            .filter(|function| *function < 8)?,
    })
}

/// A hexadecimal number of at most so many digits, without the sign that `from_str_radix` takes.
fn hex(text: &str, digits: usize) -> Option<u32> {
    if text.len() > digits || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(text, 16).ok()
}

/// A slot and function of a guest's root bus: `0x10`, `0x10.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PciSlot {
    /// The slot, at most 31.
    pub slot: u8,
    /// The function of the slot, at most 7.
    pub function: u8,
}

impl fmt::Display for PciSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.function {
            0 => write!(f, "{:#x}", self.slot),
            function => write!(f, "{:#x}.{function:#x}", self.slot),
        }
    }
}

impl FromStr for PciSlot {
    type Err = BadName;

    /// Hexadecimal, with or without `0x`: `0x10`, `10`, `10.1`.
    fn from_str(text: &str) -> Result<Self, BadName> {
        let number = |text: &str, digits| hex(text.strip_prefix("0x").unwrap_or(text), digits);
        let (slot, function) = text.split_once('.').unwrap_or((text, "0"));
        match (number(slot, 2), number(function, 1)) {
            (Some(slot @ 0..32), Some(function @ 0..8)) => Ok(Self {
                slot: slot as u8,
                function: function as u8,
            }),
            _ => Err(bad(text, "a slot of a PCI bus", "as in 0x10 or 0x10.1")),
        }
    }
}

/// A PCI function under the one name that it has for its whole life.
///
/// A virtual function is named by its physical function and its number, whether it exists already or
/// not; its address is the kernel's to choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PciRef {
    /// A function that is no virtual one.
    Function(Bdf),
    /// A virtual function: `vf:1@0000:00:02.0`.
    Vf {
        /// The physical function.
        pf: Bdf,
        /// Its number, from 1. Number k is `virtfn{k-1}` in sysfs.
        index: u32,
    },
}

impl PciRef {
    /// The function itself, or the one that the virtual function belongs to.
    pub const fn physical(self) -> Bdf {
        match self {
            Self::Function(bdf) | Self::Vf { pf: bdf, .. } => bdf,
        }
    }

    /// Its name as a file's: `pci-0000:01:00.0`, `pci-0000:01:00.0-vf1`.
    pub fn key(self) -> String {
        match self {
            Self::Function(bdf) => format!("pci-{bdf}"),
            Self::Vf { pf, index } => format!("pci-{pf}-vf{index}"),
        }
    }

    /// The function that has this key.
    pub fn from_key(key: &str) -> Option<Self> {
        let text = key.strip_prefix("pci-")?;
        match text.split_once("-vf") {
            None => parse_bdf(text).map(Self::Function),
            Some((pf, index)) => format!("vf:{index}@{pf}").parse().ok(),
        }
    }
}

impl fmt::Display for PciRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(bdf) => bdf.fmt(f),
            Self::Vf { pf, index } => write!(f, "vf:{index}@{pf}"),
        }
    }
}

impl FromStr for PciRef {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let Some(vf) = text.strip_prefix("vf:") else {
            return text.parse().map(Self::Function);
        };
        let parsed = vf.split_once('@').and_then(|(index, pf)| {
            // `parse` takes a sign.
            let digits = index.bytes().all(|b| b.is_ascii_digit());
            let index = index.parse().ok().filter(|index| digits && *index > 0)?;
            Some(Self::Vf {
                pf: parse_bdf(pf)?,
                index,
            })
        });
        parsed.ok_or_else(|| bad(text, "a virtual function", "as in vf:1@0000:00:02.0"))
    }
}

/// A USB port by the kernel's path to it: bus, a dash, and the ports from the root hub on, `1-3.2`.
///
/// A port that has a USB 2 and a USB 3 half is named by its USB 2 half.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UsbPort(String);

impl UsbPort {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The bus that the path starts at.
    pub fn bus(&self) -> Option<u32> {
        self.0.split_once('-')?.0.parse().ok()
    }

    /// Its name as a file's: `usb-1-3.2`.
    pub fn key(&self) -> String {
        format!("usb-{self}")
    }

    /// The ports from the root hub on, `3.2` of `1-3.2`.
    pub fn path(&self) -> &str {
        self.0.split_once('-').map_or("", |(_, path)| path)
    }
}

impl fmt::Display for UsbPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UsbPort {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let number = |part: &str| {
            (1..=3).contains(&part.len())
                && part.bytes().all(|b| b.is_ascii_digit())
                && !part.starts_with('0')
        };
        // Hubs nest six deep (USB 2.0, 4.1.1).
        let good = text.split_once('-').is_some_and(|(bus, path)| {
            number(bus) && path.split('.').count() <= 7 && path.split('.').all(number)
        });
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(bad(text, "a USB port", "bus and ports as in 1-3.2"))
        }
    }
}

fn bad(text: &str, what: &'static str, rule: &'static str) -> BadName {
    BadName {
        text: text.chars().take(80).collect(),
        what,
        rule,
    }
}

macro_rules! as_text {
    ($name:ident, $pattern:literal) => {
        impl TryFrom<String> for $name {
            type Error = BadName;

            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.to_string()
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

as_text!(
    Bdf,
    "^([0-9A-Fa-f]{1,8}:)?[0-9A-Fa-f]{1,2}:[01]?[0-9A-Fa-f]\\.[0-7]$"
);
as_text!(
    PciRef,
    "^(vf:[0-9]+@)?([0-9A-Fa-f]{1,8}:)?[0-9A-Fa-f]{1,2}:[01]?[0-9A-Fa-f]\\.[0-7]$"
);
as_text!(PciSlot, "^(0x)?[01]?[0-9A-Fa-f](\\.(0x)?[0-7])?$");
as_text!(
    UsbPort,
    "^[1-9][0-9]{0,2}-[1-9][0-9]{0,2}(\\.[1-9][0-9]{0,2}){0,6}$"
);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slots_are_hexadecimal() {
        for (text, shown) in [("0x10", "0x10"), ("1f.7", "0x1f.0x7"), ("5", "0x5")] {
            assert_eq!(text.parse::<PciSlot>().unwrap().to_string(), shown);
            assert_eq!(shown.parse::<PciSlot>(), text.parse());
        }
        for bad in ["", "20", "0x", "1.8", "1.", "00:01.0", "+1", "1.0.0"] {
            assert!(bad.parse::<PciSlot>().is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_have_a_domain_when_they_are_shown() {
        for (text, shown) in [
            ("01:00.0", "0000:01:00.0"),
            ("0000:1:1F.7", "0000:01:1f.7"),
            ("10000:e1:00.0", "10000:e1:00.0"),
        ] {
            assert_eq!(text.parse::<Bdf>().unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "01:00",
            "01:20.0",
            "01:00.8",
            "0000:01:00.+1",
            "+1:00.0",
            "0:0:0:1.0",
            "123456789:01:00.0",
            "eth0",
        ] {
            assert!(bad.parse::<Bdf>().is_err(), "{bad}");
        }
    }

    #[test]
    fn virtual_functions_are_named_by_their_physical_one() {
        let vf: PciRef = "vf:2@00:02.0".parse().unwrap();
        assert_eq!(vf.to_string(), "vf:2@0000:00:02.0");
        assert_eq!(vf.physical().to_string(), "0000:00:02.0");
        let json = serde_json::to_string(&vf).unwrap();
        assert_eq!(serde_json::from_str::<PciRef>(&json).unwrap(), vf);
        for bad in ["vf:0@00:02.0", "vf:@00:02.0", "vf:1", "vf:+1@00:02.0"] {
            assert!(bad.parse::<PciRef>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_are_paths() {
        let port: UsbPort = "1-3.2".parse().unwrap();
        assert_eq!((port.bus(), port.path()), (Some(1), "3.2"));
        for bad in [
            "",
            "1",
            "1-",
            "1-0",
            "usb1",
            "1-3:1.0",
            "1-3..2",
            "../1-3",
            "1-1.1.1.1.1.1.1.1",
        ] {
            assert!(bad.parse::<UsbPort>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read(domain: u32, id: u16, index in 1u32..) {
            let bdf = Bdf::from_routing_id(domain, id);
            prop_assert_eq!(bdf.routing_id(), id);
            prop_assert_eq!(bdf.to_string().parse::<Bdf>().unwrap(), bdf);
            for pci in [PciRef::Function(bdf), PciRef::Vf { pf: bdf, index }] {
                prop_assert_eq!(pci.to_string().parse::<PciRef>().unwrap(), pci);
                prop_assert_eq!(PciRef::from_key(&pci.key()), Some(pci));
            }
        }

        #[test]
        fn no_text_upsets_the_parsers(text in ".{0,30}") {
            let _ = (text.parse::<Bdf>(), text.parse::<PciRef>(), text.parse::<UsbPort>());
        }
    }
}
