//! Virtual functions: which one, and whether there are enough.

use super::error::DeviceError;
use super::may::{host_uses, taken};
use super::resolve::{Taking, shown};
use super::{Provision, VfNet, VfSet};
use crate::handover::Extent;
use crate::host::devices::{PciDevice, find, is_harmless_driver};
use crate::ids::{Bdf, MacAddr, PciRef};
use crate::machine::error::ResolveError;
use crate::profile::schema::{PciTable, VfIndex, VfTable};

/// A virtual function that is asked for.
pub(super) struct VfAsk<'a> {
    /// The table, in words.
    pub(super) what: &'a str,
    /// The devices that may have it.
    pub(super) pfs: Vec<&'a PciDevice>,
    pub(super) index: VfIndex,
    pub(super) count: Option<u32>,
    pub(super) keep: bool,
    pub(super) take: bool,
    pub(super) provision: Option<Provision>,
    pub(super) mac: Option<MacAddr>,
    pub(super) vlan: Option<u16>,
}

/// One that was found: its name, where it is, and whether that is only expected.
pub(super) type Found = (PciRef, Bdf, bool);

/// Whether a table of `[pci]` takes any virtual function that is free.
pub(super) fn is_auto(table: &PciTable) -> bool {
    let vf = table.vf.as_ref();
    vf.is_some_and(|vf| vf.index.unwrap_or(VfIndex::Auto) == VfIndex::Auto)
}

/// One of a physical function that could be the one.
struct Candidate<'a> {
    pf: &'a PciDevice,
    index: u32,
    /// How many of the physical function guests have.
    used: usize,
    /// Whether something else may be using it.
    doubtful: bool,
}

impl<'a> Taking<'a> {
    /// The virtual function that a table of `[pci]` means.
    pub(super) fn vf(
        &mut self,
        what: &str,
        vf: &VfTable,
        take: bool,
    ) -> Result<Found, ResolveError> {
        let of = vf.of.as_deref().unwrap_or_default();
        let facts = self.facts();
        let pf = find::pci(facts, of).map_err(|error| DeviceError::Find {
            what: what.to_owned(),
            error,
            gone: Vec::new(),
        })?;
        let pf = match pf.physfn {
            Some((physical, _)) => facts.function(physical).unwrap_or(pf),
            None => pf,
        };
        if of.parse::<Bdf>().is_err() {
            self.notes.push(format!("{of} → {}", shown(pf)));
        }
        let net = vf.mac.is_some() || vf.vlan.is_some();
        if net && (pf.base_class() != 0x02 || pf.net.is_empty()) {
            return Err(DeviceError::NoNet {
                what: what.to_owned(),
                device: shown(pf),
            }
            .into());
        }
        for link in pf.net_down.iter().filter(|_| net) {
            self.notes.push(format!(
                "{link}, which {what} is a virtual function of, is switched off: some drivers tell a function its \
                 address and VLAN only while it is on (`ip link set {link} up`)"
            ));
        }
        Ok(self.pick(VfAsk {
            what,
            pfs: vec![pf],
            index: vf.index.unwrap_or(VfIndex::Auto),
            count: vf.count,
            keep: vf.keep.unwrap_or(false),
            take,
            provision: None,
            mac: vf.mac.clone(),
            // The profile's rules keep it below 4095.
            vlan: vf.vlan.and_then(|vlan| u16::try_from(vlan).ok()),
        })?)
    }

    /// The virtual function that suits best: of a device near the CPUs and the memory that the guest is bound
    /// to, and of those of the one of which guests have the fewest.
    pub(super) fn pick(&mut self, ask: VfAsk<'_>) -> Result<Found, DeviceError> {
        let mut candidates = Vec::new();
        let mut errors = Vec::new();
        for pf in &ask.pfs {
            match self.candidate(&ask, pf) {
                Ok(candidate) => candidates.push(candidate),
                Err(error) => errors.push(error),
            }
        }
        let best = candidates.into_iter().min_by_key(|one| {
            let far = self.facts().is_far(one.pf);
            (one.doubtful, far, one.used, one.pf.bdf)
        });
        let Some(Candidate { pf, index, .. }) = best else {
            return Err(match errors.len() {
                1 => errors.remove(0),
                _ => DeviceError::NoFreeVf {
                    what: ask.what.to_owned(),
                    devices: ask.pfs.iter().map(|pf| pf.bdf.to_string()).collect(),
                    why: errors.iter().map(ToString::to_string).collect(),
                },
            });
        };
        let function = PciRef::Vf { pf: pf.bdf, index };
        if ask.index == VfIndex::Auto || ask.pfs.len() > 1 {
            self.notes.push(format!("{} → {function}", ask.what));
        }
        self.have(&ask, pf, index);
        let (address, predicted) = match self.facts().vf_address(pf.bdf, index) {
            Some(found) => found,
            // The device does not tell offset and stride before it has virtual functions: those of most
            // follow it.
            None => {
                let id = u32::from(pf.bdf.routing_id()) + index;
                let id = u16::try_from(id).unwrap_or(u16::MAX);
                (Bdf::from_routing_id(pf.bdf.domain, id), true)
            }
        };
        Ok((function, address, predicted))
    }

