//! The throw-away virtual machine on aarch64: one vCPU at EL1 with the MMU off, counting down.

use kvm_bindings::{
    KVM_ARM_VCPU_PSCI_0_2, KVM_CREATE_DEVICE_TEST, KVM_REG_ARM_CORE, KVM_REG_ARM64,
    KVM_REG_SIZE_U64, kvm_create_device, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V2,
    kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3, kvm_vcpu_init,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use super::vm::{CODE_AT, Error, Memory};

/// Where the guest's memory begins in its physical address space.
pub(super) const GUEST_BASE: u64 = 0x4000_0000;

/// An address with nothing behind it: a store to it comes back to us.
const MMIO: u64 = 0x1000_0000;

/// ```text
/// 0:  subs x0, x0, #1
/// 4:  b.ne 0
/// 8:  str  x0, [x1]     the end of a run: an exit to us
/// c:  mov  x0, x2       the next run goes on here: KVM steps over the store when it is entered again
/// 10: b    0
/// ```
pub(super) const CODE: &[u8] = &[
    0x00, 0x04, 0x00, 0xf1, //
    0xe1, 0xff, 0xff, 0x54, //
    0x20, 0x00, 0x00, 0xf9, //
    0xe0, 0x03, 0x02, 0xaa, //
    0xfc, 0xff, 0xff, 0x17,
];

/// The id of the n-th 64-bit word of `struct kvm_regs` (x0 to x30, sp, pc, pstate). KVM counts in
/// words of 32 bits.
const fn core_register(n: u64) -> u64 {
    KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE as u64 | (n * 2)
}
const X0: u64 = core_register(0);
const X1: u64 = core_register(1);
const X2: u64 = core_register(2);
const PC: u64 = core_register(32);

/// Makes the VM, with as many address bits as the host has: the default of 40 is refused by some.
pub(super) fn create(kvm: &Kvm) -> Result<VmFd, Error> {
    kvm.create_vm().map_err(Error::at("KVM_CREATE_VM"))
}

/// Initialises the vCPU. It starts at EL1 with interrupts masked.
pub(super) fn set_up(_kvm: &Kvm, vm: &VmFd, cpu: &VcpuFd, _memory: &Memory) -> Result<(), Error> {
    let mut init = kvm_vcpu_init::default();
    vm.get_preferred_target(&mut init)
        .map_err(Error::at("KVM_ARM_PREFERRED_TARGET"))?;
    init.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
    cpu.vcpu_init(&init)
        .map_err(Error::at("KVM_ARM_VCPU_INIT"))?;
    set(cpu, X1, MMIO)?;
    set(cpu, PC, GUEST_BASE + CODE_AT)
}

/// Gives the next run its number of rounds. `x2` is what a run that follows another one takes, `x0`
/// what the first one takes; a run that was interrupted goes on with the new number.
pub(super) fn start(cpu: &VcpuFd, rounds: u64) -> Result<(), Error> {
    set(cpu, X2, rounds)?;
    set(cpu, X0, rounds)
}

/// How many rounds are left.
pub(super) fn left(cpu: &VcpuFd) -> Result<u64, Error> {
    let mut value = [0; 8];
    cpu.get_one_reg(X0, &mut value)
        .map_err(Error::at("KVM_GET_ONE_REG"))?;
    Ok(u64::from_le_bytes(value))
}

fn set(cpu: &VcpuFd, register: u64, value: u64) -> Result<(), Error> {
    cpu.set_one_reg(register, &value.to_le_bytes())
        .map(drop)
        .map_err(Error::at("KVM_SET_ONE_REG"))
}

/// Whether this exit is the one that the loop ends with.
pub(super) fn is_end(exit: &VcpuExit<'_>) -> bool {
    matches!(exit, VcpuExit::MmioWrite(MMIO, _))
}

/// The same two instructions on the host's own CPU.
pub(super) fn native(rounds: u64) {
    if rounds == 0 {
        return;
    }
    // SAFETY: the loop touches its own register and the flags, nothing else.
    unsafe {
        std::arch::asm!(
            "2:",
            "subs {n}, {n}, #1",
            "b.ne 2b",
            n = inout(reg) rounds => _,
            options(nomem, nostack),
        );
    }
}

/// Address bits and interrupt controllers.
pub(super) fn abilities(kvm: &Kvm, vm: &VmFd, found: &mut super::Abilities) {
    found.ipa_bits = match kvm.get_host_ipa_limit() {
        // Kernels that cannot tell give every VM 40 bits.
        n if n <= 0 => Some(40),
        n => u32::try_from(n).ok(),
    };
    for (version, type_) in [
        (2, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V2),
        (3, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3),
    ] {
        let mut test = kvm_create_device {
            type_,
            fd: 0,
            flags: KVM_CREATE_DEVICE_TEST,
        };
        if let Ok(device) = vm.create_device(&mut test) {
            // A test makes no device: what we hold is a wrapper round descriptor 0, and dropping it
            // would close our standard input.
            std::mem::forget(device);
            found.gic_versions.push(version);
        }
    }
}
