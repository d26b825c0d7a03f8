//! A real guest from its start to its end. One boot serves many checks: booting is what takes the time.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::env::{TestEnv, eventually, kill, ran};

#[test]
fn a_guest_is_started_driven_and_stopped() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    let started = env.mvm("start demo").exits(0);
    assert_eq!(started.stdout, "demo\n", "{}", started.stderr);
    let row = env.row("demo");
    assert_eq!(
        (&row["state"], &row["profile"]),
        (&"running".into(), &"demo".into())
    );
    let pid = row["pid"].as_i64().expect("a process");
    assert!(std::fs::read_link(format!("/proc/{pid}/exe")).is_ok());

    side_by_side(&env);
    env.mvm("wait demo --for agent --timeout 120s").exits(0);
    shown(&env);
    qmp(&env);
    pause_and_resume(&env);
    many_clients(&env);
    memory(&env);
    console_and_logs(&env);
    reboot_and_reset(&env);

    env.mvm("stop demo --timeout 60s").exits(0);
    assert!(env.row("demo").is_null());
    assert!(!env.path("run/demo").exists());
    let shown = env.mvm("show demo --format json").exits(0).json();
    assert_eq!(shown["ended"]["reason"], "guest-shutdown", "{shown}");
    assert_eq!(shown["state"], "stopped");
    env.mvm("stop demo").exits(5);
}

/// A second guest of the same profile has a name and addresses of its own.
fn side_by_side(env: &TestEnv) {
    env.mvm("start demo --name demo").exits(1).says("demo");
    let second = env.mvm("start demo --format json").exits(0).json();
    assert_eq!(second[0]["name"], "demo-2");
    let nics = |name: &str| {
        let shown = env
            .mvm(&format!("show {name} --format json"))
            .exits(0)
            .json();
        shown["devices"]["nics"][0]["mac"]
            .as_str()
            .expect("a MAC")
            .to_owned()
    };
    assert_ne!(nics("demo"), nics("demo-2"));
    let start = Instant::now();
    env.mvm("kill demo-2").exits(0);
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(env.row("demo-2").is_null());
    assert_eq!(env.row("demo")["state"], "running");
}

fn shown(env: &TestEnv) {
    let shown = env.mvm("show demo --format json").exits(0).json();
    for key in [
        "name", "state", "pid", "profile", "since", "sockets", "devices", "program", "args",
    ] {
        assert!(!shown[key].is_null(), "{key} in {shown}");
    }
    assert_eq!(shown["agent"], true);
    assert_eq!(shown["accel"]["chosen"], "tcg");
    let args = shown["args"].as_array().expect("an array");
    assert!(args.iter().any(|arg| arg == "-kernel"));
    let people = env.mvm("show demo").exits(0).stdout;
    assert!(
        people.contains("qmp.sock") && people.contains("-kernel"),
        "{people}"
    );
    // No JSON and no raw numbers of seconds above the command line.
    let (lines, _) = people.split_once("\n\n").expect("a command line below");
    assert!(!lines.contains('{') && lines.contains(" ago"), "{lines}");
    assert!(lines.contains("network lan  "), "{lines}");
}

