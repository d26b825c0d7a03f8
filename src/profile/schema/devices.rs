//! Devices of the host: `[pci.NAME]`, `[usb.NAME]`, `[mdev.NAME]`, `[gpu]`, and what goes with them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::NoDevice;
use crate::ids::{Bdf, MacAddr, UsbPort};
use crate::units::Size;

table! {
    /// `[pci.NAME]`: a PCI function of the host. Exactly one of `address`, `id`, `match`, `vf` and `none`.
    PciTable {
        /// Its address, as in `0000:01:00.0`.
        address: Bdf,
        /// Vendor and device, as in `8086:15f3`.
        id: DeviceId,
        /// Words of the line that `mvm devices pci` shows (class, vendor, device, ids), case ignored.
        r#match: String,
        /// A virtual function, which mvm makes where it is not there.
        vf: VfTable,
        /// No device: takes away one that a lower layer gave, as in `none = {}`.
        none: NoDevice,
        /// Which one, where several answer to `id` or `match`: 1 is the first in bus order.
        nth: u32,
        /// Whether the other functions of the same device go to the guest too. By default they do not.
        functions: Functions,
        /// Whether the rest of the IOMMU group is taken from the host too, without the guest getting it. By
        /// default it is not, and a group of which the host uses another part is an error.
        group: GroupWord,
        /// An image that the guest sees as the device's option ROM (`romfile`).
        rom: String,
        /// `false`: the guest sees no option ROM.
        rom_bar: bool,
        /// It is a GPU and the guest's VGA (`x-vga`).
        x_vga: bool,
        /// `false`: functions that go along get places of their own instead of one slot of the guest.
        multifunction: bool,
        /// The driver of VFIO that hands it to the guest: `vfio-pci`, or one that is made for the device, such
        /// as `i915-vfio-pci`. By default the one that the kernel's modules name for it, else vfio-pci.
        driver: String,
        /// It is taken out of the guest before the guest sleeps with its memory kept, and is back when it has
        /// woken; virtual functions that mvm made go meanwhile. What is mounted from it is unmounted for that time.
        park: bool,
        /// Take it although the host itself uses it.
        take_from_host: bool,
    }
}

table! {
    /// `pci.NAME.vf`
    VfTable {
        /// The device that it is a virtual function of: an address, or words as for `match`.
        of: String,
        /// Its number, 1 first, or `auto` (the default): the first that nobody uses.
        index: VfIndex,
        /// How many are made where there are none; by default as many as the device can have. Those that
        /// are there already keep their number.
        count: u32,
        /// The address that a network card's gets.
        mac: MacAddr,
        /// The VLAN that a network card's is in, 1 to 4094.
        vlan: u32,
        /// Those that mvm made stay when their last user is gone.
        keep: bool,
    }
}

table! {
    /// `[usb.NAME]`: a USB device of the host. Exactly one of `id`, `serial`, `port`, `match` and `none`.
    UsbTable {
        /// Vendor and product, as in `046d:c52b`.
        id: DeviceId,
        /// Its serial number.
        serial: String,
        /// The port that it is plugged into, as in `1-3.2`.
        port: UsbPort,
        /// A kind (`keyboard`, `mouse`, `storage`, `ethernet`, `bluetooth`, `audio`, …) or words of its names,
        /// case ignored.
        r#match: String,
        /// No device: takes away one that a lower layer gave, as in `none = {}`.
        none: NoDevice,
        /// Which one, where several answer to `id` or `match`: 1 is the first in the order of the ports.
        nth: u32,
        /// Take it although the host itself uses it.
        take_from_host: bool,
    }
}

table! {
    /// `[mdev.NAME]`: a mediated device. Exactly one of `uuid`, `type` and `none`.
    MdevTable {
        /// One that exists.
        uuid: Uuid,
        /// The type of one that mvm makes, as in `i915-GVTg_V5_4`.
        r#type: String,
        /// No device: takes away one that a lower layer gave, as in `none = {}`.
        none: NoDevice,
        /// The device that makes it: an address, or a name from `mvm devices mdev`. By default the first that
        /// can make one more of that type.
        parent: String,
        /// One that mvm made stays when the guest is gone.
        keep: bool,
        /// Its picture goes to the guest's displays (GVT-g, vGPU). Off by default.
        display: bool,
        /// With `display`: firmware draws on it before its driver does.
        ramfb: bool,
        /// As for `[pci.NAME]`: out of the guest while it sleeps.
        park: bool,
    }
}

