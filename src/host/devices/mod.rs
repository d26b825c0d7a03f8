//! Devices of the host that a guest can be given, and who has them now.
//!
//! Everything is read without taking a lock that a stuck device holds: a device whose driver hangs must
//! not stop `mvm devices`.

mod advice;
mod console;
pub mod find;
mod iommu;
mod lease;
mod mdev;
mod names;
mod near;
mod pci;
mod place;
mod slow;
mod usb;
mod uses;
mod variant;
mod vfio;
mod why;

use serde::{Deserialize, Serialize};

use super::facts::Roots;
use super::sysfs::Sysfs;
use crate::ids::{Bdf, PciRef, UsbPort};

pub use console::{BootConsole, ConsoleKind};
pub use iommu::{BootLoader, CpuVendor, IommuFacts, IommuKind};
pub use lease::{Holder, Lease};
pub use mdev::{Mdev, MdevParent, MdevType};
pub use pci::{Names, PciDevice, Sriov};
pub use slow::child as read_attributes;
pub use usb::{UsbDevice, UsbInterface, UsbKind};
pub use uses::HostUse;
pub use variant::Variant;
pub use vfio::VfioFacts;
pub use why::{WhyNot, is_harmless_driver};

/// What the host has that a guest can be given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct DeviceFacts {
    /// PCI functions in bus order.
    pub pci: Vec<PciDevice>,
    /// The IOMMU and its groups.
    pub iommu: IommuFacts,
    /// VFIO in the kernel.
    pub vfio: VfioFacts,
    /// Devices that can make mediated devices.
    pub mdev_parents: Vec<MdevParent>,
    /// Mediated devices that exist.
    pub mdevs: Vec<Mdev>,
    /// USB devices in the order of their ports; root hubs are left out.
    pub usb: Vec<UsbDevice>,
    /// What shows the host's console on a screen.
    pub consoles: Vec<BootConsole>,
    /// Which guest has which device.
    pub leases: Vec<Lease>,
    /// The NUMA nodes that guests are bound to because this process is; empty where it is to none.
    pub near: Vec<u32>,
}

impl DeviceFacts {
    /// Reads them. Never fails: what cannot be read is left out.
    pub fn read(roots: &Roots) -> Self {
        let sysfs = &roots.sysfs;
        let around = roots.around_devices.as_deref();
        let mut pci = pci::read::read(sysfs);
        let under_way = lease::under_way(&roots.leases);
        for device in &mut pci {
            let key = device.reference().key();
            let ours = under_way.iter().find(|(busy, _)| *busy == key);
            device.under_way = ours.map(|(_, what)| what.clone());
        }
        let answers = slow::read(sysfs, &slow_files(sysfs, &pci));
        let found = names::pci(
            around,
            pci.iter().map(|device| (device.vendor, device.device)),
            pci.iter().map(PciDevice::class_code),
        );
        for device in &mut pci {
            device.names = found.pci(device.class_code(), device.vendor, device.device);
            let file = override_file(device.bdf);
            // An override that is not set reads so.
            let set = answers.text(&file).filter(|text| *text != "(null)");
            device.driver_override = set.filter(|text| !text.is_empty()).map(str::to_owned);
            device.silent = answers.is_silent(&file);
        }
        let mut usb = usb::read::read(sysfs, around, &answers);
        let consoles = console::read(sysfs, &pci, &answers);
        let mdevs = mdev::devices(sysfs);
        uses::fill(sysfs, around, &mut pci, &mut usb, &consoles, &mdevs);
        Self {
            iommu: iommu::read(sysfs, around, &pci),
            vfio: vfio::read(sysfs, around),
            mdev_parents: mdev::parents(sysfs, &answers),
            mdevs,
            leases: lease::read(&roots.leases),
            near: near::read(sysfs, around),
            consoles,
            usb,
            pci,
        }
    }

    /// The function at that address.
    pub fn function(&self, bdf: Bdf) -> Option<&PciDevice> {
        self.pci.iter().find(|device| device.bdf == bdf)
    }

