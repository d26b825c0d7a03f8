//! The board, its processors, and where on the host they run.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::words::{AccelWord, Gic};
use crate::ids::{Arch, Id};
use crate::units::CpuList;

table! {
    /// `[machine]`
    MachineTable {
        /// The guest's architecture; the host's own by default.
        arch: Arch,
        /// QEMU's machine type: `q35`, `pc`, `microvm`, `virt`, or a versioned one such as `pc-q35-7.2`.
        /// By default `q35` on x86_64 and `virt` on aarch64.
        r#type: String,
        /// How the guest's code is run. By default `auto`: KVM where it is healthy, else TCG.
        accel: AccelWord,
        /// The version of the interrupt controller of `virt`; by default what the accelerator has.
        gic: Gic,
        /// VMware's port for a mouse without borders, on q35 and pc. By default the guest does not have it.
        vmport: bool,
        /// Where KVM's interrupt controllers are emulated. By default as QEMU has it for the board: in the kernel.
        irqchip: Irqchip,
    }
}

words! {
    /// `machine.irqchip`
    Irqchip {
        /// In the kernel (libvirt: `<ioapic driver="kvm"/>`).
        Kernel = "kernel",
        /// The local APICs in the kernel, the I/O APIC and the PIC in QEMU (libvirt: `driver="qemu"`); what
        /// interrupt remapping by an emulated IOMMU needs.
        Split = "split",
        /// In QEMU, which calls it deprecated.
        Off = "off",
    }
}

table! {
    /// `[cpu]`
    CpuTable {
        /// QEMU's name of the model, or `auto` (the default): `host` under KVM, `max` under TCG.
        model: String,
        /// How many the guest has. By default the product of the topology, else 1.
        count: u32,
        /// Sockets.
        sockets: u32,
        /// Dies a socket, on q35 and pc. By default 1.
        dies: u32,
        /// Clusters a socket, on virt. By default 1.
        clusters: u32,
        /// Cores a die or cluster.
        cores: u32,
        /// Threads a core.
        threads: u32,
        /// Features of the model switched on or off, by QEMU's names: `{ waitpkg = false }`. The guest is not
        /// started where one does not come out as it is said here.
        features: BTreeMap<String, bool>,
        /// What an x86 guest is told of the caches. By default what QEMU has for the model.
        cache: CpuCache,
        /// Whether the models `host` and `max` leave out what a guest could not be moved with. On by default.
        migratable: bool,
        /// Whether the guest has performance counters. By default as QEMU has it for the model.
        pmu: bool,
        /// The guest does not see that it runs under KVM (`kvm=off`), which some drivers of passed GPUs want.
        hide_hypervisor: bool,
        /// How many bits a physical address of the guest has at most. By default, with a device of the host
        /// and the model `host`, as many as the host's IOMMU can translate.
        phys_bits_limit: u32,
        /// The CPUs of the host that QEMU runs on, all of it that `[pin]` does not say more closely: a list such
        /// as `0-3`, or on a host with several kinds of core `big` for the fastest of them and `little` for the
        /// slowest. Under KVM a guest with the model `host` wants cores of one kind.
        host_cpus: String,
    }
}

words! {
    /// `cpu.cache`
    CpuCache {
        /// The host's own (`host-cache-info=on`); of the models `host` and `max` only.
        Passthrough = "passthrough",
        /// What QEMU has for the model, with a third level (`l3-cache=on`).
        Emulate = "emulate",
        /// The same without a third level.
        None = "none",
    }
}

table! {
    /// `[pin]`: the CPUs of the host that threads of QEMU run on, as lists such as `2` or `0-3,8`. What is
    /// named neither here nor in `cpu.host-cpus` runs where the host puts it.
    PinTable {
        /// By the processor's number in the guest: `{ "0" = "2", "1" = "3,7" }`.
        vcpu: BTreeMap<String, CpuList>,
        /// All of QEMU but its processors and I/O threads.
        emulator: CpuList,
        /// By the name of the I/O thread, as in `[iothread.NAME]`.
        iothread: BTreeMap<Id, CpuList>,
    }
}

table! {
    /// `[scheduler]`: how the host's kernel schedules threads of QEMU. Real time needs `CAP_SYS_NICE`, as root has
    /// it, or a limit of real-time priority (`ulimit -r`).
    SchedulerTable {
        /// The processors of the guest.
        vcpu: PolicyTable,
        /// All of QEMU but its processors and I/O threads.
        emulator: PolicyTable,
        /// The I/O threads.
        iothread: PolicyTable,
    }
}

table! {
    /// One kind of thread.
    PolicyTable {
        /// The policy.
        policy: SchedulerPolicy,
        /// The priority in real time, 1 to 99. By default 1.
        priority: u32,
    }
}

words! {
    /// `scheduler.*.policy`
    SchedulerPolicy {
        /// Real time, first in first out: runs until it waits or one of a higher priority comes.
        Fifo = "fifo",
        /// Real time, in turns with others of its priority.
        Rr = "rr",
        /// As other programs.
        Other = "other",
    }
}

table! {
    /// `[hyperv]`: what KVM offers a Windows guest in the way of Hyper-V. Each is off unless it is switched on;
    /// other guests have no use for them, and under TCG there are none.
    HypervTable {
        /// `false` takes all of them away that lower layers gave.
        enabled: bool,
        /// No watchdog timeouts where the host is busy.
        relaxed: bool,
        /// Registers of the APIC that are quick to reach.
        vapic: bool,
        /// How often the guest tries for a spinlock before it tells the hypervisor; 4095 or more.
        spinlocks: u32,
        /// The processor's number; needed by the next few.
        vpindex: bool,
        /// The time that the processor ran.
        runtime: bool,
        /// The synthetic interrupt controller; needs `vpindex`.
        synic: bool,
        /// Its timers; needs `vpindex`, `synic` and `time`.
        stimer: bool,
        /// They interrupt directly; needs `stimer`.
        stimer_direct: bool,
        /// Resets by the hypervisor.
        reset: bool,
        /// What the guest sees as the hypervisor's vendor, 1 to 12 characters.
        vendor_id: String,
        /// The frequencies of TSC and APIC.
        frequencies: bool,
        /// The guest learns when the TSC changes, as by a move to another host; with `frequencies`.
        reenlightenment: bool,
        /// TLBs of other processors are flushed by the hypervisor; needs `vpindex`.
        tlbflush: bool,
        /// Interrupts between processors by the hypervisor; needs `vpindex`.
        ipi: bool,
        /// Hyper-V in the guest runs its own guests faster (Intel only); needs `vapic`.
        evmcs: bool,
        /// The hypervisor's clock (`hypervclock` of libvirt).
        time: bool,
    }
}
