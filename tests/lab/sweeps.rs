//! Sweeps of what mvm does for every guest, and of taking devices of the host and giving them back. The guests'
//! kernels do nothing but switch off, or nothing at all.

use crate::devices::{NIC1, NVME};
use crate::host::{Host, SMALL};
use crate::sweep::{Half, Sweep, Victim};

/// A guest with a tap, a throw-away overlay and all the sockets.
const GUEST: &str = "linux --name swept --set boot.initrd= --cpus 1 --memory 64M \
     --set 'network.lan={ tap = { name = \"tap-swept\", address = \"10.9.0.1/30\" } }' \
     --set 'disk.root={ file = { path = \"/images/x86_64/disk.qcow2\" }, ephemeral = true }'";

/// Adopts what lives, ends it, and cleans up.
const RECOVER: &str =
    "mvm recover && if [ -e /run/mvm/swept ]; then mvm kill swept; mvm recover; fi";

/// As one would do by hand where mvm failed to.
const RESET: &str = "killall -q -KILL mvm qemu-system-x86_64; sleep 1; \
     rm -rf /run/mvm/swept; ip link del tap-swept 2>/dev/null; true";

#[test]
fn a_sweep_of_a_guests_start_and_end_leaves_nothing() {
    let host = Host::x86().boot();
    let run = format!("mvm run {GUEST} --no-console --kernel /usr/share/lab/off");
    let alive = Sweep::of(&run, RECOVER).reset(RESET);
    let points = host.sweep(&alive);
    assert!(points > 50, "{points}");
    host.sweep(&alive.with_qemu().victim(Victim::All));
}

#[test]
fn a_sweep_of_recovery_leaves_nothing() {
    let host = Host::x86().boot();
    // The guest's QEMU and supervisor are killed in its midst; then recovery is killed at each of its points.
    let prepare = format!(
        "mvm start {GUEST} --kernel /usr/share/lab/idle && \
         kill -KILL $(pidof mvm qemu-system-x86_64)"
    );
    let points = host.sweep(
        &Sweep::of("mvm recover", RECOVER)
            .prepare(&prepare)
            .reset(RESET),
    );
    assert!(points > 5, "{points}");
}

/// A guest with a NIC that has a driver, a VF that must be made first, and an mdev.
const WITH_DEVICES: &str = "mvm run linux --name swept --no-console --kernel /usr/share/lab/off \
     --set boot.initrd= --cpus 1 --memory 64M --set network.lan.none={} \
     --pci 04:00.0 --pci vf:1@01:00.0 --mdev mtty-1";

/// As one would do by hand where mvm failed to give devices back.
fn reset_devices() -> String {
    format!(
        "{RESET}; rm -rf /run/mvm-host/leases/* /run/mvm-host/shared/*; \
         for m in /sys/bus/mdev/devices/*; do [ ! -e $m ] || echo 1 >$m/remove; done; \
         cd /sys/bus/pci/devices; echo 0 >{NVME}/sriov_numvfs; echo 1 >{NVME}/sriov_drivers_autoprobe; \
         for d in {NIC1} {NVME}; do \
           echo >$d/driver_override; \
           case $(readlink $d/driver) in *vfio-pci) echo $d >$d/driver/unbind ;; esac; \
           echo $d >/sys/bus/pci/drivers_probe; \
         done; true"
    )
}

/// Before and after each write to the kernel, in a few minutes; the others take each point.
#[test]
fn a_short_sweep_of_taking_devices_leaves_nothing() {
    let host = Host::x86().modules("mtty").boot();
    let sweep = Sweep::of(WITH_DEVICES, "mvm recover").reset(&reset_devices());
    let points = host.sweep(&sweep.only("write /sys/").with_qemu());
    assert!(points > 20, "{points}");
}

/// Each point takes some seconds: two hosts share them.
#[track_caller]
fn take_devices(half: Half, sweep: impl FnOnce(Sweep) -> Sweep) {
    let host = Host::x86().modules("mtty").boot();
    let all = Sweep::of(WITH_DEVICES, RECOVER).reset(&reset_devices());
    let points = host.sweep(&sweep(all.half(half)));
    assert!(points > 30, "{points}");
}

#[test]
fn a_sweep_of_taking_devices_with_qemu_alive_leaves_nothing_at_odd_points() {
    take_devices(Half::Odd, |sweep| sweep);
}

#[test]
fn a_sweep_of_taking_devices_with_qemu_alive_leaves_nothing_at_even_points() {
    take_devices(Half::Even, |sweep| sweep);
}

#[test]
fn a_sweep_of_taking_devices_with_qemu_killed_leaves_nothing_at_odd_points() {
    take_devices(Half::Odd, Sweep::with_qemu_once_started);
}

#[test]
fn a_sweep_of_taking_devices_with_qemu_killed_leaves_nothing_at_even_points() {
    take_devices(Half::Even, Sweep::with_qemu_once_started);
}

/// The driver is slow to let go: a request to its disk is on its way, for 8 s on average. Whoever takes the
/// device is killed when the driver is asked, and right after it has answered: the supervisor alone, while its
/// helper waits in the kernel; the helper alone; and all at once.
#[test]
fn a_sweep_of_a_slow_unbind_leaves_nothing() {
    let host = Host::x86().boot();
    host.slow_nvme(16 << 10);
    let run = "mvm run linux --name swept --no-console --kernel /usr/share/lab/off \
         --set boot.initrd= --cpus 1 --memory 64M --set network.lan.none={} --pci 01:00.0";
    let sweep = Sweep::of(run, RECOVER)
        .prepare("dd if=/dev/nvme0n1 of=/dev/null bs=256k iflag=direct >/dev/null 2>&1 & sleep 1")
        .reset(&reset_devices())
        .only("/unbind ");
    for victim in [Victim::Main, Victim::Caller, Victim::All] {
        let points = host.sweep(&sweep.clone().victim(victim));
        assert!(points >= 2, "{points}");
    }
}

/// Another guest has the second of the VFs all the while, and keeps it.
#[test]
fn a_sweep_beside_a_guest_with_a_sibling_leaves_it_alone() {
    let host = Host::x86().boot();
    let before = host.snapshot();
    host.run(&format!(
        "mvm start {SMALL} --name sibling --pci vf:2@01:00.0"
    ));
    let pid = host.run("pidof qemu-system-x86_64");
    let run = "mvm run linux --name swept --no-console --kernel /usr/share/lab/off \
         --set boot.initrd= --cpus 1 --memory 64M --set network.lan.none={} --pci vf:1@01:00.0";
    let alive = Sweep::of(run, RECOVER);
    let points = host.sweep(&alive);
    assert!(points > 60, "{points}");
    let killed = alive.with_qemu_once_started().spare("sibling");
    let points = host.sweep(&killed);
    assert!(points > 20, "{points}");
    // The same QEMU.
    assert_eq!(host.run("pidof qemu-system-x86_64"), pid);
    host.run("mvm kill sibling");
    host.settles_to(&before);
}
