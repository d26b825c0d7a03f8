//! What the author of a profile should know, and what is no fault.

use super::schema::{FirmwareWord, Layer, Sleep};
use crate::ids::Arch;

/// QEMU's q35 resets the power management registers of its LPC bridge when it wakes, and SeaBIOS, unlike
/// UEFI, does not set them again on its way back. Measured with QEMU 7.2 and 10.0: the second sleep is not
/// noticed, and the guest cannot switch itself off any more.
pub const WAKES_ONCE: &str = "on q35 with its built-in BIOS a guest can sleep (S3) once until its next reset, as QEMU loses the board's power registers when it wakes; `firmware.type = \"uefi\"` or `machine.type = \"pc\"` have no such limit";

/// The notes on a merged profile. Guests that nobody thinks of putting to sleep need none of their sleep.
pub fn notes(layer: &Layer) -> Vec<&'static str> {
    let machine = layer.machine.clone().unwrap_or_default();
    let q35 = match machine.r#type.as_deref() {
        None => machine.arch.unwrap_or_else(Arch::host) == Arch::X86_64,
        Some(name) => name == "q35" || name.starts_with("pc-q35-"),
    };
    let firmware = layer.firmware.clone().unwrap_or_default();
    let built_in = firmware.r#type != Some(FirmwareWord::Uefi) && firmware.file.is_none();
    let sleeps = layer.power.as_ref().is_some_and(|power| {
        let ways = power.suspend.as_deref().unwrap_or(&[Sleep::Ram]);
        power.s3 != Some(false) && ways.contains(&Sleep::Ram)
    });
    let mut notes = Vec::new();
    if q35 && built_in && sleeps {
        notes.push(WAKES_ONCE);
    }
    notes
}
