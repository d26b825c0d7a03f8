//! A mvm that runs as root gives its QEMU less: the rights of another user.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::env::{TestEnv, eventually, finish, kill};

const NOBODY: u32 = 65534;

fn is_root() -> bool {
    let root = fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0);
    if !root {
        eprintln!("skipped: only root can run QEMU as another user");
    }
    root
}

/// Whether everybody may run the QEMU of these tests: one that was unpacked into root's home is root's alone.
fn qemu_is_for_all() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|folder| folder.join("qemu-system-x86_64"));
    let given = std::env::var_os("MVM_QEMU_X86_64").map(PathBuf::from);
    let mut files = given.into_iter().chain(in_path);
    let qemu = files.find_map(|file| fs::canonicalize(file).ok());
    let open = |folder: &Path| fs::metadata(folder).is_ok_and(|meta| meta.mode() & 0o001 != 0);
    let all = qemu.is_some_and(|qemu| qemu.ancestors().all(open));
    if !all {
        eprintln!("skipped: QEMU lies in a folder that other users may not enter");
    }
    all
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
}

/// The demo guest with files that are really there, two disks, and a user.
fn world() -> Option<TestEnv> {
    let linked = TestEnv::with_demo()?;
    let env = TestEnv::new();
    for name in ["kernel", "initrd"] {
        let to = env.image(format!("demo/{name}"));
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        fs::copy(linked.image(format!("demo/{name}")), &to).expect("a copy");
        mode(&to, 0o644);
    }
    for (name, more) in [
        ("base", None),
        ("disk", Some("base.qcow2")),
        ("scratch", None),
    ] {
        let mut make = Command::new("qemu-img");
        make.args(["create", "-q", "-f", "qcow2"]);
        if let Some(below) = more {
            make.args(["-F", "qcow2", "-b", below]);
        }
        let path = env.image(format!("{name}.qcow2"));
        let done = make.arg(&path).arg("4M").status().expect("qemu-img runs");
        assert!(done.success());
        mode(&path, 0o600);
    }
    env.write(
        "config/machines/demo.toml",
        r#"extends = ["demo"]
[security]
user = "nobody"
[disk.data]
file = { path = "disk.qcow2" }
[disk.scratch]
file = { path = "scratch.qcow2" }
ephemeral = true
[disk.cd]
media = "cdrom"
empty = true
"#,
    );
    Some(env)
}

fn pid(env: &TestEnv, key: &str) -> i32 {
    let shown = env.mvm("show demo --format json").exits(0).json();
    let pid = shown[key].as_i64().expect("a process");
    pid.try_into().expect("an id")
}

fn status(pid: i32, key: &str) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let numbers = line.expect("the kernel tells it").split_whitespace();
    numbers
        .map(|number| number.parse().expect("a number"))
        .collect()
}

