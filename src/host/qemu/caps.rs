//! What one QEMU binary can do, in the form that is cached.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::names::Names;
use super::since::known_since;
use crate::ids::Arch;

/// A QEMU version: major, minor, micro.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version(pub u32, pub u32, pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// What one QEMU binary can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QemuCaps {
    /// The binary.
    pub binary: PathBuf,
    /// The architecture it emulates.
    pub arch: Arch,
    /// Its version.
    pub version: Version,
    /// The packager's suffix, as in `Debian 1:7.2+dfsg-7`; may be empty.
    pub package: String,
    /// Machine types by name; aliases are entries of their own.
    pub machines: BTreeMap<String, MachineType>,
    /// CPU models by name.
    pub cpus: BTreeMap<String, CpuModel>,
    /// Device types that `-device` can make.
    pub devices: Names,
    /// Object types that `-object` can make.
    pub objects: Names,
    /// The properties of device types, and of machine types by their real names.
    pub properties: BTreeMap<String, Properties>,
    /// Network backends (`user`, `tap`, `stream`, …).
    pub netdevs: Names,
    /// Their options, as in `stream.server`.
    pub netdev_options: Names,
    /// Character device backends (`socket`, `pty`, `spicevmc`, …).
    pub chardevs: Names,
    /// Displays that can be used (`gtk`, `sdl`, `spice-app`, …).
    pub displays: Names,
    /// Options of displays, as in `gtk.zoom-to-fit`, and of all displays, as in `full-screen`.
    pub display_options: Names,
    /// Audio backends that can be used.
    pub audiodevs: Names,
    /// Block drivers.
    pub blockdevs: Names,
    /// Values of a file's `aio`: `threads`, `native`, `io_uring`.
    pub aio: Names,
    /// Accelerators that are built in: `kvm`, `tcg`, …
    pub accels: Names,
    /// Those command line options that QEMU tells of, with their parameters.
    pub options: BTreeMap<String, Names>,
    /// QMP commands.
    pub commands: Names,
    /// `-device` takes JSON, and means by it what `device_add` means.
    pub json_device: bool,
    /// What this QEMU was built with while the module file it is in is not installed:
    /// devices, `display.NAME` and `audiodev.NAME`, to file name.
    pub unloadable: BTreeMap<String, String>,
}

/// A machine type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineType {
    /// The real name, where this entry is an alias (`q35` for `pc-q35-7.2`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias_of: Option<String>,
    /// The most CPUs.
    pub cpu_max: u32,
    /// It is going to be removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deprecated: bool,
    /// The CPU model it takes by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_cpu: Option<String>,
}

/// A CPU model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuModel {
    /// It works with KVM (or another hardware accelerator) only, such as `host`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_kvm: bool,
    /// It is going to be removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deprecated: bool,
}

/// The properties of one type, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Properties(pub BTreeMap<PropertyKind, Names>);

/// What JSON a property wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PropertyKind {
    /// `true` or `false`; `"on"` is refused.
    Bool,
    /// A whole number, 0 or more.
    Unsigned,
    /// A whole number.
    Signed,
    /// Text: strings, enumerations (`on`/`off`/`auto` among them), sizes, links by id.
    Text,
    /// A list of values.
    List,
}

impl PropertyKind {
    /// From the type that QEMU names; `None` for what is a part of the device and cannot be set.
    pub fn of_type(name: &str) -> Option<Self> {
        let base = name.split('<').next().unwrap_or(name);
        let base = base.strip_suffix("_t").unwrap_or(base);
        Some(match base {
            "child" => return None,
            "bool" => Self::Bool,
            // JSON has sizes as numbers: the suffixes are for the command line's own form.
            "size" | "size32" => Self::Unsigned,
            "list" => Self::List,
            _ if base.ends_with("List") => Self::List,
            // `uint4` is an odd one of vfio-pci, and a number too.
            _ if is_number(base, "uint") => Self::Unsigned,
            _ if is_number(base, "int") => Self::Signed,
            _ => Self::Text,
        })
    }
}

fn is_number(base: &str, prefix: &str) -> bool {
    base.strip_prefix(prefix)
        .is_some_and(|bits| bits.bytes().all(|b| b.is_ascii_digit()))
}

/// Why QEMU lacks something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lacks {
    /// It is in a module whose file is not installed.
    Module(String),
    /// It came with a later version.
    Since(&'static str),
    /// No reason is known: this build leaves it out, or it never existed.
    Unknown,
}

impl fmt::Display for Lacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module(file) => write!(f, "the module {file} that it is in is not installed"),
            Self::Since(version) => write!(f, "it came with QEMU {version}"),
            Self::Unknown => f.write_str("this build of QEMU does not know it"),
        }
    }
}

impl QemuCaps {
    /// Whether `-device NAME` can work.
    pub fn has_device(&self, name: &str) -> bool {
        self.devices.contains(name)
    }

    /// Whether `-object NAME` can work.
    pub fn has_object(&self, name: &str) -> bool {
        self.objects.contains(name)
    }

    /// Whether there is a machine of this name or alias.
    pub fn has_machine(&self, name: &str) -> bool {
        self.machines.contains_key(name)
    }

    /// The machine's real name and what is known of it; `name` may be an alias.
    pub fn machine(&self, name: &str) -> Option<(&str, &MachineType)> {
        let (key, found) = self.machines.get_key_value(name)?;
        match &found.alias_of {
            Some(real) => self.machines.get_key_value(real.as_str()),
            None => Some((key, found)),
        }
        .map(|(name, machine)| (name.as_str(), machine))
    }

    /// Whether there is a CPU model of this name.
    pub fn has_cpu(&self, name: &str) -> bool {
        self.cpus.contains_key(name)
    }

