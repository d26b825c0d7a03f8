//! What two guests cannot both have is refused before anything is touched, and QEMU's own refusals are
//! explained.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::env::{TestEnv, eventually, has_program};

#[test]
fn what_two_guests_want_is_refused_to_the_second() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    fs::write(env.image("one.raw"), [0; 1 << 20]).expect("an image");
    fs::hard_link(env.image("one.raw"), env.image("same.raw")).expect("a second name");
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        free.local_addr().expect("an address").port()
    };
    let first = format!(
        "start demo --name first --disk one.raw --set network.lan.mac=52:54:00:00:00:01 \
         --set network.lan.user.forward=[\"{port}:22\"]"
    );
    env.mvm(&first).exits(0);
    let before = env.tree();
    for (flags, words) in [
        ("--disk one.raw".to_owned(), "one.raw"),
        ("--disk same.raw".to_owned(), "same.raw"),
        (
            "--set network.lan.mac=52:54:00:00:00:01".to_owned(),
            "52:54:00:00:00:01",
        ),
        (
            format!("--set network.lan.user.forward=[\"{port}:80\"]"),
            "TCP port",
        ),
    ] {
        let line = format!("start demo --name second {flags}");
        let ran = env.mvm(&line).exits(1).says(words).says("first");
        assert!(ran.stdout.is_empty(), "{flags}");
        let line = format!("run demo --name second --dry-run {flags}");
        env.mvm(&line).exits(0).says("it would be refused now");
    }
    let mut after = env.tree();
    // A start is begun under a lock, which is in the folder of all guests.
    let both = [env.path("run"), env.path("run/.starting")];
    after.retain(|path, _| !both.contains(path));
    let mut before = before;
    before.retain(|path, _| !both.contains(path));
    // What the running guest writes meanwhile is its own.
    let own = |path: &std::path::PathBuf| {
        path.starts_with(env.path("run/first")) || path.starts_with(env.path("state/first"))
    };
    before.retain(|path, _| !own(path));
    after.retain(|path, _| !own(path));
    assert_eq!(after, before);

    // Readers and throw-away overlays share an image.
    let line = "start demo --name third --disk one.raw --set disk.system.read-only=true";
    env.mvm(line).exits(1);
    env.mvm("kill first").exits(0);
    env.mvm(line).exits(0);
    env.mvm("start demo --name fourth --disk one.raw --set disk.system.read-only=true")
        .exits(0);
    env.mvm("kill --all").exits(0);
}

/// An image that a program other than mvm's guests has open.
#[test]
fn a_locked_image_is_explained() {
    if !has_program("qemu-io") {
        return;
    }
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    env.mvm("disk create locked.qcow2 --size 1M").exits(0);
    let mut holder = Command::new("qemu-io")
        .arg(env.image("locked.qcow2"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("qemu-io starts");
    eventually("qemu-io has it open", Duration::from_secs(10), || {
        env.mvm("disk resize locked.qcow2 +1M").code != 0
    });
    env.mvm("disk resize locked.qcow2 +1M")
        .exits(1)
        .says("another process has the image open");
    let ran = env
        .mvm("start demo --disk locked.qcow2")
        .exits(1)
        .says("locked.qcow2");
    assert!(ran.stderr.contains("hint: "), "{}", ran.stderr);
    assert!(!ran.stderr.contains("exited with code"), "{}", ran.stderr);
    assert!(!env.path("run/demo").exists());
    drop(holder.stdin.take());
    holder.wait().expect("it ends at the end of its input");
    env.mvm("start demo --disk locked.qcow2").exits(0);
    env.mvm("kill demo").exits(0);
}

#[test]
fn displays_have_ports_of_their_own() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    env.write(
        "config/profiles/seen.toml",
        "extends = ['demo']\n[display]\ntype = 'spice'\n[video.v]\nmodel = 'std'\n\
         [boot]\nkernel = ''\ninitrd = ''\nappend = ''\n",
    );
    let names = ["a", "b", "c"];
    let starts = names.map(|name| {
        let mut command = env.command(&["start", "seen", "--name", name]);
        command.spawn().expect("mvm starts")
    });
    for mut start in starts {
        assert!(start.wait().expect("it ends").success());
    }
    let mut uris = names.map(|name| env.mvm(&format!("display {name}")).exits(0).stdout);
    uris.sort();
    assert!(uris[0] != uris[1] && uris[1] != uris[2], "{uris:?}");
    let (_, port) = uris[0].trim().rsplit_once(':').expect("a port");
    env.run(&[
        "start",
        "seen",
        "--name",
        "d",
        "--set",
        &format!("display.spice.port={port}"),
    ])
    .exits(1)
    .says(&format!("the TCP port 127.0.0.1:{port} is guest `"))
    .says("SPICE");
    for name in names {
        env.mvm(&format!("kill {name}")).exits(0);
    }
}
