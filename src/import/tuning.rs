//! Threads: how many there are for disks, and where each runs.

use toml::{Table, Value};

use super::cpuset::{numbers, set};
use super::draft::Draft;
use super::reader::El;

/// More threads than that for a guest's disks are a slip.
const MOST: usize = 64;

/// The name of one of QEMU's I/O threads; libvirt's number it from 1 on.
pub(super) fn iothread(number: &str) -> String {
    format!("iothread{number}")
}

pub(super) fn tuning(root: El<'_>, out: &mut Draft) {
    let ids = root.child("iothreadids");
    let mut named = Vec::new();
    for one in ids.map(|ids| ids.children("iothread")).unwrap_or_default() {
        if let Some(id) = one.attr("id") {
            named.push((one, id.to_owned()));
        }
    }
    if let Some(threads) = root.child("iothreads") {
        let many: usize = threads.value(|text| text.parse().ok()).unwrap_or_default();
        if many > MOST {
            out.told(threads, format!("mvm imports the first {MOST} of them"));
        }
        for number in 1.. {
            if named.len() >= many.min(MOST) {
                break;
            }
            let number = number.to_string();
            if !named.iter().any(|(_, id)| *id == number) {
                named.push((threads, number));
            }
        }
    }
    for (from, number) in named {
        out.put(
            from,
            &format!("iothread.{}", iothread(&number)),
            "enabled",
            true,
        );
    }
    if let Some(default) = root.child("defaultiothread") {
        out.left(
            default,
            "mvm leaves the number of its main loop's threads to QEMU",
        );
    }
    if let Some(tune) = root.child("cputune") {
        cputune(tune, out);
    }
    if let Some(tune) = root.child("blkiotune") {
        out.left(
            tune,
            "mvm sets no weights of control groups: those of the guest's unit do it (`IOWeight=`)",
        );
    }
}

/// Where the threads run. Each pin by itself: one that is wrong takes no other away.
fn pins(tune: El<'_>, out: &mut Draft) {
    let count = out.get("cpu", "count").and_then(Value::as_integer);
    let mut vcpus = Table::new();
    let mut first = None;
    for pin in tune.children("vcpupin") {
        let (Some(vcpu), Some(set)) = (pin.number("vcpu"), pinned(pin, out)) else {
            continue;
        };
        if count.is_some_and(|count| i64::try_from(vcpu).is_ok_and(|vcpu| vcpu >= count)) {
            out.told(pin, "the guest starts without that processor");
        } else if vcpus.contains_key(&vcpu.to_string()) {
            out.told(
                pin,
                "that processor is pinned above, and the first pin counts",
            );
        } else {
            vcpus.insert(vcpu.to_string(), Value::String(set));
            first.get_or_insert(pin);
        }
    }
    if let Some(first) = first {
        out.put(first, "pin", "vcpu", vcpus);
    }
    if let Some(pin) = tune.child("emulatorpin") {
        if let Some(set) = pinned(pin, out) {
            out.put(pin, "pin", "emulator", set);
        }
    }
    let mut threads = Table::new();
    let mut first = None;
    for pin in tune.children("iothreadpin") {
        let (Some(thread), Some(set)) = (pin.attr("iothread"), pinned(pin, out)) else {
            continue;
        };
        let thread = iothread(thread);
        if !is_thread(&thread, out) {
            out.told(pin, "there is no such thread in the guest");
        } else if threads.contains_key(&thread) {
            out.told(pin, "that thread is pinned above, and the first pin counts");
        } else {
            threads.insert(thread, Value::String(set));
            first.get_or_insert(pin);
        }
    }
    if let Some(first) = first {
        out.put(first, "pin", "iothread", threads);
    }
}

/// The CPUs of a pin; what is no set is told.
fn pinned(pin: El<'_>, out: &mut Draft) -> Option<String> {
    let found = pin.read("cpuset", set);
    if found.is_none() {
        out.left(pin, "it names no CPUs");
    }
    found
}

fn is_thread(name: &str, out: &Draft) -> bool {
    out.has(&format!("iothread.{name}"), "enabled")
}

fn cputune(tune: El<'_>, out: &mut Draft) {
    pins(tune, out);
    scheduling(tune, out);
    for (name, what) in [
        ("shares", "`CPUWeight=`"),
        ("period", "`CPUQuotaPeriodSec=`"),
        ("quota", "`CPUQuota=`"),
        ("global_period", "`CPUQuotaPeriodSec=`"),
        ("global_quota", "`CPUQuota=`"),
        ("emulator_period", "`CPUQuotaPeriodSec=`"),
        ("emulator_quota", "`CPUQuota=`"),
        ("iothread_period", "`CPUQuotaPeriodSec=`"),
        ("iothread_quota", "`CPUQuota=`"),
    ] {
        if let Some(found) = tune.child(name) {
            out.left(
                found,
                format!("mvm makes no control groups: those of the guest's unit do it ({what})"),
            );
        }
    }
    for name in ["cachetune", "memorytune"] {
        for found in tune.children(name) {
            out.left(found, "mvm divides no caches and no bandwidth (resctrl)");
        }
    }
}

/// Real-time scheduling: mvm has one for all virtual processors, and one for each I/O thread.
fn scheduling(tune: El<'_>, out: &mut Draft) {
    let said = |element: El<'_>| {
        let policy = element.read("scheduler", |word| match word {
            "fifo" | "rr" => Some(word),
            _ => None,
        })?;
        let mut table = Table::new();
        table.insert("policy".to_owned(), Value::String(policy.to_owned()));
        if let Some(priority) = element.number("priority") {
            let priority = i64::try_from(priority).unwrap_or(i64::MAX);
            table.insert("priority".to_owned(), Value::Integer(priority));
        }
        Some(table)
    };
    let vcpus = tune.children("vcpusched");
    if let [one] = vcpus[..] {
        let some = one.read("vcpus", numbers);
        let count = out.get("cpu", "count").and_then(Value::as_integer);
        let all = count.and_then(|count| u32::try_from(count).ok());
        let others = all.is_some_and(|all| {
            some.is_some_and(|some| (0..all.min(4096)).any(|one| !some.cpus().contains(&one)))
        });
        if let Some(table) = said(one) {
            if others {
                let why = "mvm schedules all processors of a guest alike: the others as well";
                out.told(one, why);
            }
            out.say("scheduler", "For all processors of the guest.");
            out.put(one, "scheduler", "vcpu", table);
        }
    } else {
        for one in vcpus {
            out.left(one, "mvm schedules all processors of a guest alike");
        }
    }
    if let Some(one) = tune.child("emulatorsched") {
        if let Some(table) = said(one) {
            out.put(one, "scheduler", "emulator", table);
        }
    }
    let mut threads = Table::new();
    let mut first = None;
    for one in tune.children("iothreadsched") {
        let Some(set) = one.read("iothreads", numbers) else {
            continue;
        };
        let Some(table) = said(one) else { continue };
        for thread in set.cpus() {
            let thread = iothread(&thread.to_string());
            if is_thread(&thread, out) {
                threads.insert(thread, Value::Table(table.clone()));
                first.get_or_insert(one);
            } else {
                out.told(one, format!("there is no `{thread}` in the guest"));
            }
        }
    }
    if let Some(first) = first {
        out.put(first, "scheduler", "iothread", threads);
    }
}