    /// Whether a display of this name can be used.
    pub fn has_display(&self, name: &str) -> bool {
        self.displays.contains(name)
    }

    /// Whether a command line option has a parameter, as in `("run-with", "user")`.
    pub fn has_option(&self, option: &str, parameter: &str) -> bool {
        self.options
            .get(option)
            .is_some_and(|p| p.contains(parameter))
    }

    /// Whether the properties of this device or machine type were read: then
    /// [`Self::device_property`] knows what is missing too.
    pub fn properties_known(&self, name: &str) -> bool {
        self.properties.contains_key(self.real_name(name))
    }

    /// What a property of a device type wants; `None` where there is no such property, or where the
    /// type's properties are not known.
    pub fn device_property(&self, device: &str, property: &str) -> Option<PropertyKind> {
        let properties = self.properties.get(device)?;
        let (kind, _) = properties.0.iter().find(|(_, n)| n.contains(property))?;
        Some(*kind)
    }

    /// The names of those properties of a type that are of one kind.
    pub fn properties_of(&self, name: &str, kind: PropertyKind) -> impl Iterator<Item = &str> {
        let of_kind = self.properties.get(name).and_then(|all| all.0.get(&kind));
        of_kind.into_iter().flat_map(Names::iter)
    }

    /// The names of a device type's properties, as far as they are known.
    pub fn property_names(&self, device: &str) -> Vec<&str> {
        let properties = self.properties.get(device).into_iter();
        properties
            .flat_map(|properties| properties.0.iter())
            .flat_map(|(_, names)| names.iter())
            .collect()
    }

    /// The same for `-machine`; `machine` may be an alias.
    pub fn machine_property(&self, machine: &str, property: &str) -> Option<PropertyKind> {
        self.device_property(self.real_name(machine), property)
    }

    fn real_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.machine(name).map_or(name, |(real, _)| real)
    }

    /// Why something is not there: a device, object, machine, display (`display.NAME`) or audio
    /// backend (`audiodev.NAME`).
    pub fn why_lacks(&self, name: &str) -> Lacks {
        if let Some(file) = self.unloadable.get(name) {
            return Lacks::Module(file.clone());
        }
        let plain = name.split_once('.').map_or(name, |(_, n)| n);
        match known_since(plain) {
            Some((since, text)) if self.version < since => Lacks::Since(text),
            _ => Lacks::Unknown,
        }
    }
}

/// The device types whose properties every probe reads: those that mvm itself puts on a command line.
pub const PROBED_DEVICES: &[&str] = &[
    "ICH9-LPC",
    "VGA",
    "PIIX4_PM",
    "amd-iommu",
    "bochs-display",
    "cirrus-vga",
    "e1000",
    "e1000e",
    "hda-duplex",
    "i6300esb",
    "ich9-ahci",
    "ich9-intel-hda",
    "ide-cd",
    "ide-hd",
    "igb",
    "intel-hda",
    "intel-iommu",
    "max-arm-cpu",
    "max-x86_64-cpu",
    "nvdimm",
    "nvme",
    "nvme-ns",
    "pcie-root-port",
    "piix3-ide",
    "pvpanic-pci",
    "qemu-xhci",
    "qxl",
    "qxl-vga",
    "ramfb",
    "rtl8139",
    "scsi-cd",
    "scsi-hd",
    "secondary-vga",
    "tpm-crb",
    "tpm-tis-device",
    "usb-host",
    "usb-kbd",
    "usb-mouse",
    "usb-redir",
    "usb-storage",
    "usb-tablet",
    "vfio-pci",
    "vhost-user-fs-device",
    "vhost-user-fs-pci",
    "vhost-vsock-device",
    "vhost-vsock-pci",
    "virtconsole",
    "virtio-9p-device",
    "virtio-9p-pci",
    "virtio-balloon-device",
    "virtio-balloon-pci",
    "virtio-blk-device",
    "virtio-blk-pci",
    "virtio-gpu-device",
    "virtio-gpu-gl-pci",
    "virtio-gpu-pci",
    "virtio-input-host-pci",
    "virtio-iommu-pci",
    "virtio-keyboard-pci",
    "virtio-mouse-pci",
    "virtio-net-device",
    "virtio-net-pci",
    "virtio-rng-device",
    "virtio-rng-pci",
    "virtio-scsi-device",
    "virtio-scsi-pci",
    "virtio-serial-device",
    "virtio-serial-pci",
    "virtio-tablet-pci",
    "virtio-vga",
    "virtio-vga-gl",
    "virtserialport",
    "vmgenid",
];

/// The machine types whose properties every probe reads. Not microvm's: QEMU 7.2 dies of it.
pub const PROBED_MACHINES: &[&str] = &["pc", "q35", "virt"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_properties() {
        for (text, kind) in [
            ("bool", Some(PropertyKind::Bool)),
            ("int32", Some(PropertyKind::Signed)),
            ("uint64", Some(PropertyKind::Unsigned)),
            ("uint4", Some(PropertyKind::Unsigned)),
            ("uint64_t", Some(PropertyKind::Unsigned)),
            ("size", Some(PropertyKind::Unsigned)),
            ("str", Some(PropertyKind::Text)),
            ("OnOffAuto", Some(PropertyKind::Text)),
            ("interface", Some(PropertyKind::Text)),
            ("link<iothread>", Some(PropertyKind::Text)),
            ("IOThreadVirtQueueMappingList", Some(PropertyKind::List)),
            ("child<virtio-blk-device>", None),
        ] {
            assert_eq!(PropertyKind::of_type(text), kind, "{text}");
        }
    }
}
