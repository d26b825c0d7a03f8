//! Guests that sleep and wake, with their disks as they were, in real QEMU.

use std::fs::File;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::env::{TestEnv, eventually, kill};

/// A machine file for the demo guest with a swap disk of its own.
pub(crate) fn machine(env: &TestEnv, name: &str, more: &str) {
    let swap = format!("{name}-swap.raw");
    let file = File::create(env.image(&swap)).expect("a file");
    file.set_len(768 << 20).expect("a sparse file");
    let text = format!(
        "extends = [\"demo\"]\n\
         [cpu]\ncount = 1\n\
         [memory]\nsize = \"256M\"\n\
         [boot]\nappend = \"console=ttyS0 quiet no_timer_check nohz=off highres=off mvm.swap=/dev/vda\"\n\
         [disk.swap]\nfile = {{ path = \"{swap}\", format = \"raw\" }}\n{more}"
    );
    env.write(format!("config/machines/{name}.toml"), text);
}

/// Starts it, and something in it that counts; it is told by its process id.
pub(crate) fn start(env: &TestEnv, name: &str) -> String {
    env.mvm(&format!("start {name}")).exits(0);
    awake(env, name);
    let said = env.type_in(
        name,
        "(n=0; while :; do n=$((n+1)); echo $n >/tmp/m; mv /tmp/m /tmp/n; sleep 0.2; done) & echo pid=$!.",
    );
    let (_, pid) = said.split_once("pid=").expect("its process id");
    pid.split('.').next().expect("the number").to_owned()
}

#[track_caller]
pub(crate) fn awake(env: &TestEnv, name: &str) {
    env.mvm(&format!("wait {name} --for agent --timeout 2m"))
        .exits(0);
}

/// The process is the same one, and goes on counting.
#[track_caller]
pub(crate) fn counts(env: &TestEnv, name: &str, pid: &str) {
    // What is typed before the guest's memory is back is lost.
    awake(env, name);
    // Not by the console: a UART that has just woken loses what is typed too early.
    let script = format!("kill -0 {pid} && a=$(cat /tmp/n) && sleep 2 && [ $(cat /tmp/n) -gt $a ]");
    env.run(&["exec", name, "--", "sh", "-c", &script]).exits(0);
}

#[test]
fn a_guest_sleeps_wakes_and_hibernates_twice() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    machine(&env, "s", "[machine]\ntype = \"pc\"\n");
    let pid = start(&env, "s");
    for _ in 0..2 {
        env.mvm("suspend s").exits(0);
        assert_eq!(env.row("s")["state"], "suspended");
        // Asleep is asleep.
        env.mvm("suspend s").exits(0);
        env.mvm("pause s").exits(1).says("nothing to pause");
        env.mvm("hibernate s").exits(1).says("mvm wakeup s");
        env.mvm("wakeup s").exits(0);
        assert_eq!(env.row("s")["state"], "running");
        env.mvm("wakeup s").exits(0);
        counts(&env, "s", &pid);
    }
    env.mvm("suspend s").exits(0);
    env.mvm("resume s").exits(0);
    counts(&env, "s", &pid);

    for _ in 0..2 {
        awake(&env, "s");
        env.mvm("hibernate s").exits(0);
        assert_eq!(env.row("s")["state"], "hibernated");
        env.mvm("stop s").exits(5).says("mvm start s");
        env.mvm("wakeup s").exits(5).says("mvm start s");
        env.mvm("start s").exits(0).says("goes on where it was");
        counts(&env, "s", &pid);
    }
    // Awake and not able to: nothing is left to tell of it.
    awake(&env, "s");
    assert_eq!(env.row("s")["state"], "running");
    env.mvm("suspend s").exits(0);
    env.mvm("stop s").exits(0);
    assert!(!env.path("state/s/asleep.json").exists());
}

