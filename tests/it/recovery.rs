//! Supervisors that die, and what becomes of their guests.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::env::{TestEnv, eventually, kill};

fn pid(env: &TestEnv, key: &str) -> i32 {
    let shown = env.mvm("show demo --format json").exits(0).json();
    let pid = shown[key]
        .as_i64()
        .unwrap_or_else(|| panic!("{key} in {shown}"));
    pid.try_into().expect("an id")
}

fn state(env: &TestEnv) -> String {
    env.row("demo")["state"]
        .as_str()
        .unwrap_or("absent")
        .to_owned()
}

fn kill_supervisor(env: &TestEnv) {
    kill(pid(env, "supervisor"), Signal::SIGKILL);
    eventually("nobody supervises", Duration::from_secs(10), || {
        state(env) == "unsupervised"
    });
}

fn uptime(env: &TestEnv) -> f64 {
    let text = env.type_in("demo", "cut -d' ' -f1 /proc/uptime");
    let mut lines = text.lines().rev().map(str::trim);
    lines
        .find_map(|line| line.parse().ok())
        .unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn a_guest_outlives_its_supervisors() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    env.mvm("start demo").exits(0);
    env.mvm("wait demo --for agent --timeout 120s").exits(0);
    let qemu = pid(&env, "pid");
    let first = uptime(&env);

    kill_supervisor(&env);
    env.mvm("pause demo").exits(1).says("mvm recover demo");
    let left = env.mvm("recover --no-adopt --format json").exits(0).json();
    assert_eq!(left[0]["outcome"], "left");
    assert_eq!(state(&env), "unsupervised");
    let adopted = env.mvm("recover --format json").exits(0).json();
    assert_eq!(
        (&adopted[0]["name"], &adopted[0]["outcome"]),
        (&"demo".into(), &"adopted".into())
    );
    assert_eq!((state(&env).as_str(), pid(&env, "pid")), ("running", qemu));
    let second = uptime(&env);
    assert!(second > first, "{first} {second}");
    env.mvm("wait demo --for agent --timeout 60s").exits(0);

    // A second `mvm run` of the same name takes it over, too.
    kill_supervisor(&env);
    let mut run = env
        .command(&["run", "demo", "--no-console"])
        .stderr(Stdio::null())
        .spawn()
        .expect("mvm starts");
    eventually("it is adopted", Duration::from_secs(30), || {
        state(&env) == "running"
    });
    assert_eq!(pid(&env, "pid"), qemu);
    assert!(uptime(&env) > second);
    env.mvm("stop demo --timeout 60s").exits(0);
    assert!(run.wait().expect("it ends").success());
    assert!(!env.path("run/demo").exists());
}

#[test]
fn when_both_are_gone_recover_tells_the_truth() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    // Killed both: nobody knows that it had shut down, as it had not.
    env.mvm("start demo").exits(0);
    let qemu = pid(&env, "pid");
    kill_supervisor(&env);
    kill(qemu, Signal::SIGKILL);
    eventually("both are gone", Duration::from_secs(10), || {
        state(&env) == "crashed"
    });
    let told = env.mvm("recover demo --format json").exits(0).json();
    assert_eq!(told[0]["outcome"], "cleaned-up");
    assert_eq!(told[0]["ended"]["reason"], "unknown", "{told}");
    assert!(!env.path("run/demo").exists());

    // The guest shuts down while nobody supervises: QEMU's own event log knows.
    env.mvm("start demo").exits(0);
    env.mvm("wait demo --for agent --timeout 120s").exits(0);
    kill_supervisor(&env);
    let mut monitor = UnixStream::connect(env.path("run/demo/monitor.sock")).expect("QEMU listens");
    let mut lines = BufReader::new(monitor.try_clone().expect("a socket")).lines();
    lines.next().expect("a greeting").expect("text");
    for command in ["qmp_capabilities", "system_powerdown"] {
        writeln!(monitor, "{{\"execute\":\"{command}\"}}").expect("QEMU listens");
    }
    eventually("the guest shuts down", Duration::from_secs(60), || {
        state(&env) == "crashed"
    });
    let told = env.mvm("recover --format json").exits(0).json();
    assert_eq!(told[0]["ended"]["reason"], "guest-shutdown", "{told}");
    assert!(!env.path("run/demo").exists());
}
