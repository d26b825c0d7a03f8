//! What the memory is made of, asked of QEMU.

use serde_json::{Value, json};

use super::runs;
use super::session::Session;

fn get(session: &mut Session, path: &str, property: &str) -> Value {
    session.call("qom-get", json!({ "path": path, "property": property }))
}

fn backend(session: &mut Session, property: &str) -> Value {
    get(session, "/objects/mvm-memory", property)
}

#[test]
fn memory_is_made_of_what_the_profile_says() {
    let text = "memory = { size = '64M', share = true, prealloc = true, merge = false, dump = true }\n\
                cpu.count = 2\n[balloon]\nfree-page-reporting = true\ndeflate-on-oom = true";
    let Some((mut session, _)) = runs(text, &[]) else {
        return;
    };
    let devices = session.call("query-memdev", json!({}));
    let device = &devices[0];
    assert_eq!(device["id"], "mvm-memory");
    assert_eq!(device["size"], 64 << 20);
    assert_eq!(device["share"], true);
    assert_eq!(device["prealloc"], true);
    // Both follow the board's: KSM's, and that of core files.
    assert_eq!(device["merge"], false);
    assert_eq!(device["dump"], true);
    assert_eq!(backend(&mut session, "type"), "memory-backend-memfd");
    assert_eq!(backend(&mut session, "prealloc-threads"), 2);
    let balloon = "/machine/peripheral/mvm-balloon";
    for property in ["free-page-reporting", "deflate-on-oom"] {
        assert_eq!(get(&mut session, balloon, property), true, "{property}");
    }
    let summary = session.call("query-memory-size-summary", json!({}));
    assert_eq!(summary["base-memory"], 64 << 20);
    session.quit();
}

#[test]
fn memory_can_be_a_file() {
    let text =
        "memory = { size = '32M', backing = 'file', path = 'ram', share = true, discard = true }";
    let Some((mut session, _)) = runs(text, &["ram/other"]) else {
        return;
    };
    let folder = session.dir.path().join("ram");
    assert_eq!(backend(&mut session, "mem-path"), json!(folder));
    assert_eq!(backend(&mut session, "discard-data"), true);
    // It has no name there, and is mapped.
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", session.child.id())).unwrap();
    assert!(maps.contains(folder.to_str().unwrap()), "{maps}");
    session.quit();
}

#[test]
fn memory_comes_from_the_hosts_nodes() {
    for (policy, told) in [("", "bind"), ("policy = 'interleave'", "interleave")] {
        let text = format!("[memory]\nsize = '32M'\nhost-nodes = '0'\n{policy}");
        let Some((mut session, _)) = runs(&text, &[]) else {
            return;
        };
        let devices = session.call("query-memdev", json!({}));
        assert_eq!(devices[0]["host-nodes"], json!([0]), "{devices}");
        assert_eq!(devices[0]["policy"], told);
        session.quit();
    }
}

#[test]
fn memory_stays_in_place() {
    let text = "memory = { size = '32M', locked = true, dump = false }";
    let Some((mut session, _)) = runs(text, &[]) else {
        return;
    };
    let status = format!("/proc/{}/status", session.child.id());
    let status = std::fs::read_to_string(status).unwrap();
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
    let locked: u64 = locked
        .and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap();
    assert!(locked >= 32 << 10, "{status}");
    assert_eq!(get(&mut session, "/machine", "dump-guest-core"), false);
    session.quit();
}

#[test]
fn the_guest_has_nodes() {
    let boards = [
        "machine.type = 'q35'",
        "machine.type = 'pc'",
        // QEMU 10 warns where processors of one socket are in several nodes.
        "machine.arch = 'aarch64'\nboot.kernel = 'k'\ncpu.sockets = 3",
    ];
    for board in boards {
        let text = format!(
            "{board}\nmemory.size = '96M'\nmemory.backing = 'memfd'\ncpu.count = 3\n\
             [numa.a]\ncpus = '0,2'\nmemory = '64M'\nhost-nodes = '0'\n\
             [numa.b]\ncpus = '1'\ndistance = {{ a = 31 }}"
        );
        let Some((mut session, _)) = runs(&text, &["k"]) else {
            continue;
        };
        let line = json!({ "command-line": "info numa" });
        let told = session.call("human-monitor-command", line);
        let told = told.as_str().unwrap();
        for expected in [
            "2 nodes",
            "node 0 cpus: 0 2",
            "node 0 size: 64 MB",
            "node 1 cpus: 1",
            "node 1 size: 32 MB",
        ] {
            assert!(told.contains(expected), "{board}: {told}");
        }
        let devices = session.call("query-memdev", json!({}));
        let devices = devices.as_array().unwrap();
        let node = |id: &str| devices.iter().find(|one| one["id"] == id).unwrap();
        assert_eq!(node("mvm-numa-a")["host-nodes"], json!([0]));
        assert_eq!(node("mvm-numa-b")["host-nodes"], json!([]));
        session.quit();
    }
}
