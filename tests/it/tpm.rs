//! A guest with a TPM: swtpm behind it, run by mvm.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::env::{TestEnv, eventually, finish, has_program, kill};

/// Bytes for `printf`.
fn bytes(hex: &str) -> String {
    let hex: String = hex.split_whitespace().collect();
    let pairs = hex.as_bytes().chunks(2);
    pairs
        .map(|pair| format!("\\x{}", String::from_utf8_lossy(pair)))
        .collect()
}

/// A command for the guest's TPM, and its answer in hexadecimal.
fn ask(env: &TestEnv, command: &str) -> String {
    let line = format!(
        "exec 3<>/dev/tpm0; printf '{}' >&3; dd bs=4096 count=1 <&3 2>/dev/null | od -An -v -tx1 | tr -d ' \\n'; echo; exec 3>&-",
        bytes(command)
    );
    let said = env.type_in("demo", &line);
    let lines = said.lines().map(str::trim);
    let mut answers = lines.filter(|line| line.len() >= 20 && line.starts_with("80"));
    answers
        .next_back()
        .unwrap_or_else(|| panic!("{said}"))
        .to_owned()
}

/// Whether the TPM's owner has a password (bit 0 of `TPM_PT_PERMANENT`).
fn owned(env: &TestEnv) -> bool {
    let answer = ask(env, "8001 00000016 0000017a 00000006 00000200 00000001");
    assert_eq!(&answer[12..20], "00000000", "{answer}");
    assert_eq!(&answer[38..46], "00000200", "{answer}");
    u32::from_str_radix(&answer[46..54], 16).expect("a number") & 1 == 1
}

/// The process that is the guest's swtpm.
fn swtpm(env: &TestEnv) -> Vec<i32> {
    let is = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "swtpm")
    };
    env.processes().into_iter().filter(is).collect()
}

fn world() -> Option<TestEnv> {
    if !has_program("swtpm") {
        return None;
    }
    let env = TestEnv::with_demo()?;
    env.write(
        "config/machines/demo.toml",
        "extends = [\"demo\"]\n[tpm]\nemulator = {}\n",
    );
    Some(env)
}

#[test]
fn a_tpm_keeps_what_it_holds_and_outlives_its_supervisor() {
    let Some(env) = world() else { return };
    env.mvm("start demo").exits(0);
    env.mvm("wait demo --for agent --timeout 120s").exits(0);
    // Random numbers, which are not all one.
    let random = ask(&env, "8001 0000000c 0000017b 0008");
    assert!(random.starts_with("800100000014000000000008"), "{random}");
    assert_ne!(random, ask(&env, "8001 0000000c 0000017b 0008"));
    assert!(!owned(&env));
    // The owner gets a password.
    let done = ask(
        &env,
        "8002 00000021 00000129 40000001 00000009 40000009 0000 00 0000 0004 74657374",
    );
    assert_eq!(&done[12..20], "00000000", "{done}");
    assert!(owned(&env));

    // The supervisor dies: QEMU goes on, and so does its TPM.
    let before = swtpm(&env);
    assert_eq!(before.len(), 1);
    let shown = env.mvm("show demo --format json").exits(0).json();
    let supervisor = shown["supervisor"].as_i64().expect("a process");
    kill(supervisor.try_into().expect("an id"), Signal::SIGKILL);
    eventually("it has no supervisor", Duration::from_secs(20), || {
        env.row("demo")["state"] != "running" || env.mvm("recover demo").code == 0
    });
    env.mvm("start demo").exits(0);
    assert_eq!(swtpm(&env), before);
    assert!(owned(&env));

    env.mvm("stop demo --timeout 60s").exits(0);
    eventually("swtpm is gone", Duration::from_secs(10), || {
        swtpm(&env).is_empty()
    });
    assert!(!env.path("run/demo").exists());

    // The next start finds what was there, and a TPM that is killed is told.
    env.mvm("start demo").exits(0);
    env.mvm("wait demo --for agent --timeout 120s").exits(0);
    assert!(owned(&env));
    kill(swtpm(&env)[0], Signal::SIGKILL);
    eventually("its end is told", Duration::from_secs(20), || {
        let shown = env.mvm("show demo --format json").exits(0).json();
        let message = shown["message"].as_str().unwrap_or_default().to_owned();
        message.starts_with("swtpm has ended (SIGKILL): the guest's TPM answers nothing")
    });
    assert_eq!(env.row("demo")["state"], "running");
    env.mvm("stop demo --timeout 60s").exits(0);
}

#[test]
fn a_tpm_that_does_not_start_leaves_nothing() {
    let Some(env) = world() else { return };
    let script = env.write(
        "bin/swtpm",
        "#!/bin/sh\necho no room for a TPM >&2\nexit 3\n",
    );
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let mut path = env.path("bin").into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut start = env.command(&["start", "demo"]);
    start.env("PATH", path);
    finish(start)
        .exits(1)
        .says("cannot start the guest's tpm")
        .says("`swtpm` failed (exit status 3): no room for a TPM");
    assert!(!env.path("run/demo").exists());
    assert!(swtpm(&env).is_empty());

    let shown = env.mvm("start demo --dry-run").exits(0).stdout;
    assert!(shown.contains("(cd "), "{shown}");
    assert!(shown.contains("type=unixio,path="), "{shown}");
}
