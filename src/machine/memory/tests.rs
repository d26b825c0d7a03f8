#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
use super::{HostNodes, NumaNode, RamKind};
use crate::error::{ExitCode, Report};
use crate::host::HostFacts;
use crate::host::memory::HugepagePool;
use crate::machine::testing::{facts, machine_on};
use crate::machine::{Machine, ResolveError};
use crate::units::Size;

fn host(free: u64, uid: u32) -> HostFacts {
    let mut facts = facts();
    let pool = |size: u64, free| HugepagePool {
        size,
        total: free,
        free,
    };
    facts.memory.hugepages = vec![pool(2 << 20, free), pool(1 << 30, 0)];
    facts.users.uid = uid;
    facts
}

fn made(text: &str) -> Result<Machine, ResolveError> {
    machine_on(text, &host(0, 0))
}

fn told(text: &str) -> String {
    let report: Report = made(text).unwrap_err().into();
    report.chain.join(": ")
}

#[test]
fn nodes_of_one_cluster_are_told_on_arm() {
    let notes = |arch: &str, cpu: &str| {
        let nodes = "[numa.a]\nmemory = '512M'\n[numa.b]\nmemory = '512M'";
        let text = format!(
            "machine.arch = '{arch}'\n[cpu]\ncount = 4\n{cpu}\n[memory]\nsize = '1G'\n{nodes}"
        );
        let notes = made(&text).unwrap().notes;
        let note = notes.into_iter().find(|note| note.contains("cluster"));
        note.unwrap_or_default()
    };
    let note = notes("aarch64", "");
    assert!(
        note.starts_with("the NUMA nodes `a` and `b` have processors of one cluster"),
        "{note}"
    );
    assert_eq!(notes("aarch64", "sockets = 2"), "");
    assert_eq!(notes("aarch64", "clusters = 2"), "");
    assert_eq!(notes("x86_64", ""), "");
}

#[test]
fn plain_memory_is_qemus_own() {
    assert_eq!(made("").unwrap().ram.backend, None);
    let ram = made("memory.merge = false\nmemory.locked = true\nmemory.dump = true")
        .unwrap()
        .ram;
    assert!(ram.backend.is_none() && ram.locked && ram.no_merge && ram.dump);
    let locked = made("memory.locked = true").unwrap();
    assert!(locked.locked_memory() > locked.memory.as_bytes());
    assert_eq!(made("").unwrap().locked_memory(), 0);
}

#[test]
fn huge_pages_are_a_memfds_and_asked_for_at_the_start() {
    let machine = made("memory.hugepages = '2M'\nmemory.size = '512M'\ncpu.count = 4").unwrap();
    let backend = machine.ram.backend.clone().unwrap();
    assert_eq!(backend.kind, RamKind::Memfd);
    assert!(backend.prealloc && !backend.share);
    assert_eq!(machine.ram.prealloc_threads, Some(4));
    let [pages] = machine.ram.hugepages(machine.memory)[..] else {
        panic!("one pool");
    };
    assert_eq!((pages.pages, pages.node), (256, None));
    let none = made("memory.hugepages = 'none'").unwrap();
    assert_eq!(none.ram.backend, None);
    assert!(
        made("memory.share = true")
            .unwrap()
            .ram
            .backend
            .unwrap()
            .share
    );
}

#[test]
fn huge_pages_that_cannot_be_are_told() {
    let report: Report = made("memory.hugepages = '32M'").unwrap_err().into();
    assert_eq!(report.code, ExitCode::Host);
    assert_eq!(report.hints, ["it has those of 2M, 1G"]);
    assert_eq!(
        told("memory.hugepages = '1G'\nmemory.size = '1536M'"),
        "1536M of memory are not a whole number of huge pages of 1G"
    );
    let report: Report = machine_on("memory.hugepages = '2M'", &host(8, 1000))
        .unwrap_err()
        .into();
    assert!(report.chain[0].contains("needs 512 huge pages of 2M, of which 8 are free"));
    assert!(report.hints[0].contains("hugepages-2048kB"), "{report}");
    assert!(machine_on("memory.hugepages = '2M'", &host(512, 1000)).is_ok());
    for backing in ["anonymous", "file"] {
        let text = format!("memory.hugepages = '2M'\nmemory.backing = '{backing}'");
        assert!(told(&text).contains("memfd"), "{backing}");
    }
}

