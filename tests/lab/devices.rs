//! What an emulated host has. The addresses are fixed, because the firmware numbers the buses in the
//! order of the root ports' slots.

use serde_json::{Value, json};

/// What can be left away or added.
#[derive(Clone, Copy, Default)]
pub(crate) struct Extras {
    /// `00:10.0` another xHCI controller, with a stick (`STICK02`) of its own.
    pub(crate) second_xhci: bool,
    /// `00:11.0` a display with Linux' boot console on it (bochs-drm, fb0).
    pub(crate) gpu: bool,
    /// Linux 6.12 with iommufd, and QEMU 10 for the guests.
    pub(crate) iommufd: bool,
    /// `06:00.0` an igb NIC with 7 VFs. Needs QEMU 10 outside.
    pub(crate) igb: bool,
}

/// NVMe with 4 VFs (`01:00.0`), of which one comes online by `Host::nvme_vf_online`.
pub(crate) const NVME: &str = "0000:01:00.0";
/// An RTL8139 and an `edu` device behind a bridge to conventional PCI (`02:00.0`): one IOMMU group.
pub(crate) const RTL8139: &str = "0000:03:01.0";
pub(crate) const EDU: &str = "0000:03:02.0";
/// Two like NICs (e1000e).
pub(crate) const NIC1: &str = "0000:04:00.0";
pub(crate) const NIC2: &str = "0000:05:00.0";
/// The igb NIC of `Builder::igb`.
pub(crate) const IGB: &str = "0000:06:00.0";
/// The USB controller with a stick (`46f4:0001`, serial `STICK01`), keyboard, mouse and tablet (`0627:0001`)
/// and a serial converter (`0403:6001`).
pub(crate) const XHCI: &str = "0000:00:0f.0";
/// The controller of `Builder::second_xhci`, with a stick of serial `STICK02`.
pub(crate) const XHCI2: &str = "0000:00:10.0";
/// The display of `Builder::gpu`.
pub(crate) const GPU: &str = "0000:00:11.0";
/// The host's own NIC (virtio): its default route goes there.
pub(crate) const UPLINK: &str = "0000:00:1d.0";

/// Devices as QEMU's `-device` wants them, in JSON. Each has an `id`: those with a `bus` other than the root
/// can be unplugged and plugged again by it.
pub(crate) fn x86(extras: Extras) -> Vec<Value> {
    let mut devices = vec![
        json!({ "driver": "intel-iommu", "intremap": "on", "caching-mode": true, "device-iotlb": true }),
        json!({ "driver": "virtio-net-pci", "id": "uplink", "netdev": "uplink", "addr": "1d.0", "romfile": "" }),
    ];
    for port in 1..=7 {
        devices.push(json!({
            "driver": "pcie-root-port", "id": format!("port{port}"), "chassis": port, "slot": port,
            "addr": format!("{:x}.0", port + 1)
        }));
    }
    devices.extend([
        json!({ "driver": "nvme-subsys", "id": "subsystem" }),
        json!({
            "driver": "nvme", "id": "nvme", "serial": "lab0", "subsys": "subsystem", "bus": "port1",
            "sriov_max_vfs": 4, "sriov_vq_flexible": 8, "sriov_vi_flexible": 4,
            "max_ioqpairs": 12, "msix_qsize": 13
        }),
        json!({ "driver": "nvme-ns", "id": "namespace", "drive": "nvme", "bus": "nvme", "nsid": 1, "shared": true }),
        json!({ "driver": "pcie-pci-bridge", "id": "bridge", "bus": "port2" }),
        json!({ "driver": "rtl8139", "id": "rtl8139", "bus": "bridge", "addr": "1.0", "romfile": "", "mac": "52:54:00:00:00:39" }),
        json!({ "driver": "edu", "id": "edu", "bus": "bridge", "addr": "2.0" }),
        json!({ "driver": "e1000e", "id": "nic1", "bus": "port3", "netdev": "nic1", "romfile": "", "mac": "52:54:00:00:00:11" }),
        json!({ "driver": "e1000e", "id": "nic2", "bus": "port4", "netdev": "nic2", "romfile": "", "mac": "52:54:00:00:00:12" }),
        // With fewer ports QEMU would put a hub between.
        json!({ "driver": "qemu-xhci", "id": "usb", "p2": 8, "p3": 8, "addr": "f.0" }),
        json!({ "driver": "usb-storage", "id": "stick", "bus": "usb.0", "port": "1", "drive": "stick", "serial": "STICK01", "removable": true }),
        json!({ "driver": "usb-kbd", "id": "keyboard", "bus": "usb.0", "port": "2" }),
        json!({ "driver": "usb-mouse", "id": "mouse", "bus": "usb.0", "port": "3" }),
        json!({ "driver": "usb-tablet", "id": "tablet", "bus": "usb.0", "port": "4" }),
        json!({ "driver": "usb-serial", "id": "serial", "bus": "usb.0", "port": "5", "chardev": "usbserial", "always-plugged": true }),
    ]);
    if extras.second_xhci {
        devices.extend([
            json!({ "driver": "qemu-xhci", "id": "usb2", "p2": 4, "p3": 4, "addr": "10.0" }),
            json!({ "driver": "usb-storage", "id": "stick2", "bus": "usb2.0", "port": "1", "drive": "stick2", "serial": "STICK02", "removable": true }),
        ]);
    }
    if extras.gpu {
        devices.push(json!({ "driver": "VGA", "id": "gpu", "addr": "11.0" }));
    }
    if extras.igb {
        devices.push(
            json!({ "driver": "igb", "id": "igb", "bus": "port5", "netdev": "igb", "romfile": "", "mac": "52:54:00:00:00:20" }),
        );
    }
    devices
}

/// The Arm host's other NVMe device (`02:00.0`), without VFs, with the serial number `lab1`.
pub(crate) const ARM_NVME2: &str = "0000:02:00.0";
/// The Arm host's e1000e NIC (`03:00.0`).
pub(crate) const ARM_NIC: &str = "0000:03:00.0";

/// The devices of an Arm host: `NVME` with 2 VFs, and the ones named here. The SMMU is part of the board.
pub(crate) fn arm() -> Vec<Value> {
    let mut devices = vec![
        json!({ "driver": "virtio-net-pci", "id": "uplink", "netdev": "uplink", "addr": "1d.0", "romfile": "" }),
    ];
    for port in 1..=3 {
        devices.push(json!({
            "driver": "pcie-root-port", "id": format!("port{port}"), "chassis": port, "slot": port,
            "addr": format!("{:x}.0", port + 1)
        }));
    }
    devices.extend([
        json!({ "driver": "nvme-subsys", "id": "subsystem" }),
        json!({
            "driver": "nvme", "id": "nvme", "serial": "lab0", "subsys": "subsystem", "bus": "port1",
            "sriov_max_vfs": 2, "sriov_vq_flexible": 4, "sriov_vi_flexible": 2,
            "max_ioqpairs": 8, "msix_qsize": 9
        }),
        json!({ "driver": "nvme-ns", "id": "namespace", "drive": "nvme", "bus": "nvme", "nsid": 1, "shared": true }),
        json!({ "driver": "nvme", "id": "nvme2", "serial": "lab1", "bus": "port2", "drive": "nvme2" }),
        json!({ "driver": "e1000e", "id": "nic1", "bus": "port3", "netdev": "nic1", "romfile": "", "mac": "52:54:00:00:00:11" }),
    ]);
    devices
}
