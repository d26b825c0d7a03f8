//! The guest's clocks, and what its firmware says of the machine.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

table! {
    /// `[clock]`
    ClockTable {
        /// What the hardware clock shows at the start: `utc` (the default), `localtime` as Windows wants it, or a
        /// time such as `2026-11-28T20:15:00Z`.
        base: String,
        /// What becomes of the hardware clock's ticks that the guest could not take in time (x86). By default
        /// `delay`.
        rtc: RtcPolicy,
        /// The same of the interval timer, which KVM has in the kernel. By default `delay`.
        pit: PitPolicy,
        /// Whether q35 and pc have an HPET. By default as QEMU has it: they do.
        hpet: bool,
        /// The frequency of the time stamp counter, in Hz (x86, KVM). By default the host's.
        tsc_frequency: u64,
        /// Whether Linux guests see KVM's clock (x86). On by default.
        kvmclock: bool,
    }
}

words! {
    /// `clock.rtc`
    RtcPolicy {
        /// They are delivered later, faster than usual (`driftfix=slew`); what Windows wants.
        Catchup = "catchup",
        /// They are lost.
        Delay = "delay",
    }
}

words! {
    /// `clock.pit`
    PitPolicy {
        /// They are delivered later, at the usual rate.
        Delay = "delay",
        /// They are lost.
        Discard = "discard",
    }
}

table! {
    /// `[smbios]`: what the guest's firmware says of the machine (DMI). QEMU's own words where nothing is said.
    SmbiosTable {
        /// Copies what this host's firmware says in the four tables below, but for its UUID. What they say
        /// themselves goes before it. Serial numbers are readable for root only.
        host: bool,
        /// Texts for whoever looks for them in the guest (type 11).
        oem_strings: Vec<String>,
        /// The firmware (type 0).
        bios: SmbiosBios,
        /// The computer (type 1).
        system: SmbiosSystem,
        /// The board (type 2).
        baseboard: SmbiosBaseboard,
        /// The chassis (type 3).
        chassis: SmbiosChassis,
    }
}

table! {
    /// `[smbios.bios]`
    SmbiosBios {
        /// Who made it.
        vendor: String,
        /// Its version.
        version: String,
        /// When, as in `11/28/2026`.
        date: String,
        /// Its release, two numbers up to 255 as in `5.27`.
        release: String,
    }
}

table! {
    /// `[smbios.system]`
    SmbiosSystem {
        /// Who made it.
        manufacturer: String,
        /// What it is called.
        product: String,
        /// Its version.
        version: String,
        /// Its serial number.
        serial: String,
        /// Its stock-keeping unit.
        sku: String,
        /// The family that it belongs to.
        family: String,
        /// The guest's UUID. By default one derived from its name.
        uuid: String,
    }
}

table! {
    /// `[smbios.baseboard]`
    SmbiosBaseboard {
        /// Who made it.
        manufacturer: String,
        /// What it is called.
        product: String,
        /// Its version.
        version: String,
        /// Its serial number.
        serial: String,
        /// Its asset tag.
        asset: String,
        /// Where in the chassis it is.
        location: String,
    }
}

table! {
    /// `[smbios.chassis]`
    SmbiosChassis {
        /// Who made it.
        manufacturer: String,
        /// Its version.
        version: String,
        /// Its serial number.
        serial: String,
        /// Its asset tag.
        asset: String,
        /// Its stock-keeping unit.
        sku: String,
    }
}
