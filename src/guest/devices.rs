//! What a start with devices of the host needs beside its steps.

use std::collections::BTreeMap;

use crate::ids::{Bdf, PciRef};
use crate::machine::{HostDeviceKind, Machine};
use crate::ops::{DeviceError, Host, memlock};
use crate::plan::Plan;
use crate::qemu;

/// What a device's own registers and QEMU's tables take of the limit.
const OVERHEAD: u64 = 1 << 30;

/// Lets QEMU keep the guest's memory in place, which devices write to by themselves.
///
/// # Errors
/// This user may not have that much.
pub(crate) fn allow_memory(machine: &Machine) -> Result<(), DeviceError> {
    let devices = machine
        .host_devices
        .iter()
        .filter(|device| !matches!(device.kind, HostDeviceKind::Usb(_)));
    let mut count = u64::try_from(devices.count()).unwrap_or(u64::MAX);
    if count == 0 {
        return Ok(());
    }
    if !machine.board.virtio_iommu {
        // They share what they see of the memory.
        count = 1;
    }
    let memory = machine.memory.as_bytes().saturating_mul(count);
    memlock::allow(memory.saturating_add(OVERHEAD))
}

/// Puts the addresses that virtual functions really have in the place of those that were expected, and
/// makes the command line again where any differs.
pub(crate) fn settle(host: &Host, plan: &mut Plan) {
    let actual: BTreeMap<PciRef, Bdf> = plan
        .machine
        .host_devices
        .iter()
        .filter_map(|device| match &device.kind {
            HostDeviceKind::Pci(pci) => Some(pci.function),
            _ => None,
        })
        .filter_map(|function| Some((function, host.address_of(function)?)))
        .collect();
    if plan.machine.settle(&actual) {
        plan.command = qemu::command_line(&plan.machine);
    }
}
