//! The switches of the board: `-machine`, `-accel`, `-m`, `-sandbox`.

use super::args::{Args, Options};
use crate::machine::{AccelKind, BoardKind, Firmware, Iommu, Machine};
use crate::profile::schema::Irqchip;

pub(super) fn add(args: &mut Args, machine: &Machine) {
    let name = Options::with("guest", machine.name.as_str()).set("debug-threads", "on");
    args.options("-name", name);
    args.raw("-uuid", machine.uuid.to_string());
    args.flag("-nodefaults");
    args.flag("-no-user-config");
    super::desktop::window(args, machine);
    if machine.qemu.sandbox {
        let sandbox = Options::new("on")
            .set("obsolete", "deny")
            .set("elevateprivileges", "deny")
            .set("spawn", "deny")
            .set("resourcecontrol", "deny");
        args.options("-sandbox", sandbox);
    }
    args.options("-machine", board(machine));
    sleep(args, machine);
    args.raw(
        "-accel",
        match machine.accel.chosen {
            AccelKind::Kvm => "kvm",
            AccelKind::Tcg => "tcg",
        },
    );
    super::cpu::add(args, machine);
    super::memory::add(args, machine);
}

fn board(machine: &Machine) -> Options {
    let board = &machine.board;
    let mut options = Options::new(&board.machine_type);
    match board.kind {
        BoardKind::Q35 | BoardKind::Pc => {
            // Nothing of VMware's is here that would answer at that port, unless it is asked for.
            options = options.set("vmport", switch(board.vmport));
            if let Some(hpet) = machine.clock.hpet {
                options = options.set("hpet", switch(hpet));
            }
        }
        // The clock, and the second I/O APIC, which makes room for 24 devices instead of 8.
        BoardKind::Microvm => options = options.set("rtc", "on").set("ioapic2", "on"),
        BoardKind::Virt => {}
    }
    if let Some(gic) = board.gic {
        options = options.set("gic-version", gic);
    }
    if let Some(irqchip) = board.irqchip {
        let word = match irqchip {
            Irqchip::Kernel => "on",
            Irqchip::Split => "split",
            Irqchip::Off => "off",
        };
        options = options.set("kernel-irqchip", word);
    }
    if let Firmware::Flash { vars, smm, .. } = &machine.firmware {
        options = options.set("pflash0", super::boot::CODE_NODE);
        if vars.is_some() {
            options = options.set("pflash1", super::boot::VARS_NODE);
        }
        if *smm {
            options = options.set("smm", "on");
        }
    }
    if super::memory::is_named(machine) {
        options = options.set("memory-backend", super::memory::ALL);
    }
    if machine.ram.no_merge {
        options = options.set("mem-merge", "off");
    }
    if board.iommu == Some(Iommu::Smmuv3) {
        options = options.set("iommu", "smmuv3");
    }
    // A guest's memory in a core file helps few and fills the disk.
    let dump = if machine.ram.dump { "on" } else { "off" };
    options.set("dump-guest-core", dump)
}

const fn switch(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// Takes away the sleep that the guest is not to have; the boards offer both by themselves.
fn sleep(args: &mut Args, machine: &Machine) {
    let bridge = match machine.board.kind {
        BoardKind::Q35 => "ICH9-LPC",
        BoardKind::Pc => "PIIX4_PM",
        BoardKind::Microvm | BoardKind::Virt => return,
    };
    let power = &machine.power;
    for (on, property) in [(power.s3, "disable_s3"), (power.s4, "disable_s4")] {
        if !on {
            let off = Options::with("driver", bridge)
                .set("property", property)
                .set("value", "1");
            args.options("-global", off);
        }
    }
}
