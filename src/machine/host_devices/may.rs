//! Whether a function may be the guest's: the IOMMU, the host, other guests.

use super::error::DeviceError;
use super::resolve::{Asked, Taking, shown};
use crate::handover::Extent;
use crate::host::devices::{Holder, HostUse, Lease, PciDevice};
use crate::ids::{Bdf, PciRef};

impl<'a> Asked<'a> {
    /// The lease of another guest that is in the way.
    pub(super) fn other_guest(self, wanted: &Extent) -> Option<&'a Lease> {
        self.others().find(|lease| wanted.excludes(&lease.extent()))
    }

    /// What other guests have.
    fn others(self) -> impl Iterator<Item = &'a Lease> {
        let own = self.name.as_str();
        let leases = self.devices().leases.iter();
        // What a guest left behind is given back before this one starts.
        leases.filter(move |lease| lease.holder != Holder::Gone && lease.guest != own)
    }
}

impl<'a> Taking<'a> {
    /// Whether the guest may have a function that exists; the rest of its group is not looked at.
    pub(super) fn may_have(
        &self,
        what: &str,
        device: &PciDevice,
        take: bool,
    ) -> Result<(), DeviceError> {
        if device.bridge || device.base_class() == 0x06 {
            return Err(DeviceError::Bridge {
                what: what.to_owned(),
                device: shown(device),
            });
        }
        self.iommu(what, Some(device), &shown(device))?;
        if let Some(sriov) = device.sriov.as_ref().filter(|sriov| sriov.current > 0) {
            return Err(DeviceError::LiveVfs {
                what: what.to_owned(),
                device: shown(device),
                pf: device.bdf,
                count: sriov.current,
                guests: self.guests_of(device.bdf),
            });
        }
        self.leased(what, &Extent::pci(device.reference()))?;
        let mdevs = device.used_by_host.iter().find_map(|used| match used {
            HostUse::LiveMdevs { count } => Some(*count),
            _ => None,
        });
        if let Some(count) = mdevs {
            return Err(DeviceError::LiveMdevs {
                what: what.to_owned(),
                device: shown(device),
                count,
            });
        }
        let uses = host_uses(device);
        if !take && !uses.is_empty() {
            return Err(DeviceError::Host {
                what: what.to_owned(),
                device: shown(device),
                uses,
            });
        }
        Ok(())
    }

    pub(super) fn iommu(
        &self,
        what: &str,
        function: Option<&PciDevice>,
        device: &str,
    ) -> Result<(), DeviceError> {
        let facts = self.facts();
        let what = || what.to_owned();
        // Its group comes with vfio-pci; what else is in it is seen before the guest starts.
        let late = |function: &PciDevice| facts.iommu.late_groups && function.driver.is_none();
        if !function.is_some_and(|function| function.group.is_some() || late(function)) {
            return Err(if facts.iommu.on {
                DeviceError::NoGroup {
                    what: what(),
                    device: device.to_owned(),
                }
            } else {
                DeviceError::NoIommu {
                    what: what(),
                    advice: facts.iommu.advice(),
                }
            });
        }
        if facts.vfio.pci_available == Some(false) {
            return Err(DeviceError::NoVfio { what: what() });
        }
        Ok(())
    }

    /// Whether another guest has it, a part of it, or what it is a part of. Nobody insists on that.
    pub(super) fn leased(&self, what: &str, wanted: &Extent) -> Result<(), DeviceError> {
        match self.asked.other_guest(wanted) {
            // What a virtual function is one of its name says.
            Some(lease) if lease.pci().is_none() && lease.key != wanted.key => {
                let whole = lease.extent().part_of;
                let of = whole.map_or_else(String::new, |whole| format!(" of {whole}"));
                Err(taken(what, format!("{}{of}", lease.shown()), lease))
            }
            Some(lease) => Err(taken(what, lease.shown(), lease)),
            None => Ok(()),
        }
    }

    /// The lease of another guest on that very function.
    pub(super) fn own_lease(&self, function: PciRef) -> Option<&'a Lease> {
        let key = function.key();
        self.asked.others().find(|lease| lease.key == key)
    }

    /// The other guests that have virtual functions of a device, each once.
    pub(super) fn guests_of(&self, pf: Bdf) -> Vec<String> {
        let theirs = self.facts().leases.iter().filter(|lease| {
            let function = lease.pci();
            let vf = matches!(function, Some(PciRef::Vf { pf: of, .. }) if of == pf);
            vf && lease.guest != self.asked.name.as_str()
        });
        let mut guests: Vec<String> = theirs.map(|lease| lease.guest.clone()).collect();
        guests.sort();
        guests.dedup();
        guests
    }
}

/// The refusal of a device that somebody else has, by that lease.
pub(super) fn taken(what: &str, device: String, lease: &Lease) -> DeviceError {
    let what = what.to_owned();
    let owner = lease.owner.clone().map(Box::new);
    match lease.damaged.clone() {
        Some(path) => DeviceError::BadLease {
            what,
            device,
            path,
            owner,
        },
        None => DeviceError::Guest {
            what,
            device,
            guest: lease.guest.clone(),
            owner,
        },
    }
}

/// What the host does with a function, in words. Its console is left out, as that is given back, and what is
/// made of it, which is told apart.
pub(super) fn host_uses(device: &PciDevice) -> Vec<String> {
    device
        .used_by_host
        .iter()
        .filter(|used| {
            !matches!(
                used,
                HostUse::ConsoleGpu { .. } | HostUse::LiveVfs { .. } | HostUse::LiveMdevs { .. }
            )
        })
        .map(ToString::to_string)
        .collect()
}