fn qmp(env: &TestEnv) {
    let status = env.mvm("qmp demo query-status").exits(0).json();
    assert_eq!(status["status"], "running");
    let set = env
        .mvm("qmp demo set_link name=lan up=false")
        .exits(0)
        .json();
    assert_eq!(set, json!({}));
    env.run(&["qmp", "demo", "set_link", r#"{"name": "lan", "up": true}"#])
        .exits(0);
    env.mvm("qmp demo query-sttus")
        .exits(1)
        .says("did you mean `query-status`");
    env.mvm("qmp demo set_link name=nosuch up=true")
        .exits(1)
        .says("nosuch");
    let socket = env.mvm("qmp demo --socket").exits(0).stdout;
    assert_eq!(
        socket.trim_end(),
        env.path("run/demo/qmp.sock").to_str().expect("a path")
    );
}

fn pause_and_resume(env: &TestEnv) {
    let mut events = env
        .command(&["qmp", "demo", "--events"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("mvm starts");
    let mut lines = BufReader::new(events.stdout.take().expect("it was piped")).lines();
    // It listens once it is among the clients; until then events pass it by.
    std::thread::sleep(Duration::from_millis(500));
    env.mvm("pause demo").exits(0);
    assert_eq!(env.row("demo")["state"], "paused");
    assert_eq!(
        env.mvm("qmp demo query-status").exits(0).json()["status"],
        "paused"
    );
    env.mvm("wait demo --for paused --timeout 5s").exits(0);
    env.mvm("wait demo --for running --timeout 300ms").exits(1);
    env.mvm("resume --all").exits(0);
    assert_eq!(env.row("demo")["state"], "running");
    let mut seen = Vec::new();
    while !seen.contains(&"RESUME".to_owned()) {
        let line = lines.next().expect("more events").expect("text");
        let event: Value = serde_json::from_str(&line).expect("one JSON object a line");
        seen.push(event["event"].as_str().expect("a name").to_owned());
    }
    assert!(seen.contains(&"STOP".to_owned()), "{seen:?}");
    drop(lines);
    kill(events.id().try_into().expect("an id"), Signal::SIGTERM);
    events.wait().expect("it ends");
}

/// 20 clients at once, and one that never reads: none is harmed.
fn many_clients(env: &TestEnv) {
    let socket = env.path("run/demo/qmp.sock");
    let connect = || UnixStream::connect(&socket).expect("the socket takes clients");
    let mut deaf = connect();
    deaf.write_all(b"{\"execute\":\"qmp_capabilities\"}\n")
        .expect("it is taken");
    deaf.set_nonblocking(true).expect("a socket");
    // Answers that nobody reads.
    let flood = b"{\"execute\":\"query-commands\"}\n".repeat(200);
    let _ = deaf.write(&flood);
    let clients: Vec<_> = (0..20)
        .map(|number| {
            let stream = connect();
            std::thread::spawn(move || client(stream, number))
        })
        .collect();
    for client in clients {
        client.join().expect("a client was served");
    }
}

/// One plain QMP client: greeting, negotiation, and its own answers by its own ids.
fn client(stream: UnixStream, number: usize) {
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a socket");
    let mut writer = stream.try_clone().expect("a socket");
    let mut lines = BufReader::new(stream).lines();
    let mut next = || -> Value {
        let line = lines.next().expect("a line").expect("in time");
        serde_json::from_str(&line).expect("JSON")
    };
    assert!(next()["QMP"]["version"].is_object());
    writeln!(writer, "{}", json!({"execute": "qmp_capabilities"})).expect("it is taken");
    while next()["return"].is_null() {}
    for turn in 0..20 {
        let id = json!([number, turn]);
        writeln!(writer, "{}", json!({"execute": "query-name", "id": id})).expect("it is taken");
        let answer = std::iter::repeat_with(&mut next)
            .find(|message| message.get("event").is_none())
            .expect("an answer");
        assert_eq!(answer["id"], id, "{answer}");
        assert_eq!(answer["return"]["name"], "demo");
    }
}

/// The balloon, as QEMU counts it and as the guest sees it.
fn memory(env: &TestEnv) {
    assert_eq!(env.mvm("memory demo").exits(0).stdout, "512M\n");
    let total = || -> u64 {
        let text = env.type_in("demo", "grep MemTotal /proc/meminfo");
        let line = text.lines().find(|line| line.starts_with("MemTotal:"));
        let word = line.and_then(|line| line.split_whitespace().nth(1));
        word.and_then(|word| word.parse().ok())
            .unwrap_or_else(|| panic!("{text}"))
    };
    let before = total();
    let now = env
        .mvm("memory demo 256M --format json --timeout 60s")
        .exits(0)
        .json();
    assert_eq!(now["actual"], 256 << 20);
    assert!(before - total() > 240 << 10, "{before} {}", total());
    env.mvm("memory demo 512M --timeout 60s").exits(0);
    assert!(total() > before - (8 << 10));
    env.mvm("memory demo 2G")
        .exits(2)
        .says("was started with 512M");
}

fn console_and_logs(env: &TestEnv) {
    let said = env.type_in("demo", "echo $((6 * 7)); cat /proc/uptime");
    assert!(said.contains("42"), "{said}");
    let log = env.mvm("log demo --console").exits(0).stdout;
    assert!(log.contains("mvm-guest") || log.contains("guest#"), "{log}");
    env.mvm("log demo --qemu").exits(0);
    let log = env.mvm("log demo").exits(0).stdout;
    assert!(
        log.contains("demo is paused") && log.contains("demo is running"),
        "{log}"
    );
    let late = env.mvm("console demo --until never-said --timeout 300ms");
    late.exits(1).says("did not print");
    env.mvm("console demo nosuch")
        .exits(1)
        .says("its consoles are `main`");
}

fn reboot_and_reset(env: &TestEnv) {
    let boot = || {
        let text = env.type_in("demo", "cat /proc/sys/kernel/random/boot_id");
        let mut lines = text.lines().map(str::trim);
        let id = lines.find(|line| line.len() == 36 && line.matches('-').count() == 4);
        id.unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    let pid = env.row("demo")["pid"].clone();
    for verb in ["reset demo", "reboot demo --timeout 90s"] {
        let before = boot();
        env.mvm(verb).exits(0);
        env.mvm("wait demo --for agent --timeout 120s").exits(0);
        assert_ne!(boot(), before, "{verb}");
        assert_eq!(env.row("demo")["pid"], pid, "{verb}");
    }
}

/// `mvm run` with no terminal: the console's output on stdout, a graceful stop by SIGTERM, exit code 0.
#[test]
fn run_streams_the_console_and_stops_by_sigterm() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    let child = env
        .command(&["run", "demo"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mvm starts");
    let id = i32::try_from(child.id()).expect("an id");
    eventually("the guest runs", Duration::from_secs(60), || {
        env.row("demo")["state"] == "running"
    });
    env.mvm("wait demo --for agent --timeout 120s").exits(0);
    kill(id, Signal::SIGTERM);
    let ran = ran(child.wait_with_output().expect("it ends")).exits(0);
    assert!(ran.stdout.contains("guest: ready"), "{}", ran.stdout);
    assert!(!env.path("run/demo").exists());
}

/// A QEMU that dies is a failure that says so.
#[test]
fn a_crash_of_qemu_is_exit_1() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    let mut child = env
        .command(&["run", "demo", "--no-console"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mvm starts");
    let mut pid = 0;
    eventually("the guest runs", Duration::from_secs(60), || {
        let row = env.row("demo");
        pid = row["pid"].as_i64().unwrap_or_default();
        row["state"] == "running" && pid > 0
    });
    kill(pid.try_into().expect("an id"), Signal::SIGKILL);
    let mut said = String::new();
    let mut stderr = child.stderr.take().expect("it was piped");
    stderr.read_to_string(&mut said).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(1), "{said}");
    assert!(
        said.contains("error: demo") && said.contains("signal 9"),
        "{said}"
    );
    assert!(!env.path("run/demo").exists());
}
