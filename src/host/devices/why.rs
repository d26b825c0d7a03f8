//! Whether a device can be given to a guest, and if not why.

use std::fmt;
use std::path::PathBuf;

use super::{DeviceFacts, Holder, HostUse, Mdev, PciDevice, UsbDevice};
use crate::handover::Extent;
use crate::ids::Bdf;
use crate::owner::Owner;

/// Something that keeps a device from being given to a guest as things are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhyNot {
    /// It is a bridge: a part of the host's buses.
    Bridge,
    /// The host has no IOMMU that is on.
    NoIommu,
    /// The IOMMU is on and the device is in no group.
    NoGroup,
    /// It does not answer: its driver hangs.
    Silent,
    /// Something is being done to it.
    UnderWay(String),
    /// The kernel has no `vfio-pci`.
    NoVfio,
    /// Others in its IOMMU group have drivers of the host.
    Group {
        /// The group.
        group: u32,
        /// The others, with their drivers.
        members: Vec<(Bdf, String)>,
    },
    /// The host uses it.
    Host(HostUse),
    /// A guest has it, or a part of it, or what it is a part of.
    Guest {
        /// The guest.
        guest: String,
        /// What it has, if that is not the device itself.
        device: Option<String>,
        /// Whether the guest is gone and nobody gave the device back yet.
        gone: bool,
        /// The user whose guest it is, if another than root and this one.
        owner: Option<Owner>,
    },
    /// Who has it nobody knows.
    Damaged {
        /// The lease that cannot be read.
        path: PathBuf,
    },
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge => f.write_str("it is a bridge of the host"),
            Self::NoIommu => f.write_str("the host's IOMMU is off or missing"),
            Self::NoGroup => f.write_str("it is in no IOMMU group"),
            Self::Silent => f.write_str("it does not answer: its driver hangs"),
            Self::UnderWay(what) => write!(f, "mvm is not done with it: {what}"),
            Self::NoVfio => f.write_str("this kernel has no vfio-pci"),
            Self::Group { group, members } => {
                write!(f, "it shares IOMMU group {group} with ")?;
                for (place, (bdf, driver)) in members.iter().enumerate() {
                    let comma = if place == 0 { "" } else { ", " };
                    write!(f, "{comma}{bdf} ({driver})")?;
                }
                Ok(())
            }
            Self::Host(host) => host.fmt(f),
            Self::Guest {
                guest,
                device,
                gone,
                owner,
            } => {
                let its = device.as_deref().unwrap_or("it");
                let of = owner.as_ref();
                let of = of.map_or_else(String::new, |owner| format!(" of {owner}"));
                if *gone {
                    write!(f, "guest {guest}{of} had {its} and is gone: `mvm recover`")
                } else {
                    write!(f, "guest {guest}{of} has {its}")
                }
            }
            Self::Damaged { path } => {
                let path = path.display();
                write!(
                    f,
                    "its lease {path} cannot be read: root's `mvm recover` removes it"
                )
            }
        }
    }
}

/// Whether the driver does not stand in the way of its group's use by a guest: VFIO's own, its vendors'
/// variants, and `pci-stub`.
pub fn is_harmless_driver(driver: &str) -> bool {
    driver == "pci-stub" || driver.contains("vfio")
}

impl DeviceFacts {
    /// What keeps a function from being given to a guest as things are; empty where nothing does.
    pub fn why_not(&self, device: &PciDevice) -> Vec<WhyNot> {
        let mut all = Vec::new();
        // Host bridge, ISA bridge and the like: VFIO would refuse some, nobody wants any.
        if device.bridge || device.base_class() == 0x06 {
            return vec![WhyNot::Bridge];
        }
        if device.silent {
            all.push(WhyNot::Silent);
        }
        all.extend(device.under_way.clone().map(WhyNot::UnderWay));
        match device.group {
            None if self.iommu.late_groups && device.driver.is_none() => {}
            None if self.iommu.on => all.push(WhyNot::NoGroup),
            None => all.push(WhyNot::NoIommu),
            Some(group) => {
                let members = self.group_obstacles(device, group);
                if !members.is_empty() {
                    all.push(WhyNot::Group { group, members });
                }
            }
        }
        if self.vfio.pci_available == Some(false) {
            all.push(WhyNot::NoVfio);
        }
        // A console is taken off a GPU that a guest gets, and comes back afterwards.
        let uses = device.used_by_host.iter();
        let uses = uses.filter(|used| !matches!(used, HostUse::ConsoleGpu { .. }));
        all.extend(uses.cloned().map(WhyNot::Host));
        all.extend(self.guests_with(&Extent::pci(device.reference())));
        all
    }

    /// The others in the group whose drivers are in the way. Bridges and what has no driver are not.
    fn group_obstacles(&self, device: &PciDevice, group: u32) -> Vec<(Bdf, String)> {
        let others = self
            .group_members(group)
            .into_iter()
            .filter(|other| other.bdf != device.bdf && !other.bridge);
        let bound = others.filter_map(|other| {
            let driver = other.driver.as_deref()?;
            (!is_harmless_driver(driver)).then(|| (other.bdf, driver.to_owned()))
        });
        bound.collect()
    }

    /// Guests that have the device, a part of it, or what it is a part of.
    fn guests_with(&self, own: &Extent) -> Vec<WhyNot> {
        let mut all = Vec::new();
        for lease in &self.leases {
            if !own.excludes(&lease.extent()) {
                continue;
            }
            if let Some(path) = &lease.damaged {
                all.push(WhyNot::Damaged { path: path.clone() });
                continue;
            }
            let controller = own.key.starts_with("usb-") && lease.pci().is_some();
            let device = match lease.shown() {
                _ if lease.key == own.key => None,
                shown if controller => Some(format!("its controller {shown}")),
                shown => Some(shown),
            };
            all.push(WhyNot::Guest {
                guest: lease.guest.clone(),
                device,
                gone: lease.holder == Holder::Gone,
                owner: lease.owner.clone(),
            });
        }
        all
    }

    /// What keeps a mediated device from being given to a guest as things are; empty where nothing does.
    pub fn why_not_mdev(&self, device: &Mdev) -> Vec<WhyNot> {
        let parent = self.mdev_parent(&device.parent);
        self.guests_with(&Extent::mdev(device.uuid, parent))
    }

    /// What keeps a USB device from being given to a guest as things are; empty where nothing does.
    pub fn why_not_usb(&self, device: &UsbDevice) -> Vec<WhyNot> {
        if device.hub {
            return vec![WhyNot::Bridge];
        }
        let uses = device.used_by_host.iter().cloned();
        let mut all: Vec<WhyNot> = uses.map(WhyNot::Host).collect();
        all.extend(self.guests_with(&device.extent()));
        all
    }
}
