//! What a start with devices of the host needs beside its steps.

use std::collections::BTreeMap;

use crate::ids::{Bdf, PciRef};
use crate::machine::{HostDeviceKind, Machine};
use crate::ops::{DeviceError, Host, memlock};
use crate::plan::Plan;
use crate::qemu;

/// The limit that QEMU needs, in bytes; 0 where no device needs one.
fn limit(machine: &Machine) -> u64 {
    match machine.locked_memory() {
        0 => 0,
        // iommufd counts all that a user has in place together, whichever of his guests it is for.
        _ if machine.iommufd && machine.run_as.is_some() => u64::MAX,
        needed => needed,
    }
}

/// Lets QEMU keep the guest's memory in place, which devices write to by themselves.
///
/// # Errors
/// This user may not have that much.
pub(crate) fn allow_memory(machine: &Machine) -> Result<(), DeviceError> {
    let needed = limit(machine);
    if needed == 0 {
        return Ok(());
    }
    memlock::allow(needed, machine.run_as.is_some())
}

/// The same for a QEMU that runs.
///
/// # Errors
/// This user may not have that much.
pub(crate) fn allow_memory_of(pid: u32, machine: &Machine) -> Result<(), DeviceError> {
    let needed = limit(machine);
    if needed == 0 {
        return Ok(());
    }
    memlock::allow_process(pid, needed, machine.run_as.is_some())
}

/// Puts the addresses that virtual functions really have in the place of those that were expected, and
/// makes the command line again where any differs.
pub(crate) fn settle(host: &Host, plan: &mut Plan) {
    if settle_machine(host, &mut plan.machine) {
        plan.command = qemu::command_line(&plan.machine);
    }
}

/// The same for a machine alone. Says whether any differed.
pub(crate) fn settle_machine(host: &Host, machine: &mut Machine) -> bool {
    let actual: BTreeMap<PciRef, Bdf> = machine
        .host_devices
        .iter()
        .filter_map(|device| match &device.kind {
            HostDeviceKind::Pci(pci) => Some(pci.function),
            _ => None,
        })
        .filter_map(|function| Some((function, host.address_of(function)?)))
        .collect();
    machine.settle(&actual)
}
