//! The processor's switches: `-cpu`, `-smp`; and the clock's: `-rtc`, and what `-global` says of timers.

use super::args::{Args, Options};
use crate::machine::Machine;
use crate::profile::schema::RtcPolicy;

pub(super) fn add(args: &mut Args, machine: &Machine) {
    let cpu = &machine.cpu;
    // The model's own features follow it after commas: here they are meant.
    args.raw("-cpu", cpu.model.clone());
    let mut smp = Options::with("cpus", &cpu.count.to_string()).set("sockets", cpu.sockets);
    // QEMU refuses them where its board has none of them, and has one of each where it has.
    for (key, number) in [("dies", cpu.dies), ("clusters", cpu.clusters)] {
        if number > 1 {
            smp = smp.set(key, number);
        }
    }
    let smp = smp.set("cores", cpu.cores).set("threads", cpu.threads);
    args.options("-smp", smp);
    clock(args, machine);
}

fn clock(args: &mut Args, machine: &Machine) {
    let clock = &machine.clock;
    let drift = clock.rtc.map(|policy| match policy {
        RtcPolicy::Catchup => "slew",
        RtcPolicy::Delay => "none",
    });
    let words = [("base", clock.base.as_deref()), ("driftfix", drift)];
    let mut words = words
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)));
    if let Some((key, value)) = words.next() {
        let rtc = words.fold(Options::with(key, value), |rtc, (key, value)| {
            rtc.set(key, value)
        });
        args.options("-rtc", rtc);
    }
    if let Some(policy) = clock.pit {
        let pit = Options::with("driver", "kvm-pit")
            .set("property", "lost_tick_policy")
            .set("value", policy);
        args.options("-global", pit);
    }
}
