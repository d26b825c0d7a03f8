//! Threads: how many there are for disks, and where each runs.

use toml::{Table, Value};

use super::draft::Draft;
use super::reader::El;

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
        let many: usize = threads.text().parse().unwrap_or_default();
        for number in 1.. {
            if named.len() >= many.min(64) {
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

fn cputune(tune: El<'_>, out: &mut Draft) {
    let mut vcpus = Table::new();
    let mut first = None;
    for pin in tune.children("vcpupin") {
        if let (Some(vcpu), Some(set)) = (pin.attr("vcpu"), pin.attr("cpuset")) {
            vcpus.insert(vcpu.to_owned(), Value::String(set.to_owned()));
            first.get_or_insert(pin);
        }
    }
    if let Some(first) = first {
        out.put(first, "pin", "vcpu", vcpus);
    }
    if let Some(pin) = tune.child("emulatorpin") {
        if let Some(set) = pin.attr("cpuset") {
            out.put(pin, "pin", "emulator", set);
        }
    }
    let mut threads = Table::new();
    let mut first = None;
    for pin in tune.children("iothreadpin") {
        if let (Some(thread), Some(set)) = (pin.attr("iothread"), pin.attr("cpuset")) {
            threads.insert(iothread(thread), Value::String(set.to_owned()));
            first.get_or_insert(pin);
        }
    }
    if let Some(first) = first {
        out.put(first, "pin", "iothread", threads);
    }
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
        one.attr("vcpus");
        if let Some(table) = said(one) {
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
        let Some(set) = one.attr("iothreads") else {
            continue;
        };
        if let Some(table) = said(one) {
            for thread in numbers(set) {
                threads.insert(iothread(&thread.to_string()), Value::Table(table.clone()));
            }
            first.get_or_insert(one);
        }
    }
    if let Some(first) = first {
        out.put(first, "scheduler", "iothread", threads);
    }
}

/// The numbers of a list as in `1-3,5`.
fn numbers(set: &str) -> Vec<u32> {
    let spans = set.split(',').filter_map(|span| {
        let (first, last) = span
            .trim()
            .split_once('-')
            .unwrap_or((span.trim(), span.trim()));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        // More than a host has threads is a slip that must not fill the memory.
        (last < 4096).then_some(first..=last)
    });
    spans.flatten().collect()
}
