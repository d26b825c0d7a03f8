//! `mvm unit` on trees of files, and guests that start and stop with their host.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::env::{TestEnv, eventually, kill};

/// A host with those files, below the folder `root`.
fn host(env: &TestEnv, files: &[&str]) -> String {
    for file in files {
        env.write(format!("root/{file}"), "");
    }
    env.path("root").display().to_string()
}

fn guest(env: &TestEnv, name: &str, more: &str) {
    env.write(
        format!("config/machines/{name}.toml"),
        format!("extends = [\"demo\"]\n[network.lan]\nnone = {{}}\n{more}"),
    );
}

#[test]
fn a_unit_is_shown_installed_and_taken_away() {
    let env = TestEnv::new();
    guest(&env, "web", "[lifecycle]\nstop-timeout = \"10s\"\n");
    let root = host(
        &env,
        &["run/systemd/system/x", "etc/systemd/system/other.service"],
    );
    let line = |rest: &str| format!("unit web --root {root} {rest}");
    let before = env.tree();
    let shown = env.mvm(&line("")).exits(0).stdout;
    let config = env.path("config").display().to_string();
    for part in [
        // Root's are the system's.
        "systemd/",
        "mvm@web.service",
        "Type=notify",
        "KillMode=process",
        "TimeoutStopSec=100\n",
        &format!("Environment=MVM_CONFIG_DIR={config}\n"),
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(!shown.contains("LimitMEMLOCK"), "{shown}");
    let json = env.mvm(&line("--format json")).exits(0).json();
    assert_eq!(json["init"], "systemd");
    assert!(
        json["files"][0]["text"]
            .as_str()
            .expect("a text")
            .contains("[Service]")
    );
    assert_eq!(env.tree(), before, "a look touches nothing");
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    env.mvm(&line("--install")).exits(0).says("written: ");
    let unit = env.path("root/etc/systemd/system/mvm@web.service");
    assert_eq!(
        fs::read_to_string(&unit).expect("it is there"),
        shown.split_once('\n').expect("a head").1
    );
    env.mvm(&line("--install"))
        .exits(0)
        .says("nothing is to be written");
    env.mvm(&line("--remove")).exits(0).says("removed: ");
    assert!(!unit.exists());
    assert!(env.path("root/etc/systemd/system/other.service").exists());
    env.mvm(&line("--remove"))
        .exits(0)
        .says("nothing is to be removed");
    env.write("root/etc/systemd/system/mvm@web.service", "[Service]\n");
    env.mvm(&line("--install")).exits(1).says("--force");
    env.mvm(&line("--install --force")).exits(0);
}

/// What runs around the host's sleep, by what the host has.
#[test]
fn what_runs_around_the_host_s_sleep_is_installed_and_taken_away() {
    let env = TestEnv::new();
    let asked = |root: &str, rest: &str| env.mvm(&format!("unit --sleep --root {root} {rest}"));
    if !nix::unistd::Uid::effective().is_root() {
        let root = host(&env, &["run/systemd/system/x"]);
        asked(&root, "").exits(4).says("as root");
        return;
    }
    let installed = |kind: &str, files: &[&str], wanted: &[&str], not: &[&str]| {
        let files: Vec<String> = files.iter().map(|file| format!("{kind}/{file}")).collect();
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let root = format!("{}/{kind}", host(&env, &files));
        let before = env.tree();
        asked(&root, "").exits(0);
        assert_eq!(env.tree(), before, "a look touches nothing");
        asked(&root, "--install").exits(0).says("written: ");
        for file in wanted {
            assert!(env.path(format!("root/{kind}/{file}")).exists(), "{file}");
        }
        for file in not {
            assert!(!env.path(format!("root/{kind}/{file}")).exists(), "{file}");
        }
        asked(&root, "--install")
            .exits(0)
            .says("nothing is to be written");
        asked(&root, "--remove").exits(0).says("removed: ");
        for file in wanted {
            let path = env.path(format!("root/{kind}/{file}"));
            assert!(path.symlink_metadata().is_err(), "{file}");
        }
    };
    let suspend = "etc/systemd/system/systemd-suspend.service.requires/mvm-sleep@suspend.service";
    installed(
        "systemd",
        &["run/systemd/system/x"],
        &["etc/systemd/system/mvm-sleep@.service", suspend],
        &["usr/sbin/mvm-host-sleep"],
    );
    installed(
        "elogind",
        &[
            "run/openrc/softlevel",
            "etc/elogind/logind.conf",
            "etc/acpi/events/power",
        ],
        &["etc/elogind/system-sleep/mvm"],
        &["usr/sbin/mvm-host-sleep", "etc/acpi/events/mvm-sleep"],
    );
    installed(
        "acpid",
        &["run/openrc/softlevel", "etc/acpi/events/power"],
        &["usr/sbin/mvm-host-sleep", "etc/acpi/events/mvm-sleep"],
        &["etc/elogind/system-sleep/mvm"],
    );
    env.mvm("unit web --sleep").exits(2);
    env.mvm("unit --sleep --user").exits(2);
}

/// The program that puts a host to sleep whose init has no words for it: the guests first, and not where one
/// keeps the host awake.
#[test]
fn a_plain_host_sleeps_after_its_guests() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let env = TestEnv::new();
    let root = host(&env, &["run/openrc/softlevel"]);
    env.mvm(&format!("unit --sleep --root {root} --install"))
        .exits(0);
    let script = fs::read_to_string(env.path("root/usr/sbin/mvm-host-sleep")).expect("a script");
    // In the place of the kernel's and of mvm: both write down what they are told.
    let said = env.path("said");
    let mvm = env.path("mvm");
    let state = format!(">>{}", said.display());
    let program = env!("CARGO_BIN_EXE_mvm").to_owned();
    assert!(
        script.contains(&program) && script.contains(">/sys/power/state"),
        "{script}"
    );
    let script = script
        .replace(">/sys/power/state", &state)
        .replace(&program, &mvm.display().to_string());
    env.write("sleep.sh", &script);
    let run = |pre: i32, how: &str| {
        let text = format!(
            "#!/bin/sh\necho \"$*\" >>{}\n[ $2 = pre ] && exit {pre}\nexit 0\n",
            said.display()
        );
        env.write("mvm", text);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&mvm, mode).expect("it is ours");
        let _ = fs::remove_file(&said);
        let mut sh = std::process::Command::new("sh");
        sh.arg(env.path("sleep.sh")).args(how.split_whitespace());
        let code = sh.status().expect("a shell").code();
        (code, fs::read_to_string(&said).unwrap_or_default())
    };
    let told = |words: &str| words.replace(", ", "\n") + "\n";
    assert_eq!(
        run(0, ""),
        (Some(0), told("sleep pre suspend, mem, sleep post"))
    );
    assert_eq!(
        run(0, "hibernate"),
        (Some(0), told("sleep pre hibernate, disk, sleep post"))
    );
    assert_eq!(run(1, "suspend"), (Some(1), told("sleep pre suspend")));
    assert_eq!(run(0, "doze"), (Some(2), String::new()));
}

