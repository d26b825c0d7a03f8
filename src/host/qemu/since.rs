//! Which QEMU version brought what.

use super::caps::Version;

/// The first version that has a device, machine, object, display or backend of this name, where mvm
/// knows it: to compare with, and as text.
pub fn known_since(name: &str) -> Option<(Version, &'static str)> {
    let (_, text) = SINCE.iter().find(|(n, _)| *n == name)?;
    let (major, minor) = text.split_once('.')?;
    Some((Version(major.parse().ok()?, minor.parse().ok()?, 0), text))
}

/// From QEMU's release notes; what a profile may ask for and the oldest supported QEMU may lack.
const SINCE: &[(&str, &str)] = &[
    ("acpi-erst", "7.0"),
    ("af-xdp", "8.2"),
    ("dgram", "7.2"),
    ("igb", "8.0"),
    ("iommufd", "9.0"),
    ("nitro-enclave", "9.2"),
    ("passt", "10.1"),
    ("pipewire", "8.1"),
    ("sev-snp-guest", "9.1"),
    ("stream", "7.2"),
    ("tdx-guest", "10.1"),
    ("thread-context", "7.2"),
    ("uefi-vars-x64", "10.0"),
    ("ufs", "8.2"),
    ("virtio-gpu-rutabaga-pci", "8.2"),
    ("virtio-multitouch-pci", "8.1"),
    ("virtio-sound-pci", "8.2"),
    ("virtio-vga-rutabaga", "8.2"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_a_version() {
        for (name, text) in SINCE {
            let (version, shown) = known_since(name).expect(name);
            assert_eq!(format!("{}.{}", version.0, version.1), *text);
            assert_eq!(shown, *text);
        }
        assert_eq!(known_since("e1000"), None);
    }
}