table! {
    /// `[gpu]`: exactly one of `vf`, `whole`, `upt`, `mdev`, `virtio` and `none`.
    GpuTable {
        /// A virtual function of the host's GPU: its number, 1 first, or `auto`.
        vf: VfIndex,
        /// The virtual function that a bare `--gpu vf` takes; by itself it gives the guest no GPU. By default `auto`.
        default_vf: VfIndex,
        /// The whole GPU, as the guest's only one. Intel's integrated one sits where it does on the host.
        whole: bool,
        /// The whole integrated GPU of Intel beside another display (universal pass-through).
        upt: bool,
        /// A mediated device: a type of the GPU's, or the UUID of one that exists.
        mdev: String,
        /// A virtual GPU of QEMU's own.
        virtio: bool,
        /// No GPU: takes away one that a lower layer gave, as in `none = {}`.
        none: NoDevice,
        /// Which GPU of the host. By default the only one, or for `vf` the one that fits best.
        address: Bdf,
        /// The maker of that GPU, where the host has some of others too.
        vendor: GpuVendor,
        /// How many virtual functions are made where there are none; by default as many as there can be.
        count: u32,
        /// Virtual functions or a mediated device that mvm made stay when their last user is gone.
        keep: bool,
        /// What each virtual function gets of the GPU; without it the driver decides.
        provision: ProvisionTable,
        /// Whether the guest gets the OpRegion of Intel's firmware. By default so for `whole` and `upt`.
        opregion: bool,
        /// Stolen memory of Intel's GPU in units of 32 MiB (`x-igd-gms`), 0 to 32.
        gms: u32,
        /// As for `[pci.NAME]`: out of the guest while it sleeps.
        park: bool,
        /// As for `[pci.NAME]`: the audio function of a card, for one.
        functions: Functions,
        /// As for `[pci.NAME]`.
        group: GroupWord,
        /// An image that the guest sees as the GPU's option ROM, its video BIOS.
        rom: String,
        /// `false`: the guest sees no option ROM.
        rom_bar: bool,
        /// It is the guest's VGA (`x-vga`).
        x_vga: bool,
        /// With `mdev`, as for `[mdev.NAME]`.
        display: bool,
        /// With `mdev`, as for `[mdev.NAME]`.
        ramfb: bool,
        /// As for `[pci.NAME]`.
        multifunction: bool,
        /// As for `[pci.NAME]`.
        driver: String,
        /// Take it although the host itself uses it. Consoles that the host shows on it are let go of anyway.
        take_from_host: bool,
    }
}

table! {
    /// `gpu.provision`: for Intel's GPUs. Where a key is left out, the driver decides.
    ProvisionTable {
        /// The time slice of each virtual function in milliseconds.
        exec_quantum_ms: u32,
        /// How long running work may go on that is to make room, in microseconds.
        preempt_timeout_us: u32,
        /// How much of the GPU's address space each gets (xe).
        ggtt_quota: Size,
        /// How much of the GPU's own memory each gets (xe).
        lmem_quota: Size,
        /// How many contexts each gets (xe).
        contexts_quota: u32,
        /// How many doorbells each gets (xe).
        doorbells_quota: u32,
        /// How much address space stays with the host (xe).
        ggtt_spare: Size,
        /// How many contexts stay with the host (xe).
        contexts_spare: u32,
        /// How many doorbells stay with the host (xe).
        doorbells_spare: u32,
    }
}

table! {
    /// `[vfio]`: how devices of the host reach the guest.
    VfioTable {
        /// The kernel's interface. By default `auto`.
        backend: VfioBackend,
    }
}

table! {
    /// `[hotplug]`
    HotplugTable {
        /// Root ports that are kept free for `mvm attach`, 0 to 8, on `q35` and `virt`. By default 4.
        ports: u32,
    }
}

words! {
    /// `functions`
    Functions {
        /// The one that was asked for.
        One = "one",
        /// All of the same device.
        All = "all",
    }
}

words! {
    /// `gpu.vendor`
    GpuVendor {
        /// AMD.
        Amd = "amd",
        /// Intel.
        Intel = "intel",
        /// NVIDIA.
        Nvidia = "nvidia",
    }
}

words! {
    /// `group`
    GroupWord {
        /// Only what the guest gets.
        Own = "own",
        /// All of the IOMMU group.
        All = "all",
    }
}

words! {
    /// `vfio.backend`
    VfioBackend {
        /// `group`, which every kernel and QEMU with VFIO has.
        Auto = "auto",
        /// `/dev/vfio/GROUP`.
        Group = "group",
        /// `/dev/iommu`, of Linux 6.6 and QEMU 9.0.
        Iommufd = "iommufd",
    }
}

/// Vendor and device in hexadecimal, `8086:15f3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId {
    /// The vendor.
    pub vendor: u16,
    /// The vendor's number for the device.
    pub device: u16,
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

impl FromStr for DeviceId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let good = text.len() == 4 && text.bytes().all(|b| b.is_ascii_hexdigit());
            u16::from_str_radix(text, 16).ok().filter(|_| good)
        };
        let parsed = text.split_once(':').and_then(|(vendor, device)| {
            Some(Self {
                vendor: number(vendor)?,
                device: number(device)?,
            })
        });
        parsed.ok_or_else(|| {
            let text: String = text.chars().take(80).collect();
            format!("`{text}` is not vendor and device (expected four and four hexadecimal digits as in 8086:15f3)")
        })
    }
}

/// The number of a virtual function, or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VfIndex {
    /// The first that nobody uses.
    Auto,
    /// That one, 1 first.
    Number(u32),
}

impl fmt::Display for VfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl FromStr for VfIndex {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(number) if digits && number > 0 => Ok(Self::Number(number)),
            _ => {
                let text: String = text.chars().take(80).collect();
                Err(format!(
                    "`{text}` is not the number of a virtual function (expected 1 or more, or `auto`)"
                ))
            }
        }
    }
}

impl Serialize for VfIndex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Number(number) => serializer.serialize_u32(*number),
        }
    }
}

impl<'de> Deserialize<'de> for VfIndex {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = VfIndex;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 1 or `auto`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<VfIndex, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<VfIndex, E> {
                number.to_string().parse().map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<VfIndex, E> {
                number.to_string().parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for VfIndex {
    fn schema_name() -> Cow<'static, str> {
        "VfIndex".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [{ "type": "integer", "minimum": 1 }, { "const": "auto" }]
        })
    }
}

impl TryFrom<String> for DeviceId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<DeviceId> for String {
    fn from(id: DeviceId) -> Self {
        id.to_string()
    }
}

impl JsonSchema for DeviceId {
    fn schema_name() -> Cow<'static, str> {
        "DeviceId".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9A-Fa-f]{4}:[0-9A-Fa-f]{4}$" })
    }
}
