//! `-m`, `-object memory-backend-…`, `-numa`, `-overcommit`.

use serde_json::Value;

use super::args::{Args, Object, Options, path};
use crate::machine::Machine;
use crate::machine::memory::{HostNodes, NumaNode, RamBackend, RamKind};
use crate::units::Size;

/// The backend of all memory, where the guest has no nodes of its own.
pub(super) const ALL: &str = "mvm-memory";

/// Whether `-machine` names the backend.
pub(super) fn is_named(machine: &Machine) -> bool {
    machine.ram.backend.is_some() && machine.ram.numa.is_empty()
}

pub(super) fn add(args: &mut Args, machine: &Machine) {
    let mib = machine.memory.as_bytes() >> 20;
    args.options("-m", Options::with("size", &format!("{mib}M")));
    let ram = &machine.ram;
    if ram.locked {
        args.options("-overcommit", Options::with("mem-lock", "on"));
    }
    let Some(backend) = &ram.backend else {
        return;
    };
    if ram.numa.is_empty() {
        args.json(
            "-object",
            object(machine, backend, ALL, machine.memory, &ram.place),
        );
        return;
    }
    for node in &ram.numa {
        let id = id(node);
        args.json(
            "-object",
            object(machine, backend, &id, node.memory, &node.place),
        );
    }
    for (number, node) in (0..).zip(&ram.numa) {
        args.options("-numa", numa(number, node));
    }
    for (number, node) in (0_u32..).zip(&ram.numa) {
        for (to, distance) in &node.distances {
            let dist = Options::new("dist")
                .set("src", number)
                .set("dst", to)
                .set("val", distance);
            args.options("-numa", dist);
        }
    }
}

fn id(node: &NumaNode) -> String {
    format!("mvm-numa-{}", node.id)
}

fn numa(number: u32, node: &NumaNode) -> Options {
    let mut options = Options::new("node").set("nodeid", number);
    for (first, last) in &node.cpus {
        options = options.set("cpus", format!("{first}-{last}"));
    }
    options.set("memdev", id(node))
}

fn object(
    machine: &Machine,
    backend: &RamBackend,
    id: &str,
    size: Size,
    place: &HostNodes,
) -> Object {
    let mut object = Object::new("qom-type", backend.kind.object())
        .set("id", id)
        .set("size", size.as_bytes())
        .set("share", backend.share);
    if let RamKind::File {
        path: file,
        discard,
    } = &backend.kind
    {
        object = object.set("mem-path", path(file));
        if *discard {
            object = object.set("discard-data", true);
        }
    }
    if let Some(pages) = backend.hugepages {
        object = object
            .set("hugetlb", true)
            .set("hugetlbsize", pages.as_bytes());
    }
    if backend.prealloc {
        object = object
            .set("prealloc", true)
            .set_some("prealloc-threads", machine.ram.prealloc_threads);
    }
    if let Some(policy) = place.policy {
        let nodes: Vec<Value> = place.nodes.iter().map(|node| (*node).into()).collect();
        object = object
            .set("host-nodes", nodes)
            .set("policy", policy.as_str());
    }
    object
}
