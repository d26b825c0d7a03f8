//! What comes at a bad moment: a signal in the middle of a start, a start in the middle of a removal.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::pty::openpty;
use nix::sys::signal::Signal;

use crate::env::{TestEnv, eventually, has_program, kill, ran};

/// A guest that gets no further than its BIOS.
const BARE: &str = "[machine]\narch = \"x86_64\"\ntype = \"pc\"\naccel = \"tcg\"\n[memory]\nsize = \"64M\"\n[console.main]\n";

/// The program's path.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// A QEMU beside a `qemu-img` that takes its time.
fn slow_qemu(env: &TestEnv, qemu: &Path, img: &Path) -> PathBuf {
    let script = format!("#!/bin/sh\nsleep 2\nexec {} \"$@\"\n", img.display());
    let slow = env.write("slow/qemu-img", script);
    fs::set_permissions(&slow, fs::Permissions::from_mode(0o755)).expect("our own file");
    let beside = env.path("slow/qemu-system-x86_64");
    symlink(qemu, &beside).expect("a link");
    beside
}

#[test]
fn sigterm_in_the_middle_of_a_start_leaves_nothing() {
    if !has_program("qemu-system-x86_64") || !has_program("qemu-img") {
        return;
    }
    let (Some(qemu), Some(img)) = (program("qemu-system-x86_64"), program("qemu-img")) else {
        return;
    };
    let env = TestEnv::new();
    fs::write(env.image("base.raw"), vec![0; 1 << 20]).expect("an image");
    let slow = slow_qemu(&env, &qemu, &img);
    let text = format!(
        "{BARE}[disk.system]\nfile = {{ path = \"base.raw\" }}\nephemeral = true\n[qemu]\nbinary = \"{}\"\n",
        slow.display()
    );
    env.write("config/machines/g.toml", text);
    let child = env
        .command(&["run", "g", "--no-console"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mvm starts");
    let journal = env.path("run/g/journal.jsonl");
    eventually("it has begun", Duration::from_secs(20), || journal.exists());
    kill(i32::try_from(child.id()).expect("an id"), Signal::SIGTERM);
    let ran = ran(child.wait_with_output().expect("it ends"));
    assert!(!env.path("run/g").exists(), "{}", ran.stderr);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

/// The question whether to remove it is open for as long as its user likes.
#[test]
fn a_guest_that_was_started_meanwhile_is_not_removed() {
    if !has_program("qemu-system-x86_64") {
        return;
    }
    let env = TestEnv::new();
    let file = env.write("config/machines/g.toml", BARE);
    let pty = openpty(None, None).expect("a pseudo-terminal");
    let end = |file: &OwnedFd| Stdio::from(file.try_clone().expect("a descriptor"));
    let remove = env
        .command(&["remove", "g"])
        .stdin(end(&pty.slave))
        .stdout(Stdio::piped())
        .stderr(end(&pty.slave))
        .spawn()
        .expect("mvm starts");
    let mut terminal = File::from(pty.master);
    let mut said = String::new();
    while !said.contains("[y/N]") {
        let mut bytes = [0; 256];
        let got = terminal.read(&mut bytes).expect("a question");
        said.push_str(&String::from_utf8_lossy(&bytes[..got]));
    }
    env.mvm("start g").exits(0);
    terminal.write_all(b"y\n").expect("an answer");
    ran(remove.wait_with_output().expect("it ends")).exits(1);
    assert!(file.exists());
    assert!(env.path("state/g/log").exists());
    env.mvm("kill g").exits(0);
    env.mvm("remove g --yes").exits(0);
    assert!(!file.exists() && !env.path("state/g").exists() && !env.path("run/g").exists());
}
