//! `-smbios`

use super::args::{Args, Options};
use crate::machine::{Firmware, Machine};

/// The table of the firmware itself.
const BIOS: u8 = 0;
/// The table of free texts.
const OEM_STRINGS: &str = "11";

pub(super) fn add(args: &mut Args, machine: &Machine) {
    for table in &machine.smbios.tables {
        let first = Options::with("type", &table.number.to_string());
        let mut options = table
            .fields
            .iter()
            .fold(first, |options, (name, text)| options.set(name, text));
        // The table says whether it is UEFI that speaks.
        if table.number == BIOS && matches!(machine.firmware, Firmware::Flash { .. }) {
            options = options.set("uefi", "on");
        }
        args.options("-smbios", options);
    }
    if !machine.smbios.oem_strings.is_empty() {
        let first = Options::with("type", OEM_STRINGS);
        let texts = machine.smbios.oem_strings.iter();
        args.options(
            "-smbios",
            texts.fold(first, |options, text| options.set("value", text)),
        );
    }
}
