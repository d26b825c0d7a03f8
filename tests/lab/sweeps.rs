//! Sweeps of what mvm does for every guest, before any device of the host is involved. The guests' kernels do
//! nothing but switch off, or nothing at all.

use crate::host::Host;
use crate::sweep::{Sweep, Victim};

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
