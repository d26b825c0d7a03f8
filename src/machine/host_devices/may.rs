//! Whether a function may be the guest's: the IOMMU, the host, other guests.

use super::error::DeviceError;
use super::resolve::{Taking, shown};
use crate::host::devices::{Holder, HostUse, Lease, PciDevice};
use crate::ids::{Bdf, PciRef};

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
        self.leased(what, device.reference())?;
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

    /// Whether another guest has the function, its physical function, or a virtual one of it.
    pub(super) fn leased(&self, what: &str, function: PciRef) -> Result<(), DeviceError> {
        match self.other_guest(function) {
            Some((lease, theirs)) => Err(DeviceError::Guest {
                what: what.to_owned(),
                device: theirs.to_string(),
                guest: lease.guest.clone(),
            }),
            None => Ok(()),
        }
    }

    /// The lease of another guest that is in the way.
    pub(super) fn other_guest(&self, function: PciRef) -> Option<(&'a Lease, PciRef)> {
        let whole = |function| matches!(function, PciRef::Function(_));
        self.others().find(|(_, theirs)| {
            *theirs == function
                || theirs.physical() == function.physical() && (whole(*theirs) || whole(function))
        })
    }

    /// The lease of another guest on that very function.
    pub(super) fn own_lease(&self, function: PciRef) -> Option<&'a Lease> {
        let found = self.others().find(|(_, theirs)| *theirs == function);
        found.map(|(lease, _)| lease)
    }

    /// The PCI functions that other guests have.
    fn others(&self) -> impl Iterator<Item = (&'a Lease, PciRef)> {
        let own = self.asked.name.as_str();
        // What a guest left behind is given back before this one starts.
        let held = move |lease: &&Lease| lease.holder != Holder::Gone && lease.guest != own;
        let leases = self.facts().leases.iter().filter(held);
        leases.filter_map(|lease| Some((lease, lease.pci()?)))
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

/// What the host does with a function, in words. Its console is left out, as that is given back, and virtual
/// functions, which are told apart.
pub(super) fn host_uses(device: &PciDevice) -> Vec<String> {
    device
        .used_by_host
        .iter()
        .filter(|used| !matches!(used, HostUse::ConsoleGpu { .. } | HostUse::LiveVfs { .. }))
        .map(ToString::to_string)
        .collect()
}
