//! Names that cannot be wrong: guest names, ids, MAC addresses, architectures, places of devices.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The architecture of a guest, as QEMU names it.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
pub enum Arch {
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit Arm.
    #[serde(rename = "aarch64")]
    Aarch64,
}

impl Arch {
    /// Every architecture that mvm knows.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The architecture that this mvm was built for: the host's.
    pub const fn host() -> Self {
        if cfg!(target_arch = "aarch64") {
            Self::Aarch64
        } else {
            Self::X86_64
        }
    }

    /// QEMU's name of it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Arch {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        match text {
            "x86_64" | "amd64" => Ok(Self::X86_64),
            "aarch64" | "arm64" => Ok(Self::Aarch64),
            _ => Err(BadName {
                text: text.to_owned(),
                what: "an architecture",
                rule: "x86_64 or aarch64",
            }),
        }
    }
}

/// A text that is not the name it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what} (expected {rule})")]
pub struct BadName {
    text: String,
    what: &'static str,
    rule: &'static str,
}

impl crate::error::Hint for BadName {
    fn exit_code(&self) -> crate::error::ExitCode {
        crate::error::ExitCode::Usage
    }
}

macro_rules! text_newtype {
    ($name:ident, $check:path, $what:literal, $rule:literal) => {
        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                if $check(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(BadName {
                        text: text.chars().take(80).collect(),
                        what: $what,
                        rule: $rule,
                    })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;

            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "description": concat!($what, ": ", $rule) })
            }
        }
    };
}

/// The name of a guest: a directory name, a part of socket paths, a word on the command line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GuestName(String);

text_newtype!(
    GuestName,
    is_guest_name,
    "a guest name",
    "1 to 40 letters, digits, `-`, `_` or `.`, starting with a letter or digit, and not `images`"
);

fn is_guest_name(text: &str) -> bool {
    // `images` is the image folder's name, beside the guests' own folders.
    (1..=40).contains(&text.len())
        && text != "images"
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// The name of a table in a profile (`[disk.system]`), which becomes the QEMU id.
///
/// QEMU wants ids that start with a letter and hold letters, digits, `-`, `.` and `_`
/// (`id_wellformed` in `util/id.c`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

text_newtype!(
    Id,
    is_id,
    "an id",
    "1 to 32 letters, digits, `-`, `_` or `.`, starting with a letter"
);

fn is_id(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// A MAC address of one station, `52:54:00:ab:cd:11`, lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// An address of QEMU's own prefix (52:54:00) whose last three bytes come from a hash, so that
    /// the same guest and NIC get the same address at every start.
    pub const fn from_hash(hash: [u8; 3]) -> Self {
        Self([0x52, 0x54, 0x00, hash[0], hash[1], hash[2]])
    }

    /// Its six bytes, as they go over the wire.
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for MacAddr {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = || BadName {
            text: text.chars().take(80).collect(),
            what: "a MAC address of one station",
            rule: "six hexadecimal bytes as in 52:54:00:ab:cd:11, the first one even",
        };
        let parts: Vec<&str> = text.split([':', '-']).collect();
        let mut bytes = [0u8; 6];
        if parts.len() != 6 {
            return Err(bad());
        }
        for (byte, part) in bytes.iter_mut().zip(parts) {
            // `from_str_radix` takes a leading `+`.
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(bad());
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for MacAddr {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl schemars::JsonSchema for MacAddr {
    fn schema_name() -> Cow<'static, str> {
        "MacAddr".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^[0-9A-Fa-f][02468ACEace]([:-][0-9A-Fa-f]{2}){5}$"
        })
    }
}

// Below the macro that it uses.
mod device;
pub use device::{Bdf, PciRef, PciSlot, UsbPort};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_names_are_directory_names() {
        for good in ["ubuntu", "u2", "7.2", "a-b_c.d"] {
            assert!(good.parse::<GuestName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "-x",
            "a/b",
            "a b",
            "ä",
            "images",
            &"x".repeat(41),
        ] {
            assert!(bad.parse::<GuestName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn mac_addresses_are_those_of_one_station() {
        let mac: MacAddr = "52-54-00-AB-cd-11".parse().expect("a good address");
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:11");
        for bad in [
            "53:54:00:ab:cd:11",
            "52:54:00:ab:cd",
            "+2:54:00:ab:cd:11",
            "00:00:00:00:00:00",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }
}
