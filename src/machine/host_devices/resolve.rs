//! From what the profile asks for to the devices that the guest gets: who answers to it, whether it can be
//! taken, and what goes along. Pure.

use super::error::DeviceError;
use super::{GuestSide, HostDevice, HostDeviceKind, HostDevices, HostPci, VfSet};
use crate::handover::Extent;
use crate::host::devices::{DeviceFacts, PciDevice, find};
use crate::host::{HostFacts, Images, QemuCaps};
use crate::ids::{Bdf, GuestName, Id, PciRef};
use crate::machine::BoardKind;
use crate::machine::error::ResolveError;
use crate::machine::files::regular;
use crate::profile::schema::{Functions, GroupWord, Layer, PciTable};

/// What a guest asks for, and what is known.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The guest.
    pub name: &'a GuestName,
    /// Its profile.
    pub layer: &'a Layer,
    /// Its board.
    pub board: BoardKind,
    /// Its QEMU.
    pub caps: &'a QemuCaps,
    /// The host.
    pub facts: &'a HostFacts,
    /// The files that the profile names.
    pub images: &'a Images,
}

impl<'a> Asked<'a> {
    pub(super) fn devices(&self) -> &'a DeviceFacts {
        &self.facts.devices
    }
}

/// A PCI function that the guest is going to get.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) id: Id,
    /// The table that asked for it, in words.
    pub(super) what: String,
    /// The table that asked for it, as a key.
    pub(super) key: String,
    pub(super) function: PciRef,
    pub(super) address: Bdf,
    pub(super) predicted: bool,
    /// Whether the host's use of it does not matter.
    pub(super) take: bool,
    /// Whether the rest of the group is taken too.
    pub(super) whole_group: bool,
    /// The driver that was asked for.
    pub(super) driver: Option<String>,
    pub(super) guest: GuestSide,
    pub(super) spot: Spot,
}

/// Where a function is going to sit in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spot {
    /// A slot of the root bus.
    Root(u8),
    /// The first place for devices of the host, which is kept for the GPU.
    Gpu,
    /// The next place.
    Next,
    /// With the one before it, as another function.
    Along,
}

/// The resolver's state.
pub(super) struct Taking<'a> {
    pub(super) asked: Asked<'a>,
    pub(super) taken: Vec<Taken>,
    pub(super) vfs: Vec<VfSet>,
    pub(super) notes: Vec<String>,
}

/// Whether a profile asks for any device of the host.
pub fn wants(layer: &Layer) -> bool {
    write_memory(layer) || layer.usb.as_ref().is_some_and(|usb| !usb.is_empty())
}

/// Whether the profile asks for devices that write to the guest's memory by themselves, through VFIO.
pub fn write_memory(layer: &Layer) -> bool {
    let gpu = layer.gpu.as_ref().is_some_and(|gpu| {
        gpu.vf.is_some() || gpu.whole == Some(true) || gpu.upt == Some(true) || gpu.mdev.is_some()
    });
    gpu || layer.pci.as_ref().is_some_and(|pci| !pci.is_empty())
        || layer.mdev.as_ref().is_some_and(|mdev| !mdev.is_empty())
}

/// The devices that the guest gets. What people should know about them is added to `notes`.
///
/// # Errors
///
/// [`DeviceError`] with what is in the way, and where a file that the profile names is not there.
pub fn resolve(asked: Asked<'_>, notes: &mut Vec<String>) -> Result<HostDevices, ResolveError> {
    let mut taking = Taking {
        asked,
        taken: Vec::new(),
        vfs: Vec::new(),
        notes: Vec::new(),
    };
    let auto = |table: &PciTable| super::vf::is_auto(table);
    // Those that can be any take what the others leave.
    for pass in [false, true] {
        if taking.gpu_is_auto() == pass {
            taking.gpu()?;
        }
        for (id, table) in asked.layer.pci.iter().flatten() {
            if auto(table) == pass {
                taking.pci(id, table)?;
            }
        }
    }
    let mut out = HostDevices::default();
    taking.groups(&mut out.companions)?;
    taking.consoles(&out.companions, &mut out.detach_consoles);
    taking.tell_resets();
    let next = taking.place(&mut out.devices);
    out.vfs = std::mem::take(&mut taking.vfs);
    let mut more = super::mdev::mdevs(asked, next, &mut taking.notes)?;
    out.devices.append(&mut more);
    out.devices
        .extend(super::usb::usbs(asked, &mut taking.notes)?);
    whole_or_part(&out.devices)?;
    notes.append(&mut taking.notes);
    Ok(out)
}

