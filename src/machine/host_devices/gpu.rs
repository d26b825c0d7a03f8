//! `[gpu]`: which GPU, and how the guest sees it.

use super::error::DeviceError;
use super::resolve::{Spot, Taken, Taking, shown};
use super::vf::VfAsk;
use super::{GuestSide, Igd, Provision};
use crate::host::devices::{PciDevice, find};
use crate::ids::{Bdf, Id};
use crate::machine::BoardKind;
use crate::machine::error::ResolveError;
use crate::profile::schema::{Functions, GpuTable, GpuVendor, GroupWord, ProvisionTable, VfIndex};

/// The table's name.
pub(super) const GPU: &str = "`[gpu]`";
const INTEL: u16 = 0x8086;

/// The maker's number, as the PCI SIG gives them.
const fn pci_vendor(vendor: GpuVendor) -> u16 {
    match vendor {
        GpuVendor::Amd => 0x1002,
        GpuVendor::Intel => INTEL,
        GpuVendor::Nvidia => 0x10de,
    }
}

/// What is wanted, in words.
fn kind_of(vendor: Option<GpuVendor>, kind: &str) -> String {
    match vendor {
        Some(GpuVendor::Amd) => format!("{kind} of AMD's"),
        Some(GpuVendor::Intel) => format!("{kind} of Intel's"),
        Some(GpuVendor::Nvidia) => format!("{kind} of NVIDIA's"),
        None => kind.to_owned(),
    }
}

/// The slot of Intel's integrated GPU, which its drivers and its video BIOS know it by.
const IGD_SLOT: u8 = 0x02;
/// Its slot beside another display.
const UPT_SLOT: u8 = 0x04;

/// The id of the guest's GPU.
pub(in crate::machine) fn id() -> Id {
    "gpu".parse().expect("it is an id")
}

/// A GPU that is a part of the processor's own package, as Intel's are: it sits on the root bus.
pub(super) fn is_integrated(device: &PciDevice) -> bool {
    device.parent.is_none() && device.vendor == INTEL
}

/// Where a GPU that sits on the host's root bus sits in the guest.
pub(super) fn igd_spot(device: Option<&PciDevice>, board: BoardKind) -> Spot {
    match board {
        BoardKind::Q35 if device.is_some_and(is_integrated) => Spot::Root(IGD_SLOT),
        _ => Spot::Gpu,
    }
}

impl<'a> Taking<'a> {
    /// Whether any virtual function will do.
    pub(super) fn gpu_is_auto(&self) -> bool {
        let gpu = self.asked.layer.gpu.as_ref();
        gpu.is_some_and(|gpu| gpu.vf == Some(VfIndex::Auto))
    }

    /// The GPU, unless it is a mediated device or none of the host's.
    pub(super) fn gpu(&mut self) -> Result<(), ResolveError> {
        let Some(gpu) = &self.asked.layer.gpu else {
            return Ok(());
        };
        match gpu.vf {
            Some(index) => self.gpu_vf(gpu, index),
            None if gpu.upt == Some(true) => self.gpu_whole(gpu, true),
            None if gpu.whole == Some(true) => self.gpu_whole(gpu, false),
            None => Ok(()),
        }
    }

    fn gpu_vf(&mut self, gpu: &GpuTable, index: VfIndex) -> Result<(), ResolveError> {
        self.has_pci(GPU)?;
        let pfs = match gpu.address {
            Some(bdf) => vec![self.gpu_at(bdf)?],
            None => {
                let gpus = self.gpus(None);
                let has_vfs = |gpu: &&PciDevice| {
                    let sriov = gpu.sriov.as_ref();
                    sriov.is_some_and(|sriov| sriov.total > 0)
                };
                let wanted = self.gpus(gpu.vendor).into_iter();
                let found: Vec<&PciDevice> = wanted.filter(has_vfs).collect();
                if found.is_empty() {
                    return Err(DeviceError::NoGpu {
                        kind: kind_of(gpu.vendor, "GPU with virtual functions"),
                        has: gpus.into_iter().map(shown).collect(),
                    }
                    .into());
                }
                found
            }
        };
        let take = self.insists(gpu.take_from_host);
        let (function, address, predicted) = self.pick(VfAsk {
            what: GPU,
            pfs,
            index,
            count: gpu.count,
            keep: gpu.keep.unwrap_or(false),
            take,
            provision: gpu.provision.as_ref().map(provision),
            mac: None,
            vlan: None,
        })?;
        let pf = self.facts().function(function.physical());
        let guest = GuestSide {
            rom: self.rom("gpu.rom", gpu.rom.as_deref())?,
            no_rom: gpu.rom_bar == Some(false),
            igd: (gpu.opregion == Some(true)).then_some(Igd {
                opregion: true,
                gms: None,
            }),
            ..GuestSide::default()
        };
        self.add(Taken {
            id: id(),
            what: GPU.to_owned(),
            key: "gpu".to_owned(),
            function,
            address,
            predicted,
            take,
            whole_group: gpu.group == Some(GroupWord::All),
            driver: gpu.driver.clone(),
            guest,
            spot: igd_spot(pf, self.asked.board),
        })?;
        Ok(())
    }