/// Another machine must not wake with its memory, and nobody else gets its disks.
#[test]
fn a_hibernated_guest_is_kept_from_harm() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    machine(&env, "h", "");
    let pid = start(&env, "h");
    env.mvm("hibernate h").exits(0);
    let before = env.tree();
    env.mvm("start h --memory 512M")
        .exits(1)
        .says("memory is 512M and was 256M");
    env.mvm("start h --set balloon.enabled=false")
        .exits(1)
        .says("the balloon is missing");
    let other =
        "start demo --name other --set disk.a.file.path=h-swap.raw --set disk.a.file.format=raw";
    env.mvm(other).exits(1).says("`h`, which is hibernated");
    env.mvm("start h --dry-run").exits(0).says("goes on");
    assert_eq!(env.row("h")["state"], "hibernated");
    let logs = |tree: std::collections::BTreeMap<std::path::PathBuf, _>| {
        let names = tree.into_keys();
        names
            .filter(|path| !path.to_string_lossy().contains("log"))
            .collect::<Vec<_>>()
    };
    assert_eq!(logs(before), logs(env.tree()));
    env.mvm("start h").exits(0);
    counts(&env, "h", &pid);

    // Given up, it starts anew.
    awake(&env, "h");
    env.mvm("hibernate h").exits(0);
    env.mvm("start h --memory 512M --discard-hibernation")
        .exits(0);
    awake(&env, "h");
    env.mvm("exec h -- test -e /tmp/n").exits(1);
    env.mvm("kill h").exits(0);
}

/// q35 with SeaBIOS wakes in order once: what comes then is the profile's fallback, and never a lie.
#[test]
fn q35_without_uefi_sleeps_once_and_then_falls_back() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    machine(&env, "q", "[power]\nsuspend = [\"ram\", \"pause\"]\n");
    env.mvm("profile check q")
        .exits(0)
        .says("once until its next reset");
    env.mvm("start q")
        .exits(0)
        .says("once until its next reset");
    awake(&env, "q");
    env.mvm("suspend q").exits(0);
    assert_eq!(env.row("q")["state"], "suspended");
    env.mvm("wakeup q").exits(0);
    awake(&env, "q");
    env.mvm("suspend q").exits(0).says("slept once");
    assert_eq!(env.row("q")["state"], "paused");
    // What it was paused for is over, and that is no user's pause.
    env.mvm("wakeup --all").exits(0);
    assert_eq!(env.row("q")["state"], "running");
    env.mvm("pause q").exits(0);
    env.mvm("wakeup --all").exits(0);
    env.mvm("wakeup q").exits(1).says("mvm resume q");
    env.mvm("resume q").exits(0);
    // A reset sets the registers anew.
    env.mvm("reset q").exits(0);
    awake(&env, "q");
    env.mvm("suspend q").exits(0);
    assert_eq!(env.row("q")["state"], "suspended");
    env.mvm("kill q").exits(0);
}

/// A guest that cannot says why, and is as it was.
#[test]
fn a_guest_that_cannot_sleep_says_why() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    machine(&env, "n", "[power]\ns3 = false\ns4 = false\n");
    env.mvm("start n").exits(0);
    awake(&env, "n");
    let said = env.type_in("n", "cat /sys/power/state /sys/power/disk");
    // The firmware does not offer it: `freeze` is the kernel's own, and `deep` is missing with it.
    assert!(!said.contains("platform"), "{said}");
    env.mvm("suspend n")
        .exits(1)
        .says("power.s3 = false")
        .says("power.suspend");
    env.mvm("hibernate n").exits(1).says("power.s4 = false");
    env.mvm("pause n").exits(0);
    env.mvm("suspend n").exits(1).says("mvm resume n");
    env.mvm("kill n").exits(0);
    env.mvm("start demo --name t --set power.suspend-timeout=0s")
        .exits(0);
    env.mvm("hibernate t").exits(1).says("no disk");
    // The agent answers, and has no time at all.
    env.mvm("suspend t").exits(1).says("does not sleep after 0");
    env.mvm("kill t").exits(0);
}

/// Whoever dies, what is told afterwards is so.
#[test]
fn the_truth_is_told_when_a_supervisor_dies_around_a_sleep() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    machine(&env, "k", "[machine]\ntype = \"pc\"\n");
    let pid = start(&env, "k");
    let supervisor = || {
        let text = std::fs::read_to_string(env.path("run/k/state.json")).expect("a state");
        let state: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        i32::try_from(state["supervisor"].as_i64().expect("a process")).expect("an id")
    };
    env.mvm("suspend k").exits(0);
    kill(supervisor(), Signal::SIGKILL);
    eventually("its end", Duration::from_secs(10), || {
        env.row("k")["state"] == "unsupervised"
    });
    env.mvm("recover").exits(0);
    assert_eq!(env.row("k")["state"], "suspended");
    env.mvm("wakeup k").exits(0);
    counts(&env, "k", &pid);

    // It hibernates while nobody supervises it: QEMU's own record tells of it.
    awake(&env, "k");
    kill(supervisor(), Signal::SIGKILL);
    eventually("its end", Duration::from_secs(10), || {
        env.row("k")["state"] == "unsupervised"
    });
    let socket = env.path("run/k/console-main.qemu.sock");
    {
        use std::io::Write as _;
        let mut console = std::os::unix::net::UnixStream::connect(socket).expect("its console");
        console
            .write_all(b"\necho disk >/sys/power/state\n")
            .expect("taken");
        eventually("its end", Duration::from_secs(90), || {
            env.row("k")["state"] == "crashed"
        });
    }
    env.mvm("recover").exits(0);
    assert_eq!(env.row("k")["state"], "hibernated");
    env.mvm("start k").exits(0).says("goes on where it was");
    counts(&env, "k", &pid);
    env.mvm("kill k").exits(0);
    assert_eq!(
        env.mvm("list --all --format json").exits(0).json()[0]["state"],
        "stopped"
    );
}

