//! Memory that a guest takes from the host and gives back.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::env::{TestEnv, eventually, kill};
use crate::power::{counts, machine, start};

const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

fn count(file: &str) -> u64 {
    let text = std::fs::read_to_string(Path::new(POOL).join(file)).expect("the host's pool");
    text.trim().parse().expect("a number")
}

/// Whether this process may change the host's pool: not in a container whose /sys is read-only.
fn may_change() -> bool {
    let file = Path::new(POOL).join("nr_hugepages");
    let may = std::fs::OpenOptions::new().write(true).open(file).is_ok();
    if !may {
        eprintln!("skipped: the host's huge pages cannot be changed here");
    }
    may
}

/// Huge pages are added for a guest, are in use by its QEMU, and are gone from the pool when it is: after a
/// stop, when everything is killed, and while it is hibernated as the host sleeps.
#[test]
fn huge_pages_come_and_go_with_their_guest() {
    if !may_change() {
        return;
    }
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    machine(&env, "big", "[power]\nhost-sleep = \"hibernate\"\n");
    let file = env.path("config/machines/big.toml");
    let text = std::fs::read_to_string(&file).expect("the machine file");
    let text = text.replace(
        "size = \"256M\"",
        "size = \"256M\"\nhugepages = \"2M\"\ncurrent = \"192M\"",
    );
    std::fs::write(&file, text).expect("the machine file");

    let before = count("nr_hugepages");
    let free = count("free_hugepages");
    let missing = 128_u64.saturating_sub(free);
    let shown = env.mvm("start big --dry-run").exits(0);
    assert!(
        shown.stdout.contains("128 huge pages of 2M are free"),
        "{}",
        shown.stdout
    );
    assert_eq!(count("nr_hugepages"), before, "a dry run touches nothing");

    start(&env, "big");
    assert_eq!(count("nr_hugepages"), before + missing);
    assert_eq!(count("free_hugepages"), free + missing - 128);
    eventually(
        "the balloon holds what the guest is not to have",
        Duration::from_secs(60),
        || {
            let told = env.mvm("memory big --format json");
            told.json()["actual"] == 192 << 20
        },
    );

    // Everything dies at once; what it leaves is taken back.
    let state = std::fs::read_to_string(env.path("run/big/state.json")).expect("its state");
    let state: serde_json::Value = serde_json::from_str(&state).expect("its state");
    for process in ["supervisor", "pid"] {
        let pid = state[process]
            .as_i64()
            .and_then(|pid| i32::try_from(pid).ok());
        kill(pid.expect("a process id"), Signal::SIGKILL);
    }
    eventually("QEMU is gone", Duration::from_secs(20), || {
        env.mvm("recover big").exits(0);
        count("nr_hugepages") == before
    });

    // Asleep with the host on its own disk, it leaves the host its pages; they are back before it wakes.
    let pid = start(&env, "big");
    assert_eq!(count("nr_hugepages"), before + missing);
    env.mvm("sleep pre suspend").exits(0);
    assert_eq!(env.row("big")["state"], "hibernated");
    assert_eq!(count("nr_hugepages"), before);
    env.mvm("sleep post suspend").exits(0);
    counts(&env, "big", &pid);
    assert_eq!(count("nr_hugepages"), before + missing);
    env.mvm("stop big").exits(0);
    assert_eq!(count("nr_hugepages"), before);
    assert_eq!(count("free_hugepages"), free);
}

/// Of an absurd number the kernel has some, and gets them back.
#[test]
fn more_huge_pages_than_there_is_memory_are_an_error() {
    if !may_change() {
        return;
    }
    let env = TestEnv::new();
    // One page of a gibibyte more than the host has in all.
    let info = std::fs::read_to_string("/proc/meminfo").expect("the kernel tells");
    let total = info
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().nth(1));
    let total: u64 = total.and_then(|kib| kib.parse().ok()).expect("MemTotal");
    let size = (total >> 20) + 1;
    let giant = Path::new("/sys/kernel/mm/hugepages/hugepages-1048576kB");
    if !giant.exists() {
        eprintln!("skipped: the host has no huge pages of 1G");
        return;
    }
    env.write(
        "config/machines/huge.toml",
        format!("[memory]\nsize = \"{size}G\"\nhugepages = \"1G\"\n"),
    );
    let read = || std::fs::read_to_string(giant.join("nr_hugepages")).expect("the pool");
    let had = read();
    env.mvm("start huge")
        .exits(4)
        .says("huge pages of 1G that the guest needs, the kernel can make");
    assert_eq!(read(), had);
    assert!(!env.path("run/huge").exists());
}