    /// The best of one device.
    fn candidate<'b>(
        &self,
        ask: &VfAsk<'_>,
        pf: &'b PciDevice,
    ) -> Result<Candidate<'b>, DeviceError> {
        let what = || ask.what.to_owned();
        let sriov = pf.sriov.as_ref().filter(|sriov| sriov.total > 0);
        let Some(sriov) = sriov else {
            let can = self.facts().pci.iter().filter(|other| {
                let total = other.sriov.as_ref().map_or(0, |sriov| sriov.total);
                total > 0
            });
            return Err(DeviceError::NoSriov {
                what: what(),
                device: shown(pf),
                can: can.map(shown).collect(),
            });
        };
        let existing = sriov.current > 0;
        let count = ask.count.unwrap_or(0);
        let range = |index, total| DeviceError::VfRange {
            what: what(),
            index,
            device: shown(pf),
            total,
        };
        let number = match ask.index {
            VfIndex::Number(number) => number,
            VfIndex::Auto => 0,
        };
        if let Some(wrong) = [number, count]
            .into_iter()
            .find(|wanted| *wanted > sriov.total)
        {
            return Err(range(wrong, sriov.total));
        }
        let wanted = number.max(count);
        if existing && wanted > sriov.current {
            return Err(DeviceError::VfCount {
                what: what(),
                device: shown(pf),
                pf: pf.bdf,
                current: sriov.current,
                wanted,
                guests: self.guests_of(pf.bdf),
            });
        }
        let limit = match ask.count {
            _ if existing => sriov.current,
            Some(count) => count,
            None => sriov.total,
        };
        if number > limit {
            return Err(range(number, limit));
        }
        let driver = pf.driver.as_deref();
        if !existing && driver.is_none_or(is_harmless_driver) {
            return Err(DeviceError::NoPfDriver {
                what: what(),
                device: shown(pf),
                driver: pf.driver.clone(),
            });
        }
        if let Some(lease) = self.own_lease(PciRef::Function(pf.bdf)) {
            return Err(taken(ask.what, pf.bdf.to_string(), lease));
        }
        let own = |index| PciRef::Vf { pf: pf.bdf, index };
        let used = (1..=limit)
            .filter(|index| self.asked.other_guest(&Extent::pci(own(*index))).is_some())
            .count();
        let candidate = |index, doubtful| Candidate {
            pf,
            index,
            used,
            doubtful,
        };
        if number > 0 {
            // What is in its way is told when it is taken.
            return Ok(candidate(number, false));
        }
        let mut why = Vec::new();
        let mut second = None;
        for index in 1..=limit {
            match self.obstacle(own(index), ask.take) {
                Some(obstacle) => why.push(format!("number {index}: {obstacle}")),
                None if self.is_held(own(index)) => second = second.or(Some(index)),
                None => return Ok(candidate(index, false)),
            }
        }
        second
            .map(|index| candidate(index, true))
            .ok_or_else(|| DeviceError::NoFreeVf {
                what: what(),
                devices: vec![shown(pf)],
                why,
            })
    }

    /// What keeps a virtual function from being anybody's.
    fn obstacle(&self, function: PciRef, take: bool) -> Option<String> {
        if self.taken.iter().any(|taken| taken.function == function) {
            return Some("this guest has it already".to_owned());
        }
        if let Some(lease) = self.asked.other_guest(&Extent::pci(function)) {
            return Some(format!("guest {} has it", lease.guest));
        }
        let device = self.facts().get(function)?;
        host_uses(device).into_iter().next().filter(|_| !take)
    }

    /// Whether a program of somebody else may have it: it is ready for one, and mvm did not make it so.
    fn is_held(&self, function: PciRef) -> bool {
        let driver = self
            .facts()
            .get(function)
            .and_then(|device| device.driver.as_deref());
        driver.is_some_and(is_harmless_driver)
    }

    /// Notes what has to be there for it.
    fn have(&mut self, ask: &VfAsk<'_>, pf: &PciDevice, index: u32) {
        let Some(sriov) = &pf.sriov else { return };
        let existing = sriov.current > 0;
        let at = self.vfs.iter().position(|set| set.pf == pf.bdf);
        let at = at.unwrap_or_else(|| {
            self.vfs.push(VfSet {
                pf: pf.bdf,
                count: 0,
                existing,
                keep: false,
                provision: None,
                net: Vec::new(),
            });
            self.vfs.len() - 1
        });
        let set = &mut self.vfs[at];
        set.count = set.count.max(match ask.count {
            _ if existing => sriov.current,
            Some(count) => count,
            None => sriov.total,
        });
        set.keep |= ask.keep;
        if set.provision.is_none() {
            set.provision.clone_from(&ask.provision);
        }
        if ask.mac.is_some() || ask.vlan.is_some() {
            set.net.push(VfNet {
                index,
                mac: ask.mac.clone(),
                vlan: ask.vlan,
            });
        }
    }
}