/// What sleeps for the host is woken after it, and nothing else is.
#[test]
fn guests_sleep_and_wake_with_their_host() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    let board = "[machine]\ntype = \"pc\"\n";
    machine(
        &env,
        "a",
        &format!("{board}[power]\nhost-sleep = \"same\"\n"),
    );
    machine(
        &env,
        "b",
        &format!("{board}[power]\nhost-sleep = \"pause\"\n"),
    );
    machine(&env, "c", board);
    let pid = start(&env, "a");
    env.mvm("start b").exits(0);
    env.mvm("start c").exits(0);
    let states = || ["a", "b", "c"].map(|name| env.row(name)["state"].clone());
    env.mvm("sleep pre").exits(0);
    assert_eq!(states(), ["suspended", "paused", "running"]);
    // Nothing is asked twice.
    env.mvm("sleep pre").exits(0);
    env.mvm("sleep post").exits(0);
    assert_eq!(states(), ["running", "running", "running"]);
    counts(&env, "a", &pid);

    // What was paused before stays so.
    env.mvm("pause b").exits(0);
    env.mvm("sleep pre hibernate").exits(0);
    assert_eq!(states(), ["hibernated", "paused", "running"]);
    env.mvm("sleep post hibernate").exits(0);
    assert_eq!(states(), ["running", "paused", "running"]);
    counts(&env, "a", &pid);
    env.mvm("kill b").exits(0);
    env.mvm("kill c").exits(0);

    // One that does not sleep keeps the host awake where its profile wants that, and the others too.
    machine(
        &env,
        "d",
        "[power]\ns3 = false\nhost-sleep = \"suspend\"\nhost-sleep-failure = \"stay-awake\"\n",
    );
    env.mvm("start d").exits(0);
    env.mvm("wait d --for running --timeout 1m").exits(0);
    awake(&env, "a");
    env.mvm("sleep pre")
        .exits(1)
        .says("power.s3 = false")
        .says("should stay awake");
    assert_eq!(env.row("a")["state"], "running");
    assert_eq!(env.row("d")["state"], "running");
    env.mvm("kill d").exits(0);
    env.mvm("start d --set power.host-sleep-failure=sleep")
        .exits(0);
    env.mvm("sleep pre").exits(0).says("may sleep all the same");
    assert_eq!(env.row("a")["state"], "suspended");
    env.mvm("sleep post").exits(0);
    counts(&env, "a", &pid);
    env.mvm("kill a").exits(0);
    env.mvm("kill d").exits(0);
}

/// UEFI sets q35's power registers again: twice in a row, and hibernation between; pc does not lose them.
#[test]
fn boards_with_uefi_sleep_as_often_as_they_like() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    for board in ["q35", "pc"] {
        machine(
            &env,
            board,
            &format!("[machine]\ntype = \"{board}\"\n[firmware]\ntype = \"uefi\"\n[power]\n"),
        );
        let checked = env.mvm(&format!("profile check {board}")).exits(0);
        assert_eq!(checked.stderr, "");
        let pid = start(&env, board);
        for _ in 0..2 {
            env.mvm(&format!("suspend {board}")).exits(0);
            assert_eq!(env.row(board)["state"], "suspended");
            env.mvm(&format!("wakeup {board}")).exits(0);
            counts(&env, board, &pid);
        }
        env.mvm(&format!("hibernate {board}")).exits(0);
        assert_eq!(env.row(board)["state"], "hibernated");
        env.mvm(&format!("start {board}")).exits(0);
        counts(&env, board, &pid);
        env.mvm(&format!("stop {board}")).exits(0);
    }
}

