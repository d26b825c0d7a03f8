//! What follows a guest's end, and who is told: `[lifecycle]`, `mvm events`, `mvm wait`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::env::{TestEnv, eventually, kill};

const SOON: Duration = Duration::from_secs(60);

/// A line typed into the guest's console; the connection must be kept until it has been read.
fn type_line(env: &TestEnv, line: &str) -> UnixStream {
    let path = env.path("run/demo/console-main.sock");
    let mut console = UnixStream::connect(path).expect("a console");
    writeln!(console, "{line}").expect("it is taken");
    console
}

fn boot(env: &TestEnv, options: &str) -> i64 {
    env.mvm(&format!("start demo --name demo {options}"))
        .exits(0);
    booted(env)
}

/// Waits until the guest has booted; its QEMU's process.
fn booted(env: &TestEnv) -> i64 {
    env.mvm("wait demo --for agent --timeout 140s").exits(0);
    qemu(env)
}

fn qemu(env: &TestEnv) -> i64 {
    env.row("demo")["pid"].as_i64().unwrap_or_default()
}

/// Waits until the guest has another QEMU.
fn another_qemu(env: &TestEnv, before: i64) -> i64 {
    let mut now = before;
    eventually("it is started anew", SOON, || {
        let row = env.row("demo");
        now = row["pid"].as_i64().unwrap_or(before);
        row["state"] == "running" && now != before
    });
    now
}

fn kill_qemu(pid: i64) {
    kill(pid.try_into().expect("an id"), Signal::SIGKILL);
}

fn shown(env: &TestEnv) -> Value {
    env.mvm("show demo --format json").exits(0).json()
}

/// `mvm events` beside the test.
struct Events(Child);

impl Events {
    fn of(env: &TestEnv, args: &str) -> Self {
        let words: Vec<&str> = args.split_whitespace().collect();
        let child = env
            .command(&words)
            .stdout(Stdio::piped())
            .spawn()
            .expect("mvm starts");
        Self(child)
    }

    /// Its lines up to the first that is so.
    fn until(&mut self, mut so: impl FnMut(&Value) -> bool) -> Vec<Value> {
        let stdout = self.0.stdout.as_mut().expect("it was piped");
        let mut lines = Vec::new();
        // One byte at a time is what keeps the rest for the next call.
        let mut reader = BufReader::with_capacity(1, stdout);
        loop {
            let mut line = String::new();
            let read = reader.read_line(&mut line).expect("text");
            assert!(read > 0, "it ended: {lines:?}");
            let line: Value = serde_json::from_str(&line).expect("JSON lines");
            let done = so(&line);
            lines.push(line);
            if done {
                return lines;
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_state(line: &Value, guest: &str, state: &str) -> bool {
    line["guest"] == guest && line["kind"] == "state" && line["state"] == state
}

const PANIC: &str = "echo c >/proc/sysrq-trigger";

#[test]
fn a_panic_can_leave_the_guest_as_it_is() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    let pid = boot(&env, "--set lifecycle.on-crash=preserve");
    let mut events = Events::of(
        &env,
        "events demo --format json --until GUEST_PANICKED --timeout 120s",
    );
    events.until(|line| is_state(line, "demo", "running"));
    let console = type_line(&env, PANIC);
    env.mvm("wait demo --for paused --timeout 60s").exits(0);
    drop(console);
    let lines = events.until(|line| line["event"] == "GUEST_PANICKED");
    let panicked = lines.last().expect("that line");
    assert_eq!(panicked["data"]["action"], "pause", "{panicked}");
    assert!(events.0.wait().expect("it ends").success());
    let now = shown(&env);
    assert_eq!(
        (&now["state"], now["pid"].as_i64()),
        (&"paused".into(), Some(pid))
    );
    let message = now["message"].as_str().unwrap_or_default();
    assert!(message.contains("kernel panicked"), "{now}");

    // A new boot in the same QEMU.
    env.mvm("reset demo").exits(0);
    env.mvm("resume demo").exits(0);
    assert_eq!(booted(&env), pid);
    assert!(shown(&env)["message"].is_null());

    // There is nobody to ask, so that nothing is waited for.
    let console = type_line(&env, PANIC);
    env.mvm("wait demo --for paused --timeout 60s").exits(0);
    drop(console);
    let start = Instant::now();
    env.mvm("stop demo --timeout 100s").exits(0);
    assert!(start.elapsed() < SOON);
    assert_eq!(shown(&env)["ended"]["reason"], "guest-panic");
}

#[test]
fn crashes_are_followed_by_new_starts_up_to_a_limit() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    let first = boot(
        &env,
        "--set lifecycle.restart=on-crash --set lifecycle.restart-limit=2",
    );
    let mut events = Events::of(&env, "events --format json --timeout 280s");
    events.until(|line| is_state(line, "demo", "running"));
    let console = type_line(&env, PANIC);
    let lines = events.until(|line| line["kind"] == "ended");
    drop(console);
    let ended = lines.last().expect("that line");
    assert_eq!(
        (&ended["reason"], &ended["state"]),
        (&"guest-panic".into(), &"restarting".into())
    );
    events.until(|line| is_state(line, "demo", "restarting"));
    let second = another_qemu(&env, first);
    events.until(|line| is_state(line, "demo", "running"));
    kill_qemu(second);
    let third = another_qemu(&env, second);
    kill_qemu(third);
    env.mvm("wait demo --for stopped --timeout 60s").exits(0);
    let lines = events.until(|line| line["kind"] == "ended" && line["state"] == "stopped");
    assert_eq!(lines.last().expect("that line")["reason"], "crashed");
    let ended = shown(&env)["ended"].clone();
    assert_eq!(ended["reason"], "crashed");
    let message = ended["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("not started anew: 2 new starts"),
        "{ended}"
    );
    assert!(!env.path("run/demo").exists());
    let log = env.mvm("log demo").exits(0).stdout;
    assert!(log.contains("number 2 of at most 2 in a row"), "{log}");
}

/// The waits grow, are told truly, and are ended by a stop; a supervisor that came later does the same.
#[test]
fn a_stop_ends_the_wait_for_a_new_start() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    env.mvm("start demo --set lifecycle.restart=always")
        .exits(0);
    let supervisor = shown(&env)["supervisor"].as_i64().expect("a process");
    kill_qemu(supervisor);
    eventually("nobody supervises", SOON, || {
        env.row("demo")["state"] == "unsupervised"
    });
    env.mvm("recover demo").exits(0);
    let mut pid = qemu(&env);
    for _ in 0..2 {
        kill_qemu(pid);
        pid = another_qemu(&env, pid);
    }
    kill_qemu(pid);
    env.mvm("wait demo --for restarting --timeout 30s").exits(0);
    let now = shown(&env);
    assert_eq!(now["state"], "restarting", "{now}");
    let message = now["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("after 4 s, number 3 of at most 10"),
        "{now}"
    );
    assert!(env.row("demo")["pid"].is_null());
    env.mvm("pause demo").exits(5).says("started anew");
    env.mvm("start demo --name demo").exits(1);
    env.mvm("stop demo").exits(0);
    assert!(env.row("demo").is_null());
    std::thread::sleep(Duration::from_secs(5));
    assert!(env.row("demo").is_null() && !env.path("run/demo").exists());
    assert_eq!(shown(&env)["ended"]["reason"], "crashed");
}

#[test]
fn a_shutdown_and_a_reboot_can_be_new_starts() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    let options = "--set lifecycle.on-poweroff=restart --set lifecycle.on-reboot=restart";
    let first = boot(&env, options);
    let console = type_line(&env, "poweroff");
    let second = another_qemu(&env, first);
    drop(console);
    booted(&env);
    let console = type_line(&env, "reboot");
    let third = another_qemu(&env, second);
    drop(console);
    assert_ne!(third, first);
    booted(&env);
    // A user's stop is one.
    env.mvm("stop demo --timeout 90s").exits(0);
    assert!(env.row("demo").is_null());
    assert_eq!(shown(&env)["ended"]["reason"], "guest-shutdown");
}