/// That no USB or mediated device is asked for together with the function that it would go away with.
fn whole_or_part(devices: &[HostDevice]) -> Result<(), DeviceError> {
    for part in devices {
        let extent = part.kind.extent();
        let whole = |other: &&HostDevice| {
            other.id != part.id && matches!(other.kind, HostDeviceKind::Pci(_))
        };
        let word = match part.kind {
            HostDeviceKind::Pci(_) => continue,
            HostDeviceKind::Mdev(_) => "mediated device",
            HostDeviceKind::Usb(_) => "USB device",
        };
        let mut wholes = devices.iter().filter(whole);
        if let Some(whole) = wholes.find(|whole| whole.kind.extent().excludes(&extent)) {
            return Err(DeviceError::WholeAndPart {
                first: format!("`[{}]`", whole.key()),
                second: format!("`[{}]`", part.key()),
                part: word,
                device: extent.part_of.map(|of| of.to_string()).unwrap_or_default(),
            });
        }
    }
    Ok(())
}

/// The line by which people know a function.
pub(super) fn shown(device: &PciDevice) -> String {
    find::pci_line(device)
}

impl<'a> Taking<'a> {
    pub(super) fn facts(&self) -> &'a DeviceFacts {
        self.asked.devices()
    }

    /// One table of `[pci]`.
    fn pci(&mut self, id: &Id, table: &PciTable) -> Result<(), ResolveError> {
        let key = format!("pci.{id}");
        let what = format!("`[{key}]`");
        self.has_pci(&what)?;
        let guest = GuestSide {
            place: None,
            rom: self.rom(&format!("{key}.rom"), table.rom.as_deref())?,
            no_rom: table.rom_bar == Some(false),
            x_vga: table.x_vga.unwrap_or(false),
            ..GuestSide::default()
        };
        let take = self.insists(table.take_from_host);
        let whole_group = table.group == Some(GroupWord::All);
        if let Some(vf) = &table.vf {
            let (function, address, predicted) = self.vf(&what, vf, take)?;
            self.add(Taken {
                id: id.clone(),
                what,
                key,
                function,
                address,
                predicted,
                take,
                whole_group,
                driver: table.driver.clone(),
                guest,
                spot: Spot::Next,
            })?;
            return Ok(());
        }
        let device = self.find(&what, table)?;
        let first = Taken {
            id: id.clone(),
            what,
            key,
            function: device.reference(),
            address: device.bdf,
            predicted: false,
            take,
            whole_group,
            driver: table.driver.clone(),
            guest,
            spot: Spot::Next,
        };
        let along = table.functions == Some(Functions::All);
        let one_slot = table.multifunction != Some(false);
        self.whole(first, device, along, one_slot)
    }

    /// A function, and where asked the others of its device.
    pub(super) fn whole(
        &mut self,
        first: Taken,
        device: &PciDevice,
        along: bool,
        one_slot: bool,
    ) -> Result<(), ResolveError> {
        let mut others = Vec::new();
        if along {
            let same =
                |other: &&PciDevice| other.bdf != device.bdf && other.bdf.same_slot(device.bdf);
            for other in self.facts().pci.iter().filter(same) {
                // The bridge to the board's old buses is no function that anybody means.
                if other.physfn.is_some() || other.bridge || other.base_class() == 0x06 {
                    continue;
                }
                let id = format!("{}-{}", first.id, other.bdf.function);
                // An id that is near its longest form loses letters before the number.
                let id = id.parse().or_else(|_| {
                    let short: String = first.id.as_str().chars().take(28).collect();
                    format!("{short}-{}", other.bdf.function).parse::<Id>()
                });
                let Ok(id) = id else { continue };
                others.push(Taken {
                    id,
                    function: other.reference(),
                    address: other.bdf,
                    // It is about the function that was named.
                    driver: None,
                    guest: GuestSide::default(),
                    spot: if one_slot { Spot::Along } else { Spot::Next },
                    ..first.clone()
                });
            }
        }
        self.add(first)?;
        for other in others {
            self.add(other)?;
        }
        Ok(())
    }

    /// The function that a table of `[pci]` means.
    fn find(&mut self, what: &str, table: &PciTable) -> Result<&'a PciDevice, DeviceError> {
        let facts = self.facts();
        let nth = table.nth.unwrap_or(1) as usize;
        let (found, told) = if let Some(bdf) = table.address {
            (find::pci_at(facts, bdf), None)
        } else if let Some(id) = table.id {
            (
                find::pci_id(facts, id.vendor, id.device, nth),
                Some(id.to_string()),
            )
        } else {
            let words = table.r#match.as_deref().unwrap_or_default();
            (find::pci_words(facts, words, nth), Some(words.to_owned()))
        };
        let device = found.map_err(|error| DeviceError::Find {
            what: what.to_owned(),
            error,
            gone: Vec::new(),
        })?;
        if let Some(told) = told {
            let nth = table.nth.map(|nth| format!(":{nth}"));
            let nth = nth.unwrap_or_default();
            self.notes.push(format!("{told}{nth} → {}", shown(device)));
        }
        Ok(device)
    }

    /// Takes a function, unless something that has to do with it alone is in the way.
    pub(super) fn add(&mut self, new: Taken) -> Result<(), DeviceError> {
        for old in &self.taken {
            let twice = old.function == new.function;
            let related = old.function.physical() == new.function.physical();
            let whole = |function| matches!(function, PciRef::Function(_));
            if twice {
                return Err(DeviceError::Twice {
                    first: old.what.clone(),
                    second: new.what,
                    device: new.function.to_string(),
                });
            }
            if related && (whole(old.function) != whole(new.function)) {
                let (first, second) = if whole(old.function) {
                    (old.what.clone(), new.what)
                } else {
                    (new.what, old.what.clone())
                };
                return Err(DeviceError::WholeAndPart {
                    first,
                    second,
                    part: "virtual function",
                    device: new.function.physical().to_string(),
                });
            }
        }
        if let Some(device) = self.facts().get(new.function) {
            self.may_have(&new.what, device, new.take)?;
        } else {
            let pf = self.facts().function(new.function.physical());
            self.iommu(&new.what, pf, &new.function.to_string())?;
            self.leased(&new.what, &Extent::pci(new.function))?;
        }
        self.taken.push(new);
        Ok(())
    }

    /// Adds the devices with their places in the guest, and gives the next place.
    fn place(&self, out: &mut Vec<HostDevice>) -> u8 {
        let (places, next) = super::place::places(&self.taken);
        out.extend(self.taken.iter().zip(places).map(|(taken, place)| {
            let device = self.facts().get(taken.function);
            let pf = self.facts().function(taken.function.physical());
            HostDevice {
                id: taken.id.clone(),
                text: match (device, pf) {
                    (Some(device), _) => device.line(),
                    (None, Some(pf)) => format!("a virtual function of {}", pf.line()),
                    (None, None) => String::new(),
                },
                kind: HostDeviceKind::Pci(HostPci {
                    function: taken.function,
                    address: taken.address,
                    predicted: taken.predicted,
                    group: device.and_then(|device| device.group),
                    driver: self.driver(taken),
                    had: device.and_then(|device| device.driver.clone()),
                }),
                take_from_host: taken.take,
                park: self.parks(&taken.key),
                guest: GuestSide {
                    place: Some(place),
                    ..taken.guest.clone()
                },
            }
        }));
        next
    }

    /// The driver that hands a function to the guest: one that it has already, one that is made for it, or
    /// vfio-pci.
    fn driver(&self, taken: &Taken) -> String {
        let facts = self.facts();
        let has = facts
            .get(taken.function)
            .and_then(|device| device.driver.as_deref());
        let asked = taken.driver.as_deref();
        let found = asked
            .or(has.filter(|driver| driver.contains("vfio")))
            .or_else(|| facts.variant_for(taken.function));
        found.unwrap_or(super::VFIO_PCI).to_owned()
    }

    /// Whether the board has a place for PCI devices.
    pub(super) fn has_pci(&self, what: &str) -> Result<(), DeviceError> {
        if self.asked.board == BoardKind::Microvm {
            return Err(DeviceError::NoPci {
                what: what.to_owned(),
                board: self.asked.board,
            });
        }
        Ok(())
    }

    /// Whether what the table of that key asks for is out of the guest while that sleeps.
    fn parks(&self, key: &str) -> bool {
        let layer = self.asked.layer;
        let park = match key.strip_prefix("pci.").map(str::parse::<Id>) {
            Some(Ok(id)) => layer.pci.as_ref().and_then(|all| all.get(&id)?.park),
            _ => layer.gpu.as_ref().and_then(|gpu| gpu.park),
        };
        park.unwrap_or(false)
    }

    /// Whether a device is taken although the host uses it.
    pub(super) fn insists(&self, own: Option<bool>) -> bool {
        own.or(self.asked.layer.take_from_host).unwrap_or(false)
    }

    pub(super) fn rom(
        &self,
        key: &str,
        text: Option<&str>,
    ) -> Result<Option<std::path::PathBuf>, ResolveError> {
        let what = "an option ROM";
        text.map(|text| regular(self.asked.images, what, key, text))
            .transpose()
    }
}
