//! What devices of the host mean for the rest of the machine: the interface of the kernel that they are reached
//! by, and how far the guest's addresses may go.

use super::error::DeviceError;
use super::{HostDevice, HostDeviceKind};
use crate::host::QemuCaps;
use crate::host::devices::{DeviceFacts, IommuFacts};
use crate::ids::Arch;
use crate::machine::cpu::CpuError;
use crate::machine::drivers::{IOMMUFD, VFIO};
use crate::machine::{AccelKind, Cpu};
use crate::profile::schema::{CpuTable, Layer, VfioBackend};

/// How many physical address bits a guest has under TCG (`TCG_PHYS_ADDR_BITS` of QEMU's target/i386).
const TCG_BITS: u32 = 40;

/// Whether VFIO is reached through `/dev/iommu`.
///
/// # Errors
///
/// Where the profile wants it and the kernel or this QEMU lacks it.
pub fn backend(
    layer: &Layer,
    devices: &[HostDevice],
    caps: &QemuCaps,
    facts: &DeviceFacts,
) -> Result<bool, DeviceError> {
    let word = layer.vfio.as_ref().and_then(|vfio| vfio.backend);
    let qemu = caps.has_object(IOMMUFD) && caps.device_property(VFIO, IOMMUFD).is_some();
    let kernel = facts.vfio.iommufd;
    let vfio = devices
        .iter()
        .any(|device| !matches!(device.kind, HostDeviceKind::Usb(_)));
    match word.unwrap_or(VfioBackend::Auto) {
        _ if !vfio => Ok(false),
        VfioBackend::Group => Ok(false),
        // Groups are what every version of both has, and what has been tried longest.
        VfioBackend::Auto => Ok(!facts.vfio.container && kernel && qemu),
        VfioBackend::Iommufd if !kernel => Err(DeviceError::NoIommufd {
            who: "this host's kernel".to_owned(),
            node: true,
        }),
        VfioBackend::Iommufd if !qemu => Err(DeviceError::NoIommufd {
            who: format!("this QEMU ({})", caps.version),
            node: false,
        }),
        VfioBackend::Iommufd => Ok(true),
    }
}

/// How far the guest's physical addresses may go.
#[derive(Debug, Clone, Copy)]
pub struct PhysBits<'a> {
    /// The devices of the host.
    pub devices: &'a [HostDevice],
    /// The host's IOMMU.
    pub iommu: &'a IommuFacts,
    /// The accelerator.
    pub accel: AccelKind,
    /// The guest's architecture.
    pub arch: Arch,
}

impl PhysBits<'_> {
    /// The processor with the limit, and with what else a passed GPU may want of it.
    ///
    /// What lies above the IOMMU's width cannot be mapped for a device: a guest that puts a BAR there does not
    /// start.
    ///
    /// # Errors
    ///
    /// Where the guest's architecture has no such limit.
    pub fn apply(self, table: &CpuTable, mut cpu: Cpu) -> Result<Cpu, CpuError> {
        let x86 = self.arch == Arch::X86_64;
        for (key, said) in [
            ("phys-bits-limit", table.phys_bits_limit.is_some()),
            ("hide-hypervisor", table.hide_hypervisor == Some(true)),
        ] {
            if said && !x86 {
                return Err(CpuError::OnlyX86(key));
            }
        }
        if !x86 {
            return Ok(cpu);
        }
        let model = cpu.model.split(',').next().unwrap_or_default();
        let pci = |device: &HostDevice| matches!(device.kind, HostDeviceKind::Pci(_));
        let whole = matches!(model, "host" | "max");
        let width = self.iommu.width.map(u32::from);
        let width = width.filter(|_| whole && self.devices.iter().any(pci));
        if let Some(bits) = table.phys_bits_limit.or(width) {
            let option = match self.accel {
                AccelKind::Kvm if whole => format!(",host-phys-bits-limit={bits}"),
                AccelKind::Kvm => format!(",host-phys-bits=on,host-phys-bits-limit={bits}"),
                AccelKind::Tcg if bits < TCG_BITS => format!(",phys-bits={bits}"),
                AccelKind::Tcg => String::new(),
            };
            cpu.model.push_str(&option);
        }
        if table.hide_hypervisor == Some(true) {
            cpu.model.push_str(",kvm=off");
        }
        Ok(cpu)
    }
}