#[test]
fn a_shutdown_can_keep_qemu_and_a_reboot_can_be_the_end() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    let options = "--set lifecycle.on-poweroff=preserve --set lifecycle.on-reboot=stop";
    let pid = boot(&env, options);
    let console = type_line(&env, "poweroff");
    env.mvm("wait demo --for paused --timeout 90s").exits(0);
    drop(console);
    let now = shown(&env);
    let message = now["message"].as_str().unwrap_or_default();
    assert!(message.contains("has shut down"), "{now}");
    env.mvm("resume demo").exits(1).says("mvm reset demo");
    // With that word a reset is an end, of QEMU too, which stays by itself here.
    let answer = env.mvm("reset demo").exits(0);
    drop(answer);
    env.mvm("wait demo --for stopped --timeout 60s").exits(0);
    assert_eq!(shown(&env)["ended"]["reason"], "guest-shutdown");

    let again = boot(&env, options);
    assert_ne!(again, pid);
    let console = type_line(&env, "reboot");
    env.mvm("wait demo --for stopped --timeout 90s").exits(0);
    drop(console);
    assert_eq!(shown(&env)["ended"]["reason"], "guest-reset");
}

/// Where the init system does it, the supervisor says so by its exit code and leaves nothing.
#[test]
fn an_init_system_is_told_to_start_it_anew() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    let args = [
        "run",
        "demo",
        "--no-console",
        "--unit",
        "systemd",
        "--set",
        "lifecycle.restart=on-crash",
    ];
    for (signal, code) in [(Signal::SIGKILL, 75), (Signal::SIGTERM, 0)] {
        let mut child = env
            .command(&args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mvm starts");
        env.mvm("wait demo --for running --timeout 60s").exits(0);
        kill(qemu(&env).try_into().expect("an id"), signal);
        assert_eq!(child.wait().expect("it ends").code(), Some(code));
        assert!(!env.path("run/demo").exists());
    }
}