    /// The function of that name, if it exists.
    pub fn get(&self, pci: PciRef) -> Option<&PciDevice> {
        match pci {
            PciRef::Function(bdf) => self.function(bdf),
            PciRef::Vf { pf, index } => self
                .pci
                .iter()
                .find(|device| device.physfn == Some((pf, index))),
        }
    }

    /// The USB controllers that guests have whole, with the guests: nobody else sees what is plugged into them.
    pub fn usb_controllers_of_guests(&self) -> Vec<(String, Bdf)> {
        const USB_CONTROLLER: u32 = 0x0c03;
        let held = self
            .leases
            .iter()
            .filter(|lease| lease.holder != Holder::Gone);
        let functions = held.filter_map(|lease| Some((lease, self.get(lease.pci()?)?)));
        functions
            .filter(|(_, function)| function.class >> 8 == USB_CONTROLLER)
            .map(|(lease, function)| (lease.guest.clone(), function.bdf))
            .collect()
    }

    /// The one name of the function at that address: a virtual function is named by its physical one.
    pub fn name(&self, bdf: Bdf) -> PciRef {
        match self.function(bdf).and_then(|device| device.physfn) {
            Some((pf, index)) => PciRef::Vf { pf, index },
            None => PciRef::Function(bdf),
        }
    }

    /// The address of virtual function `index` (from 1) of `pf`, and whether it is predicted: one that
    /// does not exist yet is at offset and stride from its physical function (PCI Express, 9.2.1.2).
    /// `None` where `pf` has no such virtual function.
    pub fn vf_address(&self, pf: Bdf, index: u32) -> Option<(Bdf, bool)> {
        let sriov = self.function(pf)?.sriov.as_ref()?;
        if index == 0 || index > sriov.total {
            return None;
        }
        if let Some(vf) = self.get(PciRef::Vf { pf, index }) {
            return Some((vf.bdf, false));
        }
        // Offset and stride may change with the number of functions; the kernel shows those of now, 0
        // where it cannot know yet.
        let id = u64::from(pf.routing_id())
            + u64::from(sriov.offset)
            + u64::from(index - 1) * u64::from(sriov.stride);
        let id = u16::try_from(id).ok().filter(|_| sriov.offset > 0)?;
        Some((Bdf::from_routing_id(pf.domain, id), true))
    }

    /// The PCI function that makes mediated devices under that name, if it is one.
    pub fn mdev_parent(&self, name: &str) -> Option<PciRef> {
        name.parse().ok().map(|bdf| self.name(bdf))
    }

    /// The types of mediated device that a function can make.
    pub fn mdev_types(&self, bdf: Bdf) -> &[MdevType] {
        self.mdev_parents
            .iter()
            .find(|parent| parent.bdf == Some(bdf))
            .map_or(&[], |parent| &parent.types)
    }

    /// Whether a device is on another NUMA node than those that guests are bound to.
    pub fn is_far(&self, device: &PciDevice) -> bool {
        let far = |node: u32| !self.near.is_empty() && !self.near.contains(&node);
        device.numa.is_some_and(far)
    }

    /// The functions of an IOMMU group, in bus order.
    pub fn group_members(&self, group: u32) -> Vec<&PciDevice> {
        self.pci
            .iter()
            .filter(|device| device.group == Some(group))
            .collect()
    }

    /// The device at that port.
    pub fn usb_at(&self, port: &UsbPort) -> Option<&UsbDevice> {
        self.usb.iter().find(|device| device.port == *port)
    }
}

fn override_file(bdf: Bdf) -> String {
    format!("{}/{bdf}/driver_override", pci::read::DEVICES)
}

/// Everything that is read beside, because a stuck device may not answer.
fn slow_files(sysfs: &Sysfs, pci: &[PciDevice]) -> Vec<String> {
    // What has hung once does not have to be waited for again.
    let given = pci
        .iter()
        .filter(|device| !device.bridge && device.under_way.is_none());
    let mut files: Vec<String> = given.map(|device| override_file(device.bdf)).collect();
    files.extend(mdev::slow_files(sysfs));
    files.extend(usb::read::slow_files(sysfs));
    files.extend(console::slow_files(sysfs));
    files
}

#[cfg(test)]
mod tests;