#[test]
fn a_file_is_asked_for_where_it_is_one() {
    assert!(told("memory.backing = 'file'").contains("names none"));
    assert!(told("memory.path = '/x'").contains("`memory.backing = \"file\"` only"));
    assert!(told("memory.discard = true").contains("`memory.backing = \"file\"` only"));
    let report = told("memory = { backing = 'file', path = '/mnt/pmem' }");
    assert_eq!(report, "/mnt/pmem has 1M, and the guest's memory is 1G");
    let ram = made("memory = { backing = 'file', path = '/dev/dax0.0', discard = true }");
    let backend = ram.unwrap().ram.backend.unwrap();
    assert!(matches!(backend.kind, RamKind::File { discard: true, .. }));
}

#[test]
fn what_it_starts_with_needs_a_balloon() {
    assert!(told("memory.current = '2G'").contains("1G at most"));
    assert!(told("memory.current = '512M'\nballoon.enabled = false").contains("takes away"));
    let machine = made("memory.current = '512M'").unwrap();
    assert_eq!(machine.ram.current, Some(Size::mib(512)));
    assert!(machine.balloon);
    assert_eq!(made("memory.current = '1G'").unwrap().ram.current, None);
}

#[test]
fn nodes_share_what_is_not_said() {
    let text =
        "cpu.count = 3\n[numa.a]\n[numa.b]\nmemory = '256M'\n[numa.c]\ndistance = { a = 31 }";
    let numa = made(text).unwrap().ram.numa;
    let parts: Vec<_> = numa
        .iter()
        .map(|node| (node.cpus.clone(), node.memory.to_string()))
        .collect();
    let expected = |cpu, memory: &str| (vec![(cpu, cpu)], memory.to_owned());
    assert_eq!(
        parts,
        [
            expected(0, "384M"),
            expected(1, "256M"),
            expected(2, "384M")
        ]
    );
    assert_eq!(numa[2].distances, [(0, 31)]);
    let text = "memory = { size = '1G', hugepages = '2M' }\ncpu.count = 2\n\
                [numa.a]\nhost-nodes = '0'\n[numa.b]\nhost-nodes = '1'\npolicy = 'preferred'";
    let machine = made(text).unwrap();
    let pages: Vec<_> = machine.ram.hugepages(machine.memory);
    let pages: Vec<_> = pages.iter().map(|p| (p.node, p.pages)).collect();
    assert_eq!(pages, [(Some(0), 256), (None, 256)]);
}

#[test]
fn nodes_that_do_not_fit_are_told() {
    for (text, expected) in [
        ("[numa.a]\nmemory = '2G'", "have 2G of memory together"),
        ("[numa.a]\nmemory = '512M'", "have 512M of memory together"),
        (
            "[numa.a]\nmemory = '1G'\n[numa.b]",
            "no memory is left for the NUMA node `b`",
        ),
        (
            "memory.size = '1025M'\n[numa.a]\n[numa.b]",
            "cannot be spread evenly over 2",
        ),
        (
            "cpu.count = 2\n[numa.a]\ncpus = '0'\n[numa.b]",
            "`b` names no processors",
        ),
        (
            "cpu.count = 2\n[numa.a]\ncpus = '0-2'",
            "the guest has 0 to 1",
        ),
        (
            "cpu.count = 2\n[numa.a]\ncpus = '0,1'\n[numa.b]\ncpus = '1'",
            "in the NUMA nodes `a` and `b`",
        ),
        (
            "cpu.count = 2\n[numa.a]\ncpus = '0'",
            "the processor 1 is in no NUMA node",
        ),
        ("[numa.a]\ncpus = '1-0'", "not a list of numbers"),
        ("[numa.a]\ndistance = { b = 20 }", "names `b`"),
        ("[numa.a]\ndistance = { a = 11 }", "10 to the node itself"),
        (
            "[numa.a]\npolicy = 'bind'",
            "`numa.a.host-nodes`, which is not set",
        ),
        (
            "[numa.a]\n[memory]\nhost-nodes = '0'",
            "each says its `host-nodes`",
        ),
        (
            "machine.type = 'microvm'\nboot.kernel = 'k'\n[numa.a]",
            "has no NUMA nodes",
        ),
    ] {
        let said = told(text);
        assert!(said.contains(expected), "{text}: {said}");
    }
}

#[test]
fn a_plan_of_an_earlier_mvm_is_read() {
    let machine = made("").unwrap();
    let mut value = serde_json::to_value(&machine).unwrap();
    value.as_object_mut().unwrap().remove("ram");
    let back: Machine = serde_json::from_value(value).unwrap();
    assert_eq!(back, machine);
    let node = NumaNode {
        id: "a".parse().unwrap(),
        cpus: vec![(0, 0)],
        memory: Size::mib(1),
        place: HostNodes::default(),
        distances: vec![],
    };
    let text = serde_json::to_string(&node).unwrap();
    assert_eq!(serde_json::from_str::<NumaNode>(&text).unwrap(), node);
}