#[test]
fn events_of_all_guests_are_followed_and_several_are_waited_for() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    // Before there is any guest, and any folder for them.
    let mut events = Events::of(&env, "events --format json --timeout 280s");
    env.mvm("wait nosuch --for running --timeout 100ms")
        .exits(5);
    env.mvm("wait demo --for asleep").exits(2).says("suspended");
    env.mvm("events --until asleep").exits(2).says("suspended");
    env.mvm("start demo --name demo").exits(0);
    env.mvm("start demo --name other").exits(0);
    env.mvm("wait demo other --for running --timeout 60s")
        .exits(0);
    // From then on it listens to both.
    let mut there = [false, false];
    events.until(|line| {
        there[0] |= is_state(line, "demo", "running");
        there[1] |= is_state(line, "other", "running");
        there == [true, true]
    });

    env.mvm("pause other").exits(0);
    let any = env.mvm("wait demo other --any --for paused,suspended --timeout 30s");
    assert_eq!(any.exits(0).stdout, "other\n");
    env.mvm("wait demo other --for paused --timeout 1s")
        .exits(1)
        .says("demo");
    let lines = events.until(|line| is_state(line, "other", "paused"));
    assert!(
        lines
            .iter()
            .any(|line| line["guest"] == "other" && line["event"] == "STOP"),
        "{lines:?}"
    );

    // A supervisor that dies is told, and the one after it is heard.
    let supervisor = env.mvm("show other --format json").exits(0).json()["supervisor"].clone();
    kill_qemu(supervisor.as_i64().expect("a process"));
    events.until(|line| is_state(line, "other", "unsupervised"));
    env.mvm("recover other").exits(0);
    events.until(|line| is_state(line, "other", "paused"));

    // Whoever reads no more ends it.
    let mut left = Events::of(&env, "events --format json");
    left.until(|line| line["kind"] == "state");
    drop(left.0.stdout.take());
    eventually(
        "nobody reads",
        SOON,
        || matches!(left.0.try_wait(), Ok(Some(status)) if status.success()),
    );

    env.mvm("kill --all").exits(0);
    env.mvm("wait demo other --for stopped --timeout 30s")
        .exits(0);
    for guest in ["demo", "other"] {
        let text = env.path(format!("state/{guest}/last.json"));
        assert!(text.exists(), "{guest}");
    }
    let mut ends = 0;
    while ends < 2 {
        let lines = events.until(|line| line["kind"] == "ended");
        let ended = lines.last().expect("that line");
        assert_eq!(
            (&ended["reason"], &ended["state"]),
            (&"killed".into(), &"stopped".into())
        );
        ends += 1;
    }
    env.mvm("events --until STOP --timeout 100ms")
        .exits(1)
        .says("was not seen");
}

/// A supervisor that dies while nothing runs leaves nothing that cannot be told or cleaned up.
#[test]
fn a_wait_for_a_new_start_can_be_killed() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    env.mvm("start demo --name demo --set lifecycle.restart=on-crash")
        .exits(0);
    let mut pid = qemu(&env);
    for _ in 0..3 {
        kill_qemu(pid);
        pid = another_qemu(&env, pid);
    }
    kill_qemu(pid);
    env.mvm("wait demo --for restarting --timeout 30s").exits(0);
    let supervisor = shown(&env)["supervisor"].as_i64().expect("a process");
    kill_qemu(supervisor);
    eventually("nobody is there", SOON, || {
        env.row("demo")["state"] == "crashed"
    });
    let told = env.mvm("recover demo --format json").exits(0).json();
    assert_eq!(
        (&told[0]["outcome"], &told[0]["ended"]["reason"]),
        (&"cleaned-up".into(), &"crashed".into()),
        "{told}"
    );
    assert!(!env.path("run/demo").exists());
}

/// A watchdog that ends QEMU is a crash; one that pauses the guest is seen.
#[test]
fn a_watchdog_that_bites_is_seen_and_answered() {
    let Some(env) = TestEnv::with_guest("x86_64-full") else {
        return;
    };
    const BITE: &str = "rmmod i6300esb; modprobe i6300esb heartbeat=2; echo 1 >/dev/watchdog";
    let first = boot(
        &env,
        "--set watchdog.model=i6300esb --set watchdog.action=pause --set lifecycle.restart=on-crash",
    );
    let mut events = Events::of(&env, "events --format json --timeout 280s");
    events.until(|line| is_state(line, "demo", "running"));
    let console = type_line(&env, BITE);
    let lines = events.until(|line| is_state(line, "demo", "paused"));
    drop(console);
    let bite = lines.iter().find(|line| line["event"] == "WATCHDOG");
    assert_eq!(bite.expect("that line")["data"]["action"], "pause");

    env.mvm("qmp demo watchdog-set-action action=poweroff")
        .exits(0);
    env.mvm("reset demo").exits(0);
    env.mvm("resume demo").exits(0);
    assert_eq!(booted(&env), first);
    let console = type_line(&env, BITE);
    let lines = events.until(|line| line["kind"] == "ended");
    drop(console);
    let ended = lines.last().expect("that line");
    assert_eq!(
        (&ended["reason"], &ended["state"]),
        (&"watchdog".into(), &"restarting".into())
    );
    another_qemu(&env, first);
    env.mvm("kill demo").exits(0);
}
