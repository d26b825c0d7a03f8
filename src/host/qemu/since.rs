//! Which QEMU version brought what.

/// The first version that has a device, machine, object or display of this name, where mvm knows it.
/// Only what is newer than 4.2 and what a profile may ask for.
pub fn known_since(name: &str) -> Option<&'static str> {
    SINCE
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, version)| *version)
}

/// From QEMU's release notes.
const SINCE: &[(&str, &str)] = &[
    ("acpi-erst", "7.0"),
    ("dbus", "7.0"),
    ("dgram", "7.2"),
    ("igb", "8.0"),
    ("iommufd", "9.0"),
    ("nitro-enclave", "9.2"),
    ("nvme-subsys", "6.0"),
    ("pipewire", "8.1"),
    ("rme-guest", "10.1"),
    ("sgx-epc", "6.2"),
    ("stream", "7.2"),
    ("ufs", "8.2"),
    ("vhost-user-vsock-pci", "5.1"),
    ("virtio-iommu-pci", "5.0"),
    ("virtio-mem-pci", "5.1"),
    ("virtio-sound-pci", "8.2"),
    ("virtio-vga-rutabaga", "8.2"),
];
