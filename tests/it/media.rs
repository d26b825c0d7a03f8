//! Drives and the balloon of a guest that need not boot for it, and several guests at once.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::env::{TestEnv, eventually, finish, kill, ran};

#[test]
fn media_are_inserted_and_ejected() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    env.write(
        "config/profiles/cds.toml",
        "extends = ['demo']\n[disk.cd]\nempty = true\nmedia = 'cdrom'\n\
         [disk.hd]\nfile = { path = 'hd.raw' }\n\
         [boot]\nkernel = ''\ninitrd = ''\nappend = ''\n",
    );
    for name in ["hd.raw", "one.iso", "t,w \"o\".iso"] {
        fs::write(env.image(name), [0; 1 << 20]).expect("an image");
    }
    env.mvm("start cds").exits(0);
    let inserted = || {
        let blocks = env.mvm("qmp cds query-block").exits(0).json();
        let mut drives = blocks.as_array().expect("an array").iter();
        let drive = drives
            .find(|drive| drive["qdev"] == "cd")
            .expect("the drive");
        drive["inserted"]["file"].as_str().map(ToOwned::to_owned)
    };
    assert_eq!(inserted(), None);
    env.mvm("eject cds").exits(0);
    env.mvm("insert cds one.iso").exits(0);
    assert!(inserted().is_some_and(|file| file.ends_with("/one.iso")));
    env.run(&[
        "insert",
        "cds",
        "./state/images/t,w \"o\".iso",
        "--drive",
        "cd",
    ])
    .exits(0);
    assert!(inserted().is_some_and(|file| file.ends_with("/t,w \"o\".iso")));
    env.mvm("eject cds hd").exits(1).says("its drives are `cd`");
    env.mvm("insert cds nosuch.iso").exits(1).says("looked for");
    env.mvm("eject cds cd").exits(0);
    assert_eq!(inserted(), None);

    // A guest that finds nothing to boot has no driver for the balloon.
    env.mvm("memory cds 256M --timeout 500ms")
        .exits(1)
        .says("nothing in the guest");
    assert_eq!(env.mvm("memory cds").exits(0).stdout, "512M\n");
    env.mvm("pause cds").exits(0);
    env.mvm("memory cds 256M --timeout 500ms")
        .exits(1)
        .says("mvm resume cds");
    env.mvm("kill cds").exits(0);
}

#[test]
fn consoles_are_named_and_told_apart() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    env.write(
        "config/profiles/many.toml",
        "extends = ['demo']\n[console.extra]\ndevice = 'virtio'\nbackend = 'pty'\n\
         [console.more]\ndevice = 'virtio'\n",
    );
    env.mvm("start many").exits(0);
    let shown = env.mvm("show many --format json").exits(0).json();
    let pty = shown["sockets"]["console-extra"].as_str().expect("a path");
    assert!(pty.starts_with("/dev/pts/"), "{pty}");
    env.mvm("console many extra").exits(1).says(pty);
    env.mvm("console many nosuch")
        .exits(1)
        .says("its consoles are `main`, `more`");
    env.mvm("console many more --timeout 100ms").exits(0);
    env.mvm("kill many").exits(0);
    env.mvm("wait many --for stopped --timeout 1s").exits(0);
    env.mvm("remove many --yes").exits(0);
    assert!(!env.path("state/many").exists());
}

