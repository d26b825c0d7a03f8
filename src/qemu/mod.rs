//! The machine as a QEMU command line: one module per family of switches. Pure.

mod args;
mod board;
mod boot;
mod chardev;
pub mod command;
mod cpu;
mod desktop;
mod disk;
mod extras;
mod host_devices;
pub mod hot;
#[cfg(test)]
mod live;
mod memory;
mod net;
mod overrides;
#[cfg(test)]
mod places_tests;
mod ports;
mod smbios;
mod storage;
pub(crate) use storage::shared_limiter;
mod tpm;

use args::{Args, Object};
use command::{Arg, CommandLine, FdSource};
pub use overrides::drivers as device_types;

use crate::machine::drivers::{self, Virtio};
use crate::machine::slots::Slots;
use crate::machine::{BoardKind, Bus, Machine, VirtioOptions};

/// What the families of switches have in common.
#[derive(Debug, Clone, Copy)]
struct Context {
    slots: Slots,
    board: BoardKind,
    /// Whether virtio devices do their DMA through an IOMMU.
    translated: bool,
}

impl Context {
    /// A virtio device on this board's bus.
    fn virtio(self, kind: Virtio, id: &str) -> Object {
        self.virtio_as(kind, id, VirtioOptions::default())
    }

    /// The same as the profile has it.
    fn virtio_as(self, kind: Virtio, id: &str, options: VirtioOptions) -> Object {
        let bus = self.board.bus();
        let device = Object::device(drivers::virtio(kind, bus), id);
        // The balloon names pages to the host and does no DMA: Linux refuses one that claims to.
        let translated = self.translated && kind != Virtio::Balloon;
        // Without it the device passes the IOMMU by; a legacy device cannot have it.
        let translated = options.iommu.unwrap_or(translated);
        device
            .set_some("iommu_platform", translated.then_some(true))
            .set_some(
                "disable-legacy",
                (translated && bus != Bus::Mmio).then_some("on"),
            )
            .set_some("ats", options.ats)
            .set_some("packed", options.packed)
    }

    /// A virtio device of that type.
    fn virtio_named(self, driver: &str, id: &str) -> Object {
        let device = Object::device(driver, id);
        if !self.translated {
            return device;
        }
        let legacy = self.board.bus() != Bus::Mmio;
        device
            .set("iommu_platform", true)
            .set_some("disable-legacy", legacy.then_some("on"))
    }
}

impl Context {
    fn of(machine: &Machine, slots: Slots) -> Self {
        Self {
            slots,
            board: machine.board.kind,
            translated: machine.board.translates(),
        }
    }
}

/// The command line that starts the machine.
pub fn command_line(machine: &Machine) -> CommandLine {
    let context = Context::of(machine, Slots::of(machine));
    let mut args = Args::default();
    args.fd("lock", FdSource::Lock(machine.run_dir.join("lock")));
    // The supervisor lets the guest run when it is connected to the consoles.
    args.args.push(Arg::Real("-S".to_owned()));
    board::add(&mut args, machine);
    boot::add(&mut args, machine);
    smbios::add(&mut args, machine);
    if context.board.bus() == Bus::Mmio {
        // virtio 1.0 rather than the draft before it.
        let modern = args::Options::with("driver", "virtio-mmio")
            .set("property", "force-legacy")
            .set("value", "false");
        args.options("-global", modern);
    }
    ports::monitors(&mut args, machine);
    extras::first(&mut args, machine, context);
    ports::add(&mut args, machine, context);
    disk::add(&mut args, machine, context);
    net::add(&mut args, machine, context);
    extras::add(&mut args, machine, context);
    tpm::add(&mut args, machine);
    desktop::add(&mut args, machine, context);
    host_devices::add(&mut args, machine, context);
    for pattern in &machine.trace {
        args.options("-trace", args::Options::with("enable", pattern));
    }
    for arg in &machine.qemu_args {
        args.flag(arg);
    }
    overrides::apply(&mut args.args, &machine.overrides);
    // What the profile says goes before what mvm finds out.
    let mut env = desktop::environment(machine);
    env.retain(|(name, _)| !machine.env.contains_key(name));
    let said = machine.env.iter();
    env.extend(said.map(|(name, value)| (name.clone(), value.clone())));
    CommandLine {
        program: machine.qemu.binary.clone(),
        args: args.args,
        env,
        fds: args.fds,
    }
}