#[test]
fn what_cannot_be_is_said() {
    let env = TestEnv::new();
    guest(&env, "web", "");
    fs::create_dir_all(env.path("root")).expect("a folder");
    let root = env.path("root").display().to_string();
    env.mvm(&format!("unit web --root {root}"))
        .exits(4)
        .says("--init");
    env.mvm("unit web --init initng")
        .exits(2)
        .says("systemd, openrc");
    env.mvm(&format!("unit nosuch --root {root} --init runit"))
        .exits(3)
        .says("nosuch");
    env.mvm(&format!("unit web --root {root} --init runit --user"))
        .exits(4)
        .says("ordinary users");
    env.mvm("unit").exits(2).says("NAME");
    env.mvm("unit web --autostart").exits(2);
}

#[test]
fn devices_that_write_to_memory_lift_its_limit() {
    let env = TestEnv::new();
    guest(&env, "web", "[pci.nic]\naddress = \"0000:01:00.0\"\n");
    let root = host(&env, &["run/systemd/system/x"]);
    let shown = env.mvm(&format!("unit web --root {root}")).exits(0).stdout;
    assert!(shown.contains("LimitMEMLOCK=infinity\n"), "{shown}");
}

#[test]
fn guests_start_in_order_and_stop_the_other_way() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    guest(
        &env,
        "late",
        "[autostart]\norder = 200\ndelay = \"1500ms\"\n",
    );
    guest(&env, "early", "[autostart]\norder = 10\n");
    guest(&env, "off", "[autostart]\nenabled = false\n");
    guest(&env, "plain", "");
    env.write("config/machines/broken.toml", "[autostart]\norder = -1\n");
    let rows = env
        .mvm("autostart --dry-run --format json")
        .exits(3)
        .says("broken.toml")
        .json();
    let names: Vec<_> = rows
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| &row["name"])
        .collect();
    assert_eq!(names, ["early", "late"]);
    // The broken one is told, and keeps no other.
    let started = env.mvm("autostart").exits(3).stdout;
    assert_eq!(started, "early\nlate\n");
    assert!(env.row("off").is_null() && env.row("plain").is_null());
    let since = |name: &str| {
        env.mvm(&format!("show {name} --format json"))
            .exits(0)
            .json()["since"]
            .as_u64()
    };
    assert!(since("early") < since("late"));
    env.mvm("autostart").exits(3);
    fs::remove_file(env.path("config/machines/broken.toml")).expect("it is there");
    env.mvm("autostart").exits(0);

    for name in ["early", "late"] {
        env.mvm(&format!("wait {name} --for agent --timeout 120s"))
            .exits(0);
    }
    // One without supervisor is stopped in its turn.
    let shown = env.mvm("show early --format json").exits(0).json();
    let supervisor = shown["supervisor"].as_i64().expect("a process");
    kill(i32::try_from(supervisor).expect("an id"), Signal::SIGKILL);
    eventually("it is unsupervised", Duration::from_secs(10), || {
        env.row("early")["state"] == "unsupervised"
    });
    let stopped = env.mvm("stop --all --within 100s").exits(0);
    let at = |text: &str| stopped.stderr.find(text);
    if at("stopping").is_some() {
        assert!(
            at("stopping late") < at("stopping early"),
            "{}",
            stopped.stderr
        );
    }
    for name in ["early", "late"] {
        let shown = env
            .mvm(&format!("show {name} --format json"))
            .exits(0)
            .json();
        assert_eq!(shown["ended"]["reason"], "guest-shutdown", "{shown}");
    }
    let ended =
        |name: &str| env.mvm(&format!("show {name} --format json")).json()["ended"]["at"].as_u64();
    assert!(ended("late") <= ended("early"));
    env.mvm("stop --all --within 5s").exits(0);
}

