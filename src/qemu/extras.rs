//! The devices that a guest has one of, and shares.

use super::args::{Args, Object, Options, path};
use super::command::FdSource;
use super::{Context, chardev};
use crate::machine::drivers::{self, RNG_SOURCE, Virtio};
use crate::machine::slots::Single;
use crate::machine::{BoardKind, Iommu, Lifecycle, Machine, Share, VirtioOptions};
use crate::profile::schema::{OnCrash, OnPoweroff, OnReboot};
use crate::sidecar::Sidecar;

/// virtiofsd sees the guest's memory itself, and takes no translation by an IOMMU.
const PAST_IOMMU: VirtioOptions = VirtioOptions {
    iommu: Some(false),
    ats: None,
    packed: None,
};

/// What other devices depend on: the IOMMU, the ports of PCI Express.
pub(super) fn first(args: &mut Args, machine: &Machine, context: Context) {
    if machine.board.virtio_iommu {
        let driver = drivers::virtio(Virtio::Iommu, context.board.bus());
        let place = context.slots.single(Single::Iommu);
        args.device(Object::device(driver, "mvm-iommu").at(place));
    }
    if let Some(Iommu::Intel(intel)) = &machine.board.iommu {
        let flag = |on: bool| on.then_some(true);
        let remap = intel.interrupt_remapping;
        args.device(
            Object::device(drivers::INTEL_IOMMU, "mvm-iommu")
                .set_some("caching-mode", flag(intel.caching_mode))
                .set_some("device-iotlb", flag(intel.device_iotlb))
                .set_some("aw-bits", intel.aw_bits)
                .set_some("intremap", remap.map(|on| if on { "on" } else { "off" })),
        );
    }
    for port in context.slots.root_ports() {
        args.device(
            Object::device(drivers::ROOT_PORT, port.id())
                .set("bus", context.slots.root())
                .set("addr", port.addr())
                .set("chassis", u32::from(port.number) + 1)
                .set("slot", u32::from(port.number) + 1)
                // Nothing virtual behind them wants ports of the x86's small I/O space, but what the host has
                // may: with 0 the port lets none through.
                .set_some("io-reserve", (!port.is_of_host()).then_some(0))
                .set_some("multifunction", port.is_first_of_slot().then_some(true)),
        );
    }
}

pub(super) fn add(args: &mut Args, machine: &Machine, context: Context) {
    for (index, share) in machine.shares.iter().enumerate() {
        if let Some(virtiofs) = &share.virtiofs {
            let chardev = format!("{}-socket", share.id);
            let socket = Sidecar::socket_in(&machine.run_dir, &share.sidecar());
            chardev::beside(args, &chardev, socket);
            args.device(
                context
                    .virtio_as(Virtio::Virtiofs, share.id.as_str(), PAST_IOMMU)
                    .at(context.slots.share(index))
                    .set("chardev", chardev)
                    .set("tag", share.tag.as_str())
                    .set_some("queue-size", virtiofs.queue_size),
            );
            continue;
        }
        let fsdev = format!("fs-{}", share.id);
        args.options("-fsdev", folder(share, &fsdev));
        args.device(
            context
                .virtio(Virtio::Share, share.id.as_str())
                .at(context.slots.share(index))
                .set("fsdev", fsdev)
                .set("mount_tag", share.tag.as_str()),
        );
    }
    if let Some(source) = &machine.rng {
        let object = Object::new("qom-type", RNG_SOURCE)
            .set("id", "mvm-rng-source")
            .set("filename", path(source));
        args.json("-object", object);
        let rng = context.virtio(Virtio::Rng, "mvm-rng");
        let rng = rng.at(context.slots.single(Single::Rng));
        args.device(rng.set("rng", "mvm-rng-source"));
    }
    if machine.balloon {
        let mut balloon = context.virtio(Virtio::Balloon, "mvm-balloon");
        let does = machine.balloon_does;
        for (on, property) in [
            (does.free_page_reporting, "free-page-reporting"),
            (does.deflate_on_oom, "deflate-on-oom"),
        ] {
            if on {
                balloon = balloon.set(property, true);
            }
        }
        args.device(balloon.at(context.slots.single(Single::Balloon)));
    }
    if let Some(watchdog) = &machine.watchdog {
        let device = Object::device(drivers::watchdog(watchdog.model), "mvm-watchdog");
        args.device(device.at(context.slots.single(Single::Watchdog)));
        let action = Options::with("watchdog", watchdog.action.as_str());
        args.options("-action", action);
    }
    if machine.panic {
        let device = Object::device(drivers::panic(machine.board.kind), "mvm-panic");
        args.device(match machine.board.kind {
            BoardKind::Virt => device.at(context.slots.single(Single::Panic)),
            BoardKind::Q35 | BoardKind::Pc | BoardKind::Microvm => device,
        });
    }
    if let Some(actions) = actions(&machine.lifecycle) {
        args.options("-action", actions);
    }
    if let Some(cid) = machine.vsock {
        let vsock = context.virtio(Virtio::Vsock, "mvm-vsock");
        let vsock = vsock
            .at(context.slots.single(Single::Vsock))
            .set("guest-cid", cid);
        let real = vsock.clone().set("vhostfd", "{fd:vsock}");
        args.json_fd("-device", real, vsock);
        args.fd("vsock", FdSource::Device("/dev/vhost-vsock".into()));
    }
}

/// What QEMU does at the guest's ends, where that is not what it does by itself. A new start is the
/// supervisor's: for QEMU that is an end.
fn actions(lifecycle: &Lifecycle) -> Option<Options> {
    let reboot = match lifecycle.on_reboot {
        OnReboot::Reset => None,
        OnReboot::Restart | OnReboot::Stop => Some(("reboot", "shutdown")),
    };
    let poweroff = match lifecycle.on_poweroff {
        OnPoweroff::Stop | OnPoweroff::Restart => None,
        OnPoweroff::Preserve => Some(("shutdown", "pause")),
    };
    let crash = match lifecycle.on_crash {
        OnCrash::Stop | OnCrash::Restart => None,
        OnCrash::Preserve => Some(("panic", "pause")),
    };
    let mut actions = [reboot, poweroff, crash].into_iter().flatten();
    let (key, value) = actions.next()?;
    Some(
        actions.fold(Options::with(key, value), |all, (key, value)| {
            all.set(key, value)
        }),
    )
}

fn folder(share: &Share, id: &str) -> Options {
    let options = Options::new("local")
        .set("id", id)
        .set("path", path(&share.path))
        .set("security_model", share.security_model)
        // One share can hold several file systems of the host, whose inode numbers clash.
        .set("multidevs", "remap");
    let modes = [("fmode", share.fmode), ("dmode", share.dmode)];
    let modes = modes
        .into_iter()
        .filter_map(|(key, mode)| Some((key, mode?)));
    let options = modes.fold(options, |options, (key, mode)| {
        options.set(key, format!("{mode:04o}"))
    });
    if share.read_only {
        options.set("readonly", "on")
    } else {
        options
    }
}
