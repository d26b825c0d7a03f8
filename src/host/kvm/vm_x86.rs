//! The throw-away virtual machine on x86_64: one vCPU in long mode, counting down.

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_segment};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use super::vm::{CODE_AT, Error, Memory};

/// Where the guest's memory begins in its physical address space.
pub(super) const GUEST_BASE: u64 = 0;

/// `1: dec rcx; jnz 1b; hlt`
pub(super) const CODE: &[u8] = &[0x48, 0xff, 0xc9, 0x75, 0xfb, 0xf4];

const PML4: u64 = 0x9000;
const PDPT: u64 = 0xa000;
const PD: u64 = 0xb000;

const PRESENT_WRITABLE: u64 = 0b11;
const LARGE_PAGE: u64 = 1 << 7;

// Intel SDM volume 3, sections 2.2.1 and 2.5.
const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_NE: u64 = 1 << 5;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// Makes the VM. KVM on Intel CPUs wants a place for a task state segment.
pub(super) fn create(kvm: &Kvm) -> Result<VmFd, Error> {
    let vm = kvm.create_vm().map_err(Error::at("KVM_CREATE_VM"))?;
    vm.set_tss_address(0xfffb_d000)
        .map_err(Error::at("KVM_SET_TSS_ADDR"))?;
    Ok(vm)
}

/// Puts the vCPU into long mode: the first 2 MiB mapped one to one, flat segments, interrupts off.
pub(super) fn set_up(kvm: &Kvm, _vm: &VmFd, cpu: &VcpuFd, memory: &Memory) -> Result<(), Error> {
    memory.write_u64(PML4, PDPT | PRESENT_WRITABLE);
    memory.write_u64(PDPT, PD | PRESENT_WRITABLE);
    memory.write_u64(PD, LARGE_PAGE | PRESENT_WRITABLE);

    let cpuid = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(Error::at("KVM_GET_SUPPORTED_CPUID"))?;
    cpu.set_cpuid2(&cpuid)
        .map_err(Error::at("KVM_SET_CPUID2"))?;

    let mut sregs = cpu.get_sregs().map_err(Error::at("KVM_GET_SREGS"))?;
    let data = kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: 0x10,
        type_: 3,
        present: 1,
        dpl: 0,
        db: 1,
        s: 1,
        l: 0,
        g: 1,
        ..Default::default()
    };
    sregs.cs = kvm_segment {
        selector: 0x08,
        type_: 11,
        db: 0,
        l: 1,
        ..data
    };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.cr3 = PML4;
    sregs.cr4 = CR4_PAE;
    sregs.cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
    sregs.efer = EFER_LME | EFER_LMA;
    cpu.set_sregs(&sregs).map_err(Error::at("KVM_SET_SREGS"))
}

/// Sets the vCPU to the loop's start, with that many rounds to go.
pub(super) fn start(cpu: &VcpuFd, rounds: u64) -> Result<(), Error> {
    let mut regs = cpu.get_regs().map_err(Error::at("KVM_GET_REGS"))?;
    regs.rip = GUEST_BASE + CODE_AT;
    regs.rcx = rounds;
    // Bit 1 is always set; interrupts stay off.
    regs.rflags = 2;
    cpu.set_regs(&regs).map_err(Error::at("KVM_SET_REGS"))
}

/// How many rounds are left.
pub(super) fn left(cpu: &VcpuFd) -> Result<u64, Error> {
    Ok(cpu.get_regs().map_err(Error::at("KVM_GET_REGS"))?.rcx)
}

/// Whether this exit is the one that the loop ends with.
pub(super) fn is_end(exit: &VcpuExit<'_>) -> bool {
    matches!(exit, VcpuExit::Hlt)
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
            "dec {n}",
            "jnz 2b",
            n = inout(reg) rounds => _,
            options(nomem, nostack),
        );
    }
}

/// Nothing of its own on x86_64.
pub(super) fn abilities(_kvm: &Kvm, _vm: &VmFd, _found: &mut super::Abilities) {}
