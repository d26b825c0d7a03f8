//! What goes along with what is taken: the rest of IOMMU groups, and the host's consoles.

use super::error::DeviceError;
use super::resolve::{Taken, Taking, shown};
use super::{ConsoleRef, HostPci, VFIO_PCI};
use crate::host::devices::{ConsoleKind, PciDevice, is_harmless_driver};
use crate::ids::Bdf;

impl Taking<'_> {
    /// Whether each group can be given away, and what has to be taken for it that the guest does not get.
    pub(super) fn groups(&self, companions: &mut Vec<HostPci>) -> Result<(), DeviceError> {
        for taken in &self.taken {
            let Some(device) = self.facts().get(taken.function) else {
                continue;
            };
            let Some(group) = device.group else { continue };
            let mut members = Vec::new();
            for member in self.facts().group_members(group) {
                let function = member.reference();
                if member.bridge || self.taken.iter().any(|taken| taken.function == function) {
                    continue;
                }
                if let Some(lease) = self.own_lease(function) {
                    if lease.damaged.is_some() {
                        return Err(super::may::taken(&taken.what, shown(member), lease));
                    }
                    return Err(DeviceError::GroupOfGuest {
                        what: taken.what.clone(),
                        device: shown(device),
                        group,
                        member: member.bdf,
                        guest: lease.guest.clone(),
                        owner: lease.owner.clone().map(Box::new),
                    });
                }
                let driver = member.driver.as_deref();
                members.extend(
                    driver
                        .filter(|driver| !is_harmless_driver(driver))
                        .map(|driver| (member, driver)),
                );
            }
            let whole_group =
                |taken: &Taken| taken.whole_group && self.group_of(taken) == Some(group);
            if members.is_empty() {
                continue;
            }
            if !self.taken.iter().any(whole_group) {
                return Err(DeviceError::Group {
                    what: taken.what.clone(),
                    key: taken.key.clone(),
                    device: shown(device),
                    group,
                    functions: members
                        .iter()
                        .all(|(member, _)| member.bdf.same_slot(device.bdf)),
                    members: members
                        .into_iter()
                        .map(|(member, driver)| {
                            let name = format!("{} {}", member.names.vendor, member.names.device);
                            (member.bdf, name, driver.to_owned())
                        })
                        .collect(),
                });
            }
            for (member, _) in members {
                self.may_have(&taken.what, member, taken.take)?;
                let companion = HostPci {
                    function: member.reference(),
                    address: member.bdf,
                    predicted: false,
                    group: member.group,
                    driver: VFIO_PCI.to_owned(),
                    had: member.driver.clone(),
                };
                if !companions.contains(&companion) {
                    companions.push(companion);
                }
            }
        }
        companions.sort_by_key(|companion| companion.function);
        Ok(())
    }

    fn group_of(&self, taken: &Taken) -> Option<u32> {
        self.facts()
            .get(taken.function)
            .and_then(|device| device.group)
    }

    /// The consoles that the host shows on what is taken.
    pub(super) fn consoles(&self, companions: &[HostPci], out: &mut Vec<ConsoleRef>) {
        let functions = self.taken.iter().map(|taken| taken.function);
        let gpus: Vec<&PciDevice> = functions
            .chain(companions.iter().map(|companion| companion.function))
            .filter_map(|function| self.facts().get(function))
            .filter(|device| device.is_gpu())
            .collect();
        let ours = |gpu: Option<Bdf>| {
            gpus.iter().any(|device| match gpu {
                Some(bdf) => device.bdf == bdf,
                None => device.boot_vga,
            })
        };
        let consoles = self
            .facts()
            .consoles
            .iter()
            .filter(|console| ours(console.gpu));
        out.extend(consoles.map(|console| match &console.kind {
            ConsoleKind::Vt => ConsoleRef::Vt(console.device.clone()),
            ConsoleKind::Platform { driver } => ConsoleRef::Platform {
                device: console.device.clone(),
                driver: driver.clone(),
            },
        }));
        // What draws goes before what it draws into.
        out.sort();
    }

    /// Says where a device cannot be put back to a known state between the host and the guest.
    pub(super) fn tell_resets(&mut self) {
        for taken in &self.taken {
            let Some(device) = self.facts().get(taken.function) else {
                continue;
            };
            if !device.can_reset {
                self.notes.push(format!(
                    "{} cannot be reset by itself: it may keep a guest's state, and work again only after a reboot",
                    shown(device)
                ));
            }
        }
    }
}
