//! What QEMU says when a device of the host does not come to the guest.

use super::{Entry, Found};
use crate::error::ExitCode::{Failed, Host};

fn line(found: &Found<'_>) -> String {
    found.line.to_owned()
}

/// The entries for VFIO; they stand before those for any file that cannot be opened.
pub(super) const TABLE: &[Entry] = &[
    Entry {
        id: "vfio-group",
        patterns: &["group * is not viable"],
        code: Host,
        cause: |found| {
            format!(
                "others in IOMMU group {} are still with drivers of the host",
                found.what
            )
        },
        fix: |_| {
            "give all of the group to the guest (`group = \"all\"`): `mvm devices pci` shows its members".to_owned()
        },
    },
    Entry {
        id: "vfio-node",
        patterns: &[
            "failed to open /dev/vfio/*: No such file or directory",
            "error getting device from group *: No such device",
            "no iommu_group found",
            "no such host device",
        ],
        code: Host,
        cause: |found| format!("the device is not with VFIO, or not there: {}", found.line),
        fix: |_| {
            "`mvm devices` shows how it stands; `mvm doctor` tells whether the IOMMU is on"
                .to_owned()
        },
    },
    Entry {
        id: "vfio-permission",
        patterns: &["failed to open /dev/vfio/*: Permission denied"],
        code: Failed,
        cause: |found| format!("this user may not open /dev/vfio/{}", found.what),
        fix: |found| {
            format!(
                "run it as root, or give yourself the node: `sudo chown $USER /dev/vfio/{}`",
                found.what
            )
        },
    },
    Entry {
        id: "vfio-busy",
        patterns: &["failed to open /dev/vfio/*: Device or resource busy"],
        code: Failed,
        cause: |found| {
            let node = format!("/dev/vfio/{}", found.what);
            match found.holder(&node) {
                Some(holder) => format!("{node} is in use by {holder}"),
                None => format!("{node} is in use by another process"),
            }
        },
        fix: |_| "end that one first".to_owned(),
    },
    Entry {
        id: "vfio-memory",
        patterns: &[
            "vfio_dma_map(*(Cannot allocate memory)",
            "vfio_container_dma_map(*(Cannot allocate memory)",
            "VFIO_MAP_DMA failed: Cannot allocate memory",
        ],
        code: Host,
        cause: |_| {
            "the guest's memory cannot be kept in place for the device: the limit of locked memory, or the host's memory, is too small".to_owned()
        },
        fix: |_| {
            "run it as root, raise `memlock` in /etc/security/limits.conf (or LimitMEMLOCK= of the unit) above the guest's memory, or give it less (`memory.size`)".to_owned()
        },
    },
    Entry {
        id: "vfio-address",
        patterns: &[
            "can't map guest IOVA region",
            "vfio_dma_map(*(Invalid argument)",
            "vfio_container_dma_map(*(Invalid argument)",
            "VFIO_MAP_DMA failed: Invalid argument",
        ],
        code: Host,
        cause: |_| {
            "the guest uses addresses that this host's IOMMU cannot translate: it has fewer address bits than the processor".to_owned()
        },
        fix: |_| {
            "limit the guest's (`cpu.host-phys-bits-limit = 39` on most client platforms), or give it less memory".to_owned()
        },
    },
    Entry {
        id: "vfio-interrupts",
        patterns: &["failed to set iommu for container: Operation not permitted"],
        code: Host,
        cause: |_| {
            "this host cannot remap interrupts, without which the kernel lets no guest have a device"
                .to_owned()
        },
        fix: |_| {
            "switch VT-d or AMD-Vi with interrupt remapping on in the firmware; `vfio_iommu_type1.allow_unsafe_interrupts=1` on the kernel's command line goes without, for guests that are trusted".to_owned()
        },
    },
    Entry {
        id: "vfio-reset",
        patterns: &[
            "Cannot reset device *, no available reset mechanism",
            "Cannot reset device *, depends on group",
            "cannot be reset",
        ],
        code: Host,
        cause: line,
        fix: |_| {
            "give the guest all functions that are reset together (`functions = \"all\"`); `mvm devices pci` shows how a device can be reset".to_owned()
        },
    },
    Entry {
        id: "usb-host",
        patterns: &["failed to open host usb device *", "libusb_open: *"],
        code: Failed,
        cause: |found| format!("QEMU may not open the USB device: {}", found.line),
        fix: |_| {
            "run it as root, or give yourself its node under /dev/bus/usb (a udev rule with `TAG+=\"uaccess\"` does)".to_owned()
        },
    },
];