/// Five at once, each of them writing to its disk all the while: what it wrote is what is there afterwards.
#[test]
fn five_guests_sleep_at_once_while_they_write() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    let names = ["w1", "w2", "w3", "w4", "w5"];
    for name in names {
        let data = File::create(env.image(format!("{name}-data.raw"))).expect("a file");
        data.set_len(16 << 20).expect("a sparse file");
        let more = format!(
            "[machine]\ntype = \"pc\"\n\
             [disk.tail]\nfile = {{ path = \"{name}-data.raw\", format = \"raw\" }}\n"
        );
        machine(&env, name, &more);
        env.mvm(&format!("start {name}")).exits(0);
    }
    // Disks come in the order of their names: `swap` before `tail`.
    let write = "head -c 1000000 /dev/urandom >/tmp/d; \
        (while :; do dd if=/tmp/d of=/dev/vdb bs=4k conv=fsync 2>/dev/null; echo x >>/tmp/rounds; done) & echo $! >/tmp/writer; echo 'it writes'";
    for name in names {
        awake(&env, name);
        let said = env.type_in(name, write);
        assert!(said.contains("it writes"), "{said}");
    }
    env.mvm("suspend --all").exits(0);
    for name in names {
        assert_eq!(env.row(name)["state"], "suspended", "{name}");
    }
    env.mvm("wakeup --all").exits(0);
    for name in names {
        assert_eq!(env.row(name)["state"], "running", "{name}");
        awake(&env, name);
    }
    // And through its disk, in the midst of writing.
    env.mvm("hibernate w1").exits(0);
    env.mvm("start w1").exits(0);
    awake(&env, "w1");
    let same = "r=$(wc -l </tmp/rounds); sleep 3; [ $(wc -l </tmp/rounds) -gt $r ] && \
        kill $(cat /tmp/writer) && sleep 2 && sync && echo 3 >/proc/sys/vm/drop_caches && \
        head -c 1000000 /dev/vdb | cmp - /tmp/d";
    for name in names {
        env.run(&["exec", name, "--", "sh", "-c", same]).exits(0);
    }
    env.mvm("kill --all").exits(0);
}

/// A full Debian with systemd, asked through its agent (which asks logind), and by its sleep key when it has none.
#[test]
fn debian_sleeps_and_hibernates_through_logind() {
    let Some(env) = TestEnv::with_debian("deb") else {
        return;
    };
    let inside = |script: &str| {
        env.run(&["exec", "deb", "--", "sh", "-c", script])
            .exits(0)
            .stdout
    };
    let counts = || {
        awake(&env, "deb");
        inside(
            "systemctl -q is-active count && a=$(cat /run/n) && sleep 2 && [ $(cat /run/n) -gt $a ]",
        );
    };
    env.mvm("start deb").exits(0);
    awake(&env, "deb");
    inside("systemctl is-system-running --wait >/dev/null; grep -q /dev/ /proc/swaps");
    inside(
        "systemd-run -q --unit=count sh -c \
           'n=0; while :; do n=$((n+1)); echo $n >/run/n; sleep 0.2; done'; \
         until [ -s /run/n ]; do sleep 0.1; done",
    );
    for _ in 0..2 {
        env.mvm("suspend deb").exits(0);
        assert_eq!(env.row("deb")["state"], "suspended");
        env.mvm("wakeup deb").exits(0);
        counts();
    }
    let said = inside("journalctl -b --no-pager -t systemd-sleep");
    assert_eq!(
        said.matches("Entering sleep state 'suspend'").count(),
        2,
        "{said}"
    );

    env.mvm("hibernate deb").exits(0);
    assert_eq!(env.row("deb")["state"], "hibernated");
    env.mvm("start deb").exits(0).says("goes on where it was");
    counts();

    // Without its agent. It comes back by itself half a minute later.
    inside(
        "soon='systemd-run -q --timer-property=AccuracySec=100ms'; \
         $soon --on-active=30 systemctl start qemu-guest-agent; $soon --on-active=3 systemctl stop qemu-guest-agent",
    );
    eventually("the agent's end", Duration::from_secs(30), || {
        let state = std::fs::read_to_string(env.path("run/deb/state.json")).unwrap_or_default();
        let state: serde_json::Value = serde_json::from_str(&state).unwrap_or_default();
        state["agent"] == false
    });
    env.mvm("suspend deb").exits(0);
    assert_eq!(env.row("deb")["state"], "suspended");
    env.mvm("wakeup deb").exits(0);
    counts();
    env.mvm("kill deb").exits(0);
}
