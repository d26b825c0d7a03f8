//! Which NUMA nodes are near: those that this process, and with it its guests, is bound to.

use std::fs;
use std::path::Path;

use crate::host::sysfs::{Sysfs, parse_list};

const NODES: &str = "devices/system/node";

/// The nodes that hold the CPUs and the memory which this process may use (`taskset`, `numactl -N`, a
/// service's `AllowedCPUs=` and `AllowedMemoryNodes=`); empty where that is all of them.
pub(super) fn read(sysfs: &Sysfs, around: Option<&Path>) -> Vec<u32> {
    let nodes = nodes(sysfs);
    let status = around.map(|around| around.join("proc/self/status"));
    let status = status.and_then(|path| fs::read_to_string(path).ok());
    let status = status.unwrap_or_default();
    let list = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(parse_list)
    };
    let memory = list("Mems_allowed_list:");
    let cpus = list("Cpus_allowed_list:");
    let near = nodes.iter().filter(|(node, own)| {
        let has = |cpus: &Vec<u32>| own.is_empty() || own.iter().any(|cpu| cpus.contains(cpu));
        memory.as_ref().is_none_or(|memory| memory.contains(node)) && cpus.as_ref().is_none_or(has)
    });
    let near: Vec<u32> = near.map(|(node, _)| *node).collect();
    if near.len() == nodes.len() {
        return Vec::new();
    }
    near
}

/// The nodes with their CPUs.
fn nodes(sysfs: &Sysfs) -> Vec<(u32, Vec<u32>)> {
    let names = sysfs.list(NODES).unwrap_or_default();
    let node = |name: String| {
        let number = name.strip_prefix("node")?.parse().ok()?;
        let cpus = sysfs.read(format!("{NODES}/{name}/cpulist")).ok()?;
        Some((number, parse_list(&cpus)?))
    };
    names.into_iter().filter_map(node).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use crate::host::DeviceFacts;
    use crate::host::testing::{put, roots};
    use crate::hosts::Host;

    #[test]
    fn a_process_that_is_bound_to_a_node_has_devices_near_and_far() {
        let host = Host::new("server-nics");
        let near = |status: &str| {
            put(host.root(), "proc/self/status", status);
            let facts = DeviceFacts::read(&roots(host.root()));
            let far = ["3b:00.0", "d8:00.0"]
                .map(|bdf| facts.is_far(facts.function(bdf.parse().unwrap()).unwrap()));
            (facts.near, far)
        };
        let anywhere = (Vec::new(), [false, false]);
        assert_eq!(near("Name:\tmvm\n"), anywhere);
        let all = "Cpus_allowed_list:\t0-63\nMems_allowed_list:\t0-1\n";
        assert_eq!(near(all), anywhere);
        assert_eq!(near("Cpus_allowed_list:\t0-31\n"), anywhere);
        let second = (vec![1], [true, false]);
        assert_eq!(near("Cpus_allowed_list:\t16-31,48-63\n"), second);
        assert_eq!(
            near("Cpus_allowed_list:\t17\nMems_allowed_list:\t0-1\n"),
            second
        );
        assert_eq!(
            near("Cpus_allowed_list:\t0-63\nMems_allowed_list:\t1\n"),
            second
        );
    }
}