    fn gpu_whole(&mut self, gpu: &GpuTable, upt: bool) -> Result<(), ResolveError> {
        self.has_pci(GPU)?;
        let kind = if upt { "upt" } else { "whole" };
        let device = match gpu.address {
            Some(bdf) => self.gpu_at(bdf)?,
            None => match self.gpus_for(upt, gpu.vendor)[..] {
                [] => {
                    return Err(DeviceError::NoGpu {
                        kind: if upt {
                            "integrated GPU of Intel's".to_owned()
                        } else {
                            kind_of(gpu.vendor, "GPU")
                        },
                        has: self.gpus(None).into_iter().map(shown).collect(),
                    }
                    .into());
                }
                [only] => only,
                ref several => {
                    return Err(DeviceError::WhichGpu {
                        kind,
                        gpus: several.iter().map(|gpu| shown(gpu)).collect(),
                    }
                    .into());
                }
            },
        };
        let board = self.asked.board;
        let x86 = matches!(board, BoardKind::Q35 | BoardKind::Pc);
        let igd = is_integrated(device) && x86;
        let only_igd = [
            ("upt", upt),
            ("gms", gpu.gms.is_some()),
            ("opregion", gpu.opregion == Some(true)),
        ];
        if let Some((key, _)) = only_igd.into_iter().find(|(_, said)| *said && !igd) {
            return Err(DeviceError::NotIgd {
                key,
                device: shown(device),
            }
            .into());
        }
        let spot = match (igd, upt) {
            (true, false) => Spot::Root(IGD_SLOT),
            (true, true) => Spot::Root(UPT_SLOT),
            (false, _) => Spot::Gpu,
        };
        if igd && !upt && board == BoardKind::Q35 {
            self.notes.push(
                "QEMU's legacy mode for Intel's GPUs exists only on the board pc: on q35 the guest gets the OpRegion, \
                 and the first picture comes from its driver"
                    .to_owned(),
            );
        }
        let guest = GuestSide {
            place: None,
            rom: self.rom("gpu.rom", gpu.rom.as_deref())?,
            no_rom: gpu.rom_bar == Some(false),
            x_vga: gpu.x_vga.unwrap_or(false),
            igd: igd.then_some(Igd {
                opregion: gpu.opregion.unwrap_or(true),
                gms: gpu.gms,
            }),
            ..GuestSide::default()
        };
        let first = Taken {
            id: id(),
            what: GPU.to_owned(),
            key: "gpu".to_owned(),
            function: device.reference(),
            address: device.bdf,
            predicted: false,
            take: self.insists(gpu.take_from_host),
            whole_group: gpu.group == Some(GroupWord::All),
            driver: gpu.driver.clone(),
            guest,
            spot,
        };
        let along = gpu.functions == Some(Functions::All);
        self.whole(first, device, along, gpu.multifunction != Some(false))
    }

    /// Those that can be meant: beside another display there can be Intel's integrated one only.
    fn gpus_for(&self, upt: bool, vendor: Option<GpuVendor>) -> Vec<&'a PciDevice> {
        let mut gpus = self.gpus(vendor);
        gpus.retain(|gpu| !upt || is_integrated(gpu));
        gpus
    }

    /// The GPUs of the host that are no virtual functions, those of that maker where one is named.
    fn gpus(&self, vendor: Option<GpuVendor>) -> Vec<&'a PciDevice> {
        let devices = self.facts().pci.iter();
        let made = |device: &&PciDevice| vendor.is_none_or(|one| pci_vendor(one) == device.vendor);
        devices
            .filter(|device| device.is_gpu() && device.physfn.is_none())
            .filter(made)
            .collect()
    }

    /// The GPU at an address.
    fn gpu_at(&self, bdf: Bdf) -> Result<&'a PciDevice, DeviceError> {
        let device = find::pci_at(self.facts(), bdf).map_err(|error| DeviceError::Find {
            what: GPU.to_owned(),
            error,
            gone: Vec::new(),
        })?;
        // The address of a virtual function means the GPU that it belongs to.
        let device = match device.physfn {
            Some((pf, _)) => self.facts().function(pf).unwrap_or(device),
            None => device,
        };
        if !device.is_gpu() {
            return Err(DeviceError::NotAGpu {
                device: shown(device),
            });
        }
        Ok(device)
    }
}

fn provision(table: &ProvisionTable) -> Provision {
    Provision {
        exec_quantum_ms: table.exec_quantum_ms,
        preempt_timeout_us: table.preempt_timeout_us,
        ggtt_quota: table.ggtt_quota,
        lmem_quota: table.lmem_quota,
        contexts_quota: table.contexts_quota,
        doorbells_quota: table.doorbells_quota,
        ggtt_spare: table.ggtt_spare,
        contexts_spare: table.contexts_spare,
        doorbells_spare: table.doorbells_spare,
    }
}