#[test]
fn several_guests_at_once() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    // QEMU is asked once what it can do, and the rest is a race.
    env.mvm("run demo --dry-run").exits(0);
    let racers: Vec<_> = (0..3)
        .map(|_| {
            let mut command = env.command(&["start", "demo"]);
            command.stdout(Stdio::piped());
            command.spawn().expect("mvm starts")
        })
        .collect();
    let mut names: Vec<String> = racers
        .into_iter()
        .map(|racer| {
            let output = racer.wait_with_output().expect("it ends");
            assert!(output.status.success());
            String::from_utf8(output.stdout).expect("text")
        })
        .collect();
    names.sort();
    assert_eq!(names, ["demo\n", "demo-2\n", "demo-3\n"]);

    env.mvm("create one --profile demo").exits(0);
    env.mvm("create two --profile demo").exits(0);
    env.mvm("start one").exits(0);
    env.mvm("start one").exits(0).says("one runs already");
    assert_eq!(env.mvm("start --all").exits(0).stdout, "two\n");
    env.mvm("pause one demo-2").exits(0);
    assert_eq!(env.row("demo-2")["state"], "paused");
    env.mvm("kill one nobody two").exits(5).says("nobody");
    assert!(env.row("one").is_null() && env.row("two").is_null());
    let list = env.mvm("list --all").exits(0).stdout;
    assert_eq!(list.lines().count(), 6, "{list}");
    env.mvm("kill --all").exits(0);
    assert_eq!(
        env.mvm("list --format json").exits(0).json(),
        serde_json::json!([])
    );
}

/// The directories may be named relative to where mvm was started, and be so deep that a socket's path
/// does not fit its address.
#[test]
fn directories_may_be_relative_and_deep() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    let deep = format!("run/{}/{}", "d".repeat(100), "e".repeat(100));
    let mvm = |line: &str| {
        let mut command: Command = env.command(&line.split(' ').collect::<Vec<_>>());
        command.env("MVM_RUNTIME_DIR", &deep);
        command.env("MVM_STATE_DIR", "state");
        finish(command)
    };
    mvm("start demo").exits(0);
    assert_eq!(
        mvm("qmp demo query-status").exits(0).json()["status"],
        "running"
    );
    mvm("console demo --timeout 200ms").exits(0);
    mvm("kill demo").exits(0);
}

#[test]
fn a_log_is_followed_to_the_guests_end() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    env.mvm("start demo").exits(0);
    let mut follow = env
        .command(&["log", "demo", "--console", "-f"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("mvm starts");
    env.mvm("wait demo --for agent --timeout 120s").exits(0);
    env.mvm("stop demo --timeout 60s").exits(0);
    let status = follow.wait().expect("it ends");
    let mut said = String::new();
    let mut stdout = follow.stdout.take().expect("it was piped");
    std::io::Read::read_to_string(&mut stdout, &mut said).expect("text");
    assert!(status.success() && said.contains("guest: ready"), "{said}");
    assert!(
        said.contains("going down") || said.contains("Power down"),
        "{said}"
    );
    let last = env.mvm("log demo --console -n 1").exits(0).stdout;
    assert_eq!(last.trim_end().lines().count(), 1, "{last}");
}

/// A full disk under stdout is an error, unlike a reader that went away.
#[test]
fn output_that_cannot_be_written_is_an_error() {
    let env = TestEnv::new();
    let mut full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full");
    assert!(full.write_all(b"x").and_then(|()| full.flush()).is_err());
    let output = env
        .command(&["profile", "list"])
        .stdout(full)
        .output()
        .expect("mvm starts");
    let ran = crate::env::ran(output).exits(1);
    assert!(ran.stderr.contains("standard output"), "{}", ran.stderr);
}

/// Ctrl-C while a guest is being started takes the start back.
#[test]
fn an_interrupted_start_leaves_nothing() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    let slow = env.write("slow-qemu", "#!/bin/sh\nexec sleep 60\n");
    fs::set_permissions(&slow, fs::Permissions::from_mode(0o755)).expect("a program");
    let before = env.tree();
    let mut command = env.command(&["start", "demo"]);
    let child = command
        .env("MVM_QEMU_X86_64", &slow)
        .stderr(Stdio::piped())
        .spawn()
        .expect("mvm starts");
    std::thread::sleep(Duration::from_millis(700));
    kill(child.id().try_into().expect("an id"), Signal::SIGINT);
    let start = Instant::now();
    let ran = ran(child.wait_with_output().expect("it ends"))
        .exits(1)
        .says("interrupted");
    assert!(start.elapsed() < Duration::from_secs(10), "{}", ran.stderr);
    eventually("nothing runs", Duration::from_secs(15), || {
        env.processes().is_empty()
    });
    assert_eq!(env.tree(), before);
}
