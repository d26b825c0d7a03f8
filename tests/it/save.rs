//! Guests that QEMU saves to a file and that go on from there, with their disks as they were, in real QEMU.

use std::fs::File;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::env::{TestEnv, eventually, kill};
use crate::power::{awake, counts, start};

const MINUTE: Duration = Duration::from_secs(60);

/// A machine file for the demo guest, with a disk that it may write to.
fn machine(env: &TestEnv, name: &str, more: &str) {
    let disk = format!("{name}.raw");
    let file = File::create(env.image(&disk)).expect("a file");
    file.set_len(16 << 20).expect("a sparse file");
    let text = format!(
        "extends = [\"demo\"]\n\
         [cpu]\ncount = 1\n\
         [memory]\nsize = \"256M\"\n\
         [disk.data]\nfile = {{ path = \"{disk}\", format = \"raw\" }}\n{more}"
    );
    env.write(format!("config/machines/{name}.toml"), text);
}

fn json(env: &TestEnv, path: &str) -> Value {
    let text = std::fs::read_to_string(env.path(path)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

fn process(env: &TestEnv, name: &str, key: &str) -> Option<i32> {
    let state = json(env, &format!("run/{name}/state.json"));
    state[key].as_i64().and_then(|pid| i32::try_from(pid).ok())
}

/// Nothing is left of a save.
#[track_caller]
fn nothing_saved(env: &TestEnv, name: &str) {
    for file in ["asleep.json", "saved.img", "saved.part"] {
        assert!(!env.path(format!("state/{name}/{file}")).exists(), "{file}");
    }
}

fn in_background(env: &TestEnv, line: &str) -> Child {
    env.command(&line.split_whitespace().collect::<Vec<_>>())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("mvm starts")
}

fn processes(env: &TestEnv, name: &str) -> (i32, i32) {
    (
        process(env, name, "supervisor").expect("a supervisor"),
        process(env, name, "pid").expect("QEMU"),
    )
}

/// Waits for a moment that passes quickly.
fn caught(moment: impl Fn() -> bool, child: &mut Child) -> bool {
    while child.try_wait().expect("a child").is_none() {
        if moment() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

/// A save whose QEMU is stopped when the guest is held and not yet saved.
#[track_caller]
fn held(env: &TestEnv, name: &str) -> Child {
    let held = || json(env, &format!("run/{name}/state.json"))["saving"] == "running";
    for _ in 0..20 {
        let (_, qemu) = processes(env, name);
        let mut save = in_background(env, &format!("save {name}"));
        if caught(held, &mut save) {
            kill(qemu, Signal::SIGSTOP);
            std::thread::sleep(Duration::from_millis(300));
            if held() && !env.path(format!("state/{name}/asleep.json")).exists() {
                return save;
            }
            kill(qemu, Signal::SIGCONT);
        }
        save.wait().expect("its end");
        env.mvm(&format!("start {name}")).exits(0);
    }
    panic!("a save is never met in its midst");
}

/// A start whose QEMU is stopped before the image is used up.
#[track_caller]
fn loading(env: &TestEnv, name: &str) -> Child {
    let saved = || json(env, &format!("state/{name}/asleep.json"))["kind"] == "saved";
    for _ in 0..20 {
        let mut start = in_background(env, &format!("start {name}"));
        if caught(|| process(env, name, "pid").is_some(), &mut start) {
            let (_, qemu) = processes(env, name);
            kill(qemu, Signal::SIGSTOP);
            std::thread::sleep(Duration::from_millis(300));
            if saved() {
                return start;
            }
            kill(qemu, Signal::SIGCONT);
        }
        start.wait().expect("its end");
        env.mvm(&format!("save {name}")).exits(0);
    }
    panic!("a start is never met in its midst");
}

#[test]
fn a_saved_guest_goes_on_where_it_was() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    machine(&env, "s", "[machine]\ntype = \"pc\"\n");
    let pid = start(&env, "s");
    env.type_in("s", "echo before >/dev/vda; sync");
    for _ in 0..2 {
        awake(&env, "s");
        env.mvm("save s").exits(0);
        assert_eq!(env.row("s")["state"], "saved");
        assert_eq!(json(&env, "state/s/last.json")["reason"], "saved");
        use std::os::unix::fs::PermissionsExt as _;
        let image = env.path("state/s/saved.img").metadata().expect("an image");
        assert_eq!(image.permissions().mode() & 0o777, 0o600);
        assert!(!env.path("run/s").exists());
        env.mvm("stop s").exits(5).says("mvm start s");
        env.mvm("start s").exits(0).says("goes on where it was");
        nothing_saved(&env, "s");
        assert_eq!(env.row("s")["state"], "running");
        counts(&env, "s", &pid);
    }
    let said = env.type_in("s", "head -c 6 /dev/vda");
    assert!(said.contains("before"), "{said}");

    // Compressed it is a good deal smaller.
    let long = |path: &str| env.path(path).metadata().expect("an image").len();
    env.mvm("save s").exits(0);
    let plain = long("state/s/saved.img");
    env.mvm("start s").exits(0);
    counts(&env, "s", &pid);
    env.mvm("save s --compress").exits(0);
    let squeezed = long("state/s/saved.img");
    assert!(squeezed * 4 < plain * 3, "{squeezed} {plain}");
    env.mvm("start s").exits(0).says("goes on where it was");
    counts(&env, "s", &pid);

    // Paused it is saved, and paused it comes back.
    env.mvm("pause s").exits(0);
    env.mvm("save s").exits(0);
    env.mvm("start s").exits(0).says("paused when it was saved");
    assert_eq!(env.row("s")["state"], "paused");
    env.mvm("resume s").exits(0);
    counts(&env, "s", &pid);

    env.mvm("suspend s").exits(0);
    env.mvm("save s").exits(1).says("mvm wakeup s");
    assert_eq!(env.row("s")["state"], "suspended");
    env.mvm("kill s").exits(0);
}

/// What the image does not fit is refused, and nothing of it is lost by that.
#[test]
fn a_saved_guest_is_kept_from_harm() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    machine(&env, "h", "[power]\nsuspend = [\"save\"]\n");
    let pid = start(&env, "h");
    env.mvm("suspend h").exits(0);
    assert_eq!(env.row("h")["state"], "saved");
    env.mvm("start h --memory 512M")
        .exits(1)
        .says("memory is 512M and was 256M");
    env.mvm("start h --set rng.enabled=false").exits(1);
    env.mvm("start demo --name other --set disk.a.file.path=h.raw --set disk.a.file.format=raw")
        .exits(1)
        .says("`h`, which is saved");

    // An image that is damaged: QEMU refuses it, and all is as before.
    let image = env.path("state/h/saved.img");
    let whole = std::fs::read(&image).expect("the image");
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[4..8].fill(0xff);
    damaged[middle..].fill(0xff);
    std::fs::write(&image, &damaged).expect("written");
    env.mvm("start h").exits(1).says("saved state");
    assert_eq!(env.row("h")["state"], "saved");
    std::fs::write(&image, &whole[..100]).expect("written");
    env.mvm("start h").exits(1).says("it has 100 bytes");
    std::fs::write(&image, &whole).expect("written");
    env.mvm("start h").exits(0).says("goes on where it was");
    counts(&env, "h", &pid);

    // Disks that have moved on.
    env.mvm("save h").exits(0);
    let disk = File::options().write(true).open(env.image("h.raw"));
    let later = std::time::SystemTime::now() + MINUTE;
    disk.and_then(|disk| disk.set_modified(later))
        .expect("a later time");
    env.mvm("start h").exits(1).says("h.raw was written to");
    env.mvm("start h --discard-hibernation --set power.compress=true")
        .exits(0);
    nothing_saved(&env, "h");
    awake(&env, "h");
    let said = env.type_in("h", "cat /tmp/n || echo 'all new'");
    assert!(said.contains("all new"), "{said}");

    // Compressed because its profile says so: the file is one of LZ4.
    env.mvm("save h").exits(0);
    let squeezed = std::fs::read(&image).expect("the image");
    assert!(squeezed.starts_with(&[0x04, 0x22, 0x4d, 0x18]));
}

/// What cannot be saved says why, and is as it was.
#[test]
fn a_guest_that_cannot_be_saved_says_why() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    machine(
        &env,
        "n",
        "[disk.b]\nbus = \"nvme\"\nfile = { path = \"n-b.raw\", format = \"raw\" }\n",
    );
    let disk = File::create(env.image("n-b.raw")).expect("a file");
    disk.set_len(1 << 20).expect("a sparse file");
    let pid = start(&env, "n");
    env.mvm("save n").exits(1).says("nvme");
    counts(&env, "n", &pid);
    nothing_saved(&env, "n");
    env.mvm("kill n").exits(0);

    machine(&env, "e", "ephemeral = true\n");
    env.mvm("start e").exits(0);
    env.mvm("save e").exits(1).says("thrown away");
    // No time at all is not enough, and the guest goes on.
    env.mvm("kill e").exits(0);
    machine(&env, "t", "[power]\nhibernate-timeout = \"0s\"\n");
    let pid = start(&env, "t");
    env.mvm("save t").exits(1).says("has not been saved");
    env.mvm("save t --timeout 1ms")
        .exits(1)
        .says("has not been saved");
    assert_eq!(env.row("t")["state"], "running");
    nothing_saved(&env, "t");
    counts(&env, "t", &pid);
    env.mvm("kill t").exits(0);
}

/// Whoever dies, what is told afterwards is so, and the guest is not lost with it.
#[test]
fn the_truth_is_told_when_somebody_dies_around_a_save() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    machine(&env, "k", "");
    let pid = start(&env, "k");
    let gone = || {
        eventually("its end", MINUTE, || {
            env.row("k")["state"] == "unsupervised" || env.row("k")["state"] == "saved"
        });
    };

    // The supervisor dies when the guest is held: it goes on under the next one.
    let mut save = held(&env, "k");
    let (supervisor, qemu) = processes(&env, "k");
    kill(supervisor, Signal::SIGKILL);
    save.wait().expect("its end");
    kill(qemu, Signal::SIGCONT);
    gone();
    env.mvm("recover").exits(0);
    assert_eq!(env.row("k")["state"], "running");
    nothing_saved(&env, "k");
    counts(&env, "k", &pid);

    // It dies while QEMU writes, or has just done so.
    let supervisor = process(&env, "k", "supervisor").expect("a supervisor");
    let mut save = in_background(&env, "save k");
    eventually("the file", MINUTE, || {
        env.path("state/k/saved.part").exists() || env.path("state/k/saved.img").exists()
    });
    kill(supervisor, Signal::SIGKILL);
    save.wait().expect("its end");
    gone();
    env.mvm("recover").exits(0);
    if env.row("k")["state"] == "saved" {
        env.mvm("start k").exits(0);
    }
    assert_eq!(env.row("k")["state"], "running");
    counts(&env, "k", &pid);

    // The supervisor dies while the image is loaded, then QEMU does: it is there for the next start.
    env.mvm("save k").exits(0);
    for who in ["supervisor", "pid"] {
        let mut start = loading(&env, "k");
        let (_, qemu) = processes(&env, "k");
        kill(process(&env, "k", who).expect("a process"), Signal::SIGKILL);
        kill(qemu, Signal::SIGCONT);
        start.wait().expect("its end");
        env.mvm("recover").exits(0);
        assert_eq!(env.row("k")["state"], "saved", "{who}");
    }
    env.mvm("start k").exits(0).says("goes on where it was");
    counts(&env, "k", &pid);

    // QEMU dies while the guest is held: it is gone as by a power failure, and nothing says otherwise.
    let mut save = held(&env, "k");
    let (_, qemu) = processes(&env, "k");
    kill(qemu, Signal::SIGKILL);
    assert!(!save.wait().expect("its end").success());
    eventually("the end", MINUTE, || !env.path("run/k").exists());
    nothing_saved(&env, "k");

    // An image that a guest was going on from when all was cut off is not loaded again.
    start_and_use_up(&env);
}

fn start_and_use_up(env: &TestEnv) {
    start(env, "k");
    env.mvm("save k").exits(0);
    let mut mark = json(env, "state/k/asleep.json");
    mark["kind"] = "used-up".into();
    env.write("state/k/asleep.json", mark.to_string());
    env.mvm("start k")
        .exits(1)
        .says("used up")
        .says("--discard-hibernation");
    env.mvm("start k --discard-hibernation").exits(0);
    nothing_saved(env, "k");
    env.mvm("kill k").exits(0);
}
