//! What this host's own firmware says of the machine (SMBIOS), as the kernel shows it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::sysfs::Sysfs;

/// Where the kernel shows it.
pub const PLACE: &str = "class/dmi/id";

/// The texts that a guest can be told too.
const NAMES: &[&str] = &[
    "bios_vendor",
    "bios_version",
    "bios_date",
    "bios_release",
    "sys_vendor",
    "product_name",
    "product_version",
    "product_serial",
    "product_sku",
    "product_family",
    "board_vendor",
    "board_name",
    "board_version",
    "board_serial",
    "board_asset_tag",
    "chassis_vendor",
    "chassis_version",
    "chassis_serial",
    "chassis_asset_tag",
];

/// What the firmware says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DmiFacts {
    /// The texts that are there, by the kernel's names, as in `sys_vendor`.
    pub texts: BTreeMap<String, String>,
    /// Those that are there and that this user may not read: serial numbers.
    pub hidden: Vec<String>,
}

impl DmiFacts {
    /// Reads `/sys/class/dmi/id`; empty where the host has none, as most Arm boards.
    pub fn read(sys: &Sysfs) -> Self {
        let mut facts = Self::default();
        for name in NAMES {
            let path = format!("{PLACE}/{name}");
            match sys.read(&path) {
                Ok(text) if text.is_empty() => {}
                Ok(text) => {
                    facts.texts.insert((*name).to_owned(), text);
                }
                Err(error) if error.is_missing() => {}
                Err(_) => facts.hidden.push((*name).to_owned()),
            }
        }
        facts
    }

    /// Whether the host has none.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty() && self.hidden.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use super::*;
    use crate::host::testing::put;

    #[test]
    fn texts_that_are_there_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let sys = Sysfs::at(dir.path());
        assert!(DmiFacts::read(&sys).is_empty());
        put(dir.path(), "class/dmi/id/sys_vendor", "LENOVO\n");
        put(dir.path(), "class/dmi/id/product_name", "\n");
        put(dir.path(), "class/dmi/id/uevent", "MODALIAS=dmi\n");
        // Root reads what has no permissions: a directory nobody can read as a file.
        std::fs::create_dir(dir.path().join("class/dmi/id/product_serial")).unwrap();
        let facts = DmiFacts::read(&sys);
        assert_eq!(facts.texts.len(), 1);
        assert_eq!(facts.texts["sys_vendor"], "LENOVO");
        assert_eq!(facts.hidden, ["product_serial"]);
    }
}
