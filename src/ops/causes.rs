//! What the kernel's refusals mean, file by file.
//!
//! Sources: `drivers/pci/pci-sysfs.c`, `drivers/pci/iov.c`, `drivers/base/bus.c`,
//! `drivers/vfio/mdev/mdev_sysfs.c`, `drivers/vfio/pci/vfio_pci_core.c` and `drivers/usb/core` of Linux.

use std::io;
use std::path::Path;

use nix::libc::{EBUSY, EINVAL, EIO, ENODEV, ENOENT, ENOSPC, ENOTTY, ERANGE};

/// The cause of a refused write and what helps, where they are known.
pub(crate) fn of_write(
    path: &Path,
    text: &str,
    error: &io::Error,
) -> (Option<String>, Option<String>) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = error.raw_os_error().unwrap_or_default();
    let (cause, hint) = match (&*name, number) {
        ("sriov_numvfs", EBUSY) => (
            "the function has virtual functions already; their number only goes from 0 to another",
            "end the guests that use them, or use those that are there",
        ),
        ("sriov_numvfs", ERANGE) => (
            "the function cannot have that many",
            "`mvm devices pci` shows how many it can have",
        ),
        ("sriov_numvfs", ENOSPC) => (
            "the driver has no resources left for that many",
            "ask for fewer (`count`), or give each less",
        ),
        ("sriov_numvfs", ENOENT) => (
            "the function has no driver that could make them",
            "give it back to its own driver first: `mvm unbind`, or `modprobe` it",
        ),
        ("sriov_numvfs", EIO) => (
            "the device did not do what its driver told it",
            "see `dmesg`; GPUs need firmware and a driver that support SR-IOV (`enable_guc`, `max_vfs`)",
        ),
        ("sriov_numvfs", EINVAL) => (
            "its driver does not make virtual functions, or there are not enough bus numbers or room for them",
            "load a driver with SR-IOV; in the firmware switch SR-IOV on; `pci=realloc,assign-busses` on the kernel's command line gives buses room",
        ),
        ("unbind", ENODEV) => (
            "no driver of that name has the device any more",
            "look again with `mvm devices`",
        ),
        ("unbind", EBUSY) => (
            "the device is in use",
            "end what uses it; `mvm devices` shows what the host does with it",
        ),
        ("bind" | "drivers_probe", ENODEV) => (
            "the driver did not take the device",
            "see `dmesg` for the driver's own words",
        ),
        ("bind" | "drivers_probe", EBUSY) => (
            "the device has a driver already, or another device has what the driver needs",
            "see `dmesg`",
        ),
        ("bind" | "drivers_probe", EINVAL) => (
            "the driver cannot work with it; vfio-pci wants an IOMMU",
            "see `mvm doctor` about the IOMMU, and `dmesg`",
        ),
        ("create", ENOSPC) => (
            "the device has no room for another one of that type",
            "end a guest that has one, or take a smaller type; `mvm devices mdev` shows what is left",
        ),
        ("create", ENODEV | ENOENT) => (
            "the device makes no mediated devices now",
            "its driver must be loaded with them enabled (`i915.enable_gvt=1` for GVT-g)",
        ),
        ("create", EINVAL) => (
            "the type is not to be had in this mix, or the name is no UUID",
            "take another type, or the same as the other mediated devices of that GPU",
        ),
        ("remove", EBUSY) => ("a process has the mediated device open", "end its guest"),
        ("reset", ENOTTY) => (
            "the device knows no way to be reset",
            "it works again after its driver has it, or the host was restarted",
        ),
        ("driver_override", EINVAL) => ("the name is too long or holds a line end", ""),
        _ => return (None, None),
    };
    let text = match &*name {
        "sriov_numvfs" if number == ERANGE => format!("{cause}: {text}"),
        _ => cause.to_owned(),
    };
    let hint = Some(hint.to_owned()).filter(|hint| !hint.is_empty());
    (Some(text), hint)
}