/// What the unit of systemd runs: the next start after a supervisor's death goes on with the guest.
#[test]
fn a_unit_that_is_started_anew_adopts() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    let socket = env.path("notify");
    let told = UnixDatagram::bind(&socket).expect("a socket");
    told.set_read_timeout(Some(Duration::from_secs(100)))
        .expect("a deadline");
    let ready = || {
        let mut buffer = [0; 512];
        loop {
            let length = told.recv(&mut buffer).expect("it is told in time");
            if String::from_utf8_lossy(&buffer[..length]).contains("READY=1") {
                return;
            }
        }
    };
    let unit = || {
        let words = [
            "run",
            "demo",
            "--name",
            "web",
            "--no-console",
            "--unit",
            "systemd",
        ];
        let mut command = env.command(&words);
        command.env("NOTIFY_SOCKET", &socket);
        command.spawn().expect("mvm starts")
    };
    let mut first = unit();
    ready();
    env.mvm("wait web --for agent --timeout 120s").exits(0);
    let boot = env.type_in("web", "cat /proc/sys/kernel/random/boot_id");
    let pid = env.row("web")["pid"].clone();
    first.kill().expect("it runs");
    first.wait().expect("it ends");
    // As `ExecStopPost` does it.
    env.mvm("recover web --no-adopt").exits(0);
    assert_eq!(env.row("web")["state"], "unsupervised");
    let mut second = unit();
    ready();
    assert_eq!(env.row("web")["pid"], pid);
    let again = env.type_in("web", "cat /proc/sys/kernel/random/boot_id");
    let id = |text: &str| {
        text.split_whitespace()
            .find(|word| word.len() == 36)
            .map(str::to_owned)
    };
    assert_eq!(id(&boot), id(&again));
    kill(i32::try_from(second.id()).expect("an id"), Signal::SIGTERM);
    assert!(second.wait().expect("it ends").success());
    assert!(!env.path("run/web").exists());
    env.mvm("recover web --no-adopt").exits(0);
}

/// busybox init starts a line anew at once: what has a guest that is to stay stopped waits for its signal.
#[test]
fn a_unit_of_busybox_stays_until_it_is_told() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    let words = [
        "run",
        "demo",
        "--name",
        "web",
        "--no-console",
        "--unit",
        "busybox",
    ];
    let mut unit = env.command(&words).spawn().expect("mvm starts");
    eventually("the guest runs", Duration::from_secs(60), || {
        env.row("web")["state"] == "running"
    });
    env.mvm("kill web").exits(0);
    assert!(env.row("web").is_null());
    std::thread::sleep(Duration::from_secs(1));
    assert!(unit.try_wait().expect("it is ours").is_none(), "it stays");
    kill(i32::try_from(unit.id()).expect("an id"), Signal::SIGTERM);
    eventually("it ends", Duration::from_secs(20), || {
        unit.try_wait().expect("it is ours").is_some()
    });
}