#[test]
fn qemu_runs_as_another_user_and_what_it_may_not_open_is_told_first() {
    if !is_root() || !qemu_is_for_all() {
        return;
    }
    let Some(env) = world() else {
        return;
    };
    // Files of root's, in a folder of root's.
    mode(&env.path(""), 0o700);
    let refused = |text: &str, fix: &str| {
        let before = env.tree();
        env.mvm("start demo").exits(4).says(text).says(fix);
        env.mvm("start demo --dry-run").exits(4).says(text);
        assert_eq!(env.tree(), before, "{text}");
    };
    let (disk, base) = (env.image("disk.qcow2"), env.image("base.qcow2"));
    refused(
        "the user `nobody`, as whom QEMU is to run, may not search the directory",
        &format!("`chmod o+x {}`", env.path("").display()).replace("/`", "`"),
    );
    mode(&env.path(""), 0o711);
    for folder in ["state", "state/images", "state/images/demo"] {
        mode(&env.path(folder), 0o711);
    }
    refused(
        &format!("may not write {} (disk `data`)", disk.display()),
        &format!("`chown nobody {}`", disk.display()),
    );
    mode(&env.image("scratch.qcow2"), 0o644);
    chown(&disk, Some(NOBODY), None).expect("we are root");
    refused(
        &format!("may not read {} (below disk `data`)", base.display()),
        &format!("`chmod o+r {}`", base.display()),
    );
    mode(&base, 0o644);

    let shown = env.mvm("start demo --dry-run").exits(0).stdout;
    assert!(
        shown.contains("setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs"),
        "{shown}"
    );
    env.mvm("start demo").exits(0);
    env.mvm("wait demo --for agent --timeout 120s").exits(0);
    let qemu = pid(&env, "pid");
    assert_eq!(status(qemu, "Uid:"), [NOBODY; 4]);
    assert_eq!(status(qemu, "Gid:"), [NOBODY; 4]);
    assert!(status(qemu, "Groups:").is_empty());
    assert_eq!(status(qemu, "NoNewPrivs:"), [1]);
    assert_eq!(status(qemu, "CapEff:"), [0]);
    assert_eq!(status(pid(&env, "supervisor"), "Uid:"), [0; 4]);

    // What decides who controls the guest is not the user's to change.
    let run = env.path("run/demo");
    let theirs = |name: &str| fs::metadata(run.join(name)).expect("it is there").uid();
    assert_eq!(
        (theirs("events.log"), theirs("disk-scratch.overlay.qcow2")),
        (NOBODY, NOBODY)
    );
    assert_eq!((theirs("."), theirs("lock"), theirs("qmp.sock")), (0, 0, 0));
    assert_eq!(
        fs::metadata(&run).expect("it is there").mode() & 0o7777,
        0o710
    );

    // A medium and a disk that come later are looked at as well.
    let late = env.image("late.qcow2");
    fs::copy(env.image("scratch.qcow2"), &late).expect("a copy");
    mode(&late, 0o600);
    let (insert, attach) = ("insert demo late.qcow2", "attach demo --disk late.qcow2");
    env.mvm(insert)
        .exits(4)
        .says("may not read")
        .says("chmod o+r");
    env.mvm(attach)
        .exits(4)
        .says("may not write")
        .says("chown nobody");
    mode(&late, 0o644);
    env.mvm(insert).exits(0);
    env.mvm("eject demo").exits(0);
    chown(&late, Some(NOBODY), None).expect("we are root");
    env.mvm(attach).exits(0);
    env.run(&[
        "attach",
        "demo",
        "--disk",
        "base.qcow2,ephemeral",
        "--name",
        "thrown",
    ])
    .exits(0);
    env.mvm("detach demo thrown").exits(0);

    // A supervisor that dies is followed by another, root's QEMU or not.
    kill(pid(&env, "supervisor"), Signal::SIGKILL);
    eventually("nobody supervises", Duration::from_secs(10), || {
        env.row("demo")["state"] == "unsupervised"
    });
    let adopted = env.mvm("recover --format json").exits(0).json();
    assert_eq!(adopted[0]["outcome"], "adopted", "{adopted}");
    assert_eq!(pid(&env, "pid"), qemu);
    env.mvm("stop demo --timeout 60s").exits(0);
    assert!(!run.exists());
    let log = fs::read_to_string(env.path("state/demo/log/qemu.log")).expect("a log");
    assert!(!log.contains("denied"), "{log}");
    let console = fs::metadata(env.path("state/demo/log/console-main.log")).expect("a log");
    assert_eq!((console.uid(), console.len() > 0), (NOBODY, true));

    // Root's QEMU uses what the user's has left.
    env.mvm("start demo --set security.user=root").exits(0);
    assert_eq!(status(pid(&env, "pid"), "Uid:"), [0; 4]);
    env.mvm("kill demo").exits(0);
}

#[test]
fn another_user_s_qemu_starts_where_mvm_makes_its_directories_first() {
    if !is_root() || !qemu_is_for_all() {
        return;
    }
    let Some(env) = world() else {
        return;
    };
    let to = |name: &str| env.path(format!("new/{name}"));
    mode(&env.path(""), 0o711);
    let files = [
        ("disk", Some(NOBODY)),
        ("scratch", Some(NOBODY)),
        ("base", None),
    ];
    for (name, owner) in files {
        let path = env.image(format!("{name}.qcow2"));
        mode(&path, 0o644);
        chown(&path, owner, None).expect("we are root");
    }
    for folder in ["state", "state/images", "state/images/demo"] {
        mode(&env.path(folder), 0o711);
    }
    let images = env.path("state/images");
    env.write("config/mvm.toml", format!("image-folders = [{images:?}]\n"));
    let mvm = |args: &[&str]| {
        let mut command = env.command(args);
        command
            .env("MVM_STATE_DIR", to("a/b/state"))
            .env("MVM_RUNTIME_DIR", to("c/d/run"));
        finish(command)
    };
    let started = mvm(&["start", "demo"]);
    let log = fs::read_to_string(to("a/b/state/demo/log/qemu.log")).unwrap_or_default();
    assert_eq!(started.code, 0, "{}\n{log}", started.stderr);
    for (name, wanted) in [
        ("a", 0o711),
        ("a/b", 0o711),
        ("a/b/state", 0o711),
        ("a/b/state/demo", 0o710),
        ("c/d", 0o711),
        ("c/d/run/demo", 0o710),
    ] {
        let meta = fs::metadata(to(name)).expect("it was made");
        assert_eq!(meta.mode() & 0o7777, wanted, "{name}");
    }
    mvm(&["kill", "demo"]).exits(0);
}

#[test]
fn the_user_is_one_that_the_host_knows() {
    if !is_root() {
        return;
    }
    let env = TestEnv::new();
    env.write("config/mvm.toml", "[security]\nuser = \"no-such-user\"\n");
    let start = |set: &str| env.run(&["start", "base", "--set", set, "--dry-run"]);
    start("memory.size=64M")
        .exits(4)
        .says("the user `no-such-user`, whom this host does not know")
        .says("useradd --system");
    // The profile goes before `mvm.toml`, and root is nobody else.
    let shown = start("security.user=root").exits(0).stdout;
    assert!(!shown.contains("setpriv"), "{shown}");
    let found = env.mvm("doctor --format json").json();
    let user = |finding: &&serde_json::Value| finding["id"] == "security-user";
    let finding = found.as_array().and_then(|all| all.iter().find(user));
    assert_eq!(finding.expect("a finding")["level"], "warn");
}
