//! The memory: how much, what it is made of, and the guest's NUMA cells.

use toml::{Table, Value};

use super::cpuset::set;
use super::draft::Draft;
use super::reader::El;
use super::units::{amount, attribute};
use crate::units::Size;

pub(super) fn memory(root: El<'_>, numa: Option<El<'_>>, out: &mut Draft) {
    let size = root.child("memory");
    let all = size.and_then(amount);
    if let (Some(element), None) = (size, all) {
        out.left(
            element,
            "it is no amount of memory that mvm could give: the guest has what mvm gives of itself (1G)",
        );
    }
    if let (Some(element), Some(size)) = (size, all) {
        // QEMU's memory is whole MiB; libvirt rounds up as well.
        let mib = size.as_bytes().div_ceil(1 << 20);
        out.put(element, "memory", "size", Size::mib(mib).to_string());
        if let Some(on) = element.flag("dumpCore") {
            out.put(element, "memory", "dump", on);
        }
    }
    if let Some(current) = root.child("currentMemory") {
        match amount(current) {
            Some(now) if all.is_none_or(|all| now < all) => {
                out.put(current, "memory", "current", now.to_string());
            }
            Some(_) => out.fine(current, "all of it, as mvm does of itself"),
            None => {}
        }
    }
    if let Some(most) = root.child("maxMemory") {
        out.left(most, "mvm adds no memory to a running guest beyond its size; `mvm memory` moves it below that");
    }
    if let Some(backing) = root.child("memoryBacking") {
        self::backing(backing, out);
    }
    if let Some(tune) = root.child("memtune") {
        out.left(
            tune,
            "mvm sets no limits of control groups: those of the guest's unit do it (`MemoryMax=`)",
        );
    }
    if let Some(numa) = numa {
        cells(numa, out);
    }
    if let Some(tune) = root.child("numatune") {
        numatune(tune, out);
    }
}

fn backing(backing: El<'_>, out: &mut Draft) {
    if let Some(huge) = backing.child("hugepages") {
        let pages = huge.children("page");
        match pages[..] {
            [] => {
                out.say("memory", "The domain names no size; on x86_64 and aarch64 the host's own is mostly this.");
                out.put(huge, "memory", "hugepages", "2M");
            }
            [page] => {
                if let Some(size) = attribute(page, "size") {
                    page.attr("unit");
                    out.put(page, "memory", "hugepages", size.to_string());
                }
                out.left_attr(
                    page,
                    "nodeset",
                    "mvm's huge pages are those of the whole guest",
                );
            }
            _ => pages.iter().for_each(|page| {
                out.left(
                    *page,
                    "mvm's huge pages are of one size for the whole guest",
                );
            }),
        }
    }
    for (name, key, value) in [("nosharepages", "merge", false), ("locked", "locked", true)] {
        if let Some(found) = backing.child(name) {
            out.put(found, "memory", key, value);
        }
    }
    if let Some(source) = backing.child("source") {
        let kind = source.read("type", |kind| {
            matches!(kind, "anonymous" | "memfd" | "file").then_some(kind)
        });
        if let Some(kind) = kind {
            out.put(source, "memory", "backing", kind);
        }
        if kind == Some("file") {
            out.say(
                "memory",
                "libvirt's own folder for it, which libvirtd makes.",
            );
            out.put(source, "memory", "path", "/var/lib/libvirt/qemu/ram");
        }
    }
    if let Some(found) = backing.child("discard") {
        if out.has("memory", "path") {
            out.put(found, "memory", "discard", true);
        } else {
            out.fine(found, "only memory in a file outlives QEMU");
        }
    }
    if let Some(access) = backing.child("access") {
        let shared = access.read("mode", |mode| match mode {
            "shared" => Some(true),
            "private" => Some(false),
            _ => None,
        });
        if let Some(shared) = shared {
            out.put(access, "memory", "share", shared);
        }
    }
    if let Some(allocation) = backing.child("allocation") {
        let at_once = allocation.read("mode", |mode| match mode {
            "immediate" => Some(true),
            "ondemand" => Some(false),
            _ => None,
        });
        if let Some(at_once) = at_once {
            out.put(allocation, "memory", "prealloc", at_once);
        }
        out.left_attr(
            allocation,
            "threads",
            "mvm leaves the number of threads to QEMU",
        );
    }
}

/// The table of a cell: names sort as numbers do.
fn cell(id: u64) -> String {
    format!("cell{id:02}")
}

fn cells(numa: El<'_>, out: &mut Draft) {
    for (at, one) in numa.children("cell").into_iter().enumerate() {
        let id = one.number("id").unwrap_or(at as u64);
        let table = format!("numa.{}", cell(id));
        if let Some(cpus) = one.read("cpus", set) {
            out.put(one, &table, "cpus", cpus);
        }
        if let Some(size) = attribute(one, "memory") {
            one.attr("unit");
            out.put(one, &table, "memory", size.to_string());
        }
        if let Some(distances) = one.child("distances") {
            let mut all = Table::new();
            for sibling in distances.children("sibling") {
                let (Some(to), Some(far)) = (sibling.number("id"), sibling.number("value")) else {
                    continue;
                };
                if to != id {
                    let far = i64::try_from(far).unwrap_or(i64::MAX);
                    all.insert(cell(to), Value::Integer(far));
                }
            }
            out.put(distances, &table, "distance", all);
        }
        if one.is("memAccess", "shared") && !out.has("memory", "share") {
            out.put(one, "memory", "share", true);
        }
        // Only memory in a file outlives QEMU.
        if one.is("discard", "yes") && out.has("memory", "path") && !out.has("memory", "discard") {
            out.put(one, "memory", "discard", true);
        }
    }
    for other in numa.all().filter(|one| !one.is_seen()).collect::<Vec<_>>() {
        out.left(
            other.enter(),
            "mvm tells no latencies and bandwidths between nodes",
        );
    }
}

fn numatune(tune: El<'_>, out: &mut Draft) {
    let policy = |element: El<'_>| {
        element.read("mode", |mode| match mode {
            "strict" => Some("bind"),
            "preferred" => Some("preferred"),
            "interleave" => Some("interleave"),
            _ => None,
        })
    };
    let place = |element: El<'_>, table: &str, out: &mut Draft| {
        if let Some(nodes) = element.read("nodeset", set) {
            out.put(element, table, "host-nodes", nodes);
        }
        match policy(element) {
            Some("bind") | None => {}
            Some(policy) => out.put(element, table, "policy", policy),
        }
    };
    if let Some(memory) = tune.child("memory") {
        let _libvirts_word_for_by_hand = memory.is("placement", "static");
        place(memory, "memory", out);
    }
    for node in tune.children("memnode") {
        if let Some(id) = node.number("cellid") {
            place(node, &format!("numa.{}", cell(id)), out);
        }
    }
}
