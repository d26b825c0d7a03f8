//! Folders of the host in a guest that really mounts them: 9p and virtiofs in one boot.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::env::{Ran, TestEnv, eventually, kill};

/// A program for x86_64 that gives the file `changing` the attribute `user.mvm`, "x", and ends with the error's
/// number: the guest has none that could.
const SET_ATTRIBUTE: [&[u8]; 5] = [
    // The file's head, and that of its one segment.
    b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0\x78\0\x40\0\0\0\0\0\x40\0\0\0\0\0\0\0",
    b"\0\0\0\0\0\0\0\0\0\0\0\0\x40\0\x38\0\x01\0\0\0\0\0\0\0",
    b"\x01\0\0\0\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\x40\0\0\0\0\0\0\0\x40\0\0\0\0\0\xbb\0\0\0\0\0\0\0\xbb\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0",
    // setxattr("changing", "user.mvm", "x", 1, 0), exit(-what came of it)
    b"\xb8\xbc\0\0\0\x48\x8d\x3d\x24\0\0\0\x48\x8d\x35\x26\0\0\0\x48\x8d\x15\x28\0\0\0\x41\xba\x01\0\0\0\x45\x31\xc0\x0f\x05\xf7\xd8\x89\xc7\xb8\x3c\0\0\0\x0f\x05",
    b"changing\0user.mvm\0x",
];

/// Where Debian 12, Debian 13 and others have it.
const FOLDERS: [&str; 3] = ["/usr/lib/qemu", "/usr/libexec", "/usr/lib"];

fn world() -> Option<TestEnv> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    folders.extend(FOLDERS.map(Into::into));
    let there = folders.iter().any(|dir| dir.join("virtiofsd").is_file());
    // Its sandboxes are root's.
    if !there || !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("MVM_TEST_ALL").is_none(), "no virtiofsd");
        eprintln!("skipped: virtiofsd is not installed, or this is not root");
        return None;
    }
    TestEnv::with_guest("x86_64-full")
}

fn inside(env: &TestEnv, script: &str) -> Ran {
    env.run(&["exec", "demo", "--", "sh", "-c", script])
}

/// The processes of the virtiofsd that serves that folder.
fn virtiofsd(env: &TestEnv, folder: &Path) -> Vec<i32> {
    let folder = folder.to_str().expect("UTF-8");
    let is = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("virtiofsd") && line.contains(folder)
    };
    env.processes().into_iter().filter(is).collect()
}

fn attribute(path: &Path, name: &str) -> Vec<u8> {
    let mut value = [0; 16];
    let length = rustix::fs::getxattr(path, name, &mut value[..]).expect("an attribute");
    value[..length].to_vec()
}

fn mode(path: &Path) -> u32 {
    let meta = fs::metadata(path).expect("it is there");
    meta.permissions().mode() & 0o7777
}

#[test]
fn folders_are_read_and_written_from_both_sides() {
    let Some(env) = world() else { return };
    let [live, kept, plain] = ["live", "kept", "plain"].map(|name| env.path(name));
    for folder in [&live, &kept, &plain] {
        fs::create_dir(folder).expect("a folder");
        fs::write(folder.join("changing"), "one\n").expect("a file");
        fs::write(folder.join("set"), SET_ATTRIBUTE.concat()).expect("a file");
    }
    env.write(
        "config/machines/demo.toml",
        format!(
            "extends = ['demo']\n\
             [share.live]\npath = '{}'\nvirtiofs = {{ cache = 'never', xattr = true, queue-size = 64 }}\n\
             [share.kept]\npath = '{}'\ntag = 'a tag'\nvirtiofs = {{ cache = 'always', sandbox = 'chroot' }}\n\
             [share.plain]\npath = '{}'\nfmode = '0640'\ndmode = '0750'\n",
            live.display(),
            kept.display(),
            plain.display()
        ),
    );
    env.mvm("start demo").exits(0);
    env.mvm("wait demo --for agent --timeout 120s").exits(0);
    let shown = env.mvm("show demo").exits(0).stdout;
    assert!(shown.contains("virtiofs, mount tag a tag"), "{shown}");
    assert!(shown.contains("9p, mount tag plain"), "{shown}");
    inside(
        &env,
        "modprobe -a 9p 9pnet_virtio virtiofs; cd /tmp && mkdir live kept plain && \
         mount -t virtiofs live live && mount -t virtiofs 'a tag' kept && \
         mount -t 9p -o trans=virtio,version=9p2000.L plain plain",
    )
    .exits(0);

    // What each side writes the other reads.
    let script = "cd /tmp; cat live/changing kept/changing plain/changing; \
                  for to in live kept plain; do echo \"in $to\" >$to/answer; chmod 755 $to/answer; mkdir $to/folder; done; \
                  stat -c %a plain/answer plain/folder";
    let said = inside(&env, script).exits(0).stdout;
    assert_eq!(said, "one\none\none\n755\n755\n");
    for folder in [&live, &kept, &plain] {
        let name = folder.file_name().expect("a name").display();
        let read = fs::read_to_string(folder.join("answer")).expect("the guest's file");
        assert_eq!(read, format!("in {name}\n"));
    }
    // virtiofs keeps the guest's modes. 9p keeps them beside those that the profile says.
    assert_eq!(mode(&live.join("answer")), 0o755);
    assert_eq!(mode(&plain.join("answer")), 0o640);
    assert_eq!(mode(&plain.join("folder")), 0o750);
    let real = attribute(&plain.join("answer"), "user.virtfs.mode");
    assert_eq!(real, 0o100_755_u32.to_le_bytes());

    // `cache`: who asks each time sees what the host has changed.
    for folder in [&live, &kept] {
        fs::write(folder.join("changing"), "two\n").expect("a file");
    }
    let said = inside(&env, "cat /tmp/live/changing /tmp/kept/changing").exits(0);
    assert_eq!(said.stdout, "two\none\n");

    // `xattr`
    let script = "cp /tmp/live/set /tmp/set; chmod 755 /tmp/set; cd /tmp/live; /tmp/set; echo $?; \
                  cd /tmp/kept; /tmp/set; echo $?";
    // 95: EOPNOTSUPP
    assert_eq!(inside(&env, script).exits(0).stdout, "0\n95\n");
    assert_eq!(attribute(&live.join("changing"), "user.mvm"), b"x");

    // `sandbox`
    let link = |pid: &i32, name: &str| fs::read_link(format!("/proc/{pid}/{name}")).ok();
    let own = fs::read_link("/proc/self/ns/mnt").ok();
    let (of_live, of_kept) = (virtiofsd(&env, &live), virtiofsd(&env, &kept));
    let apart = |pid: &i32| link(pid, "ns/mnt") != own;
    assert!(of_live.iter().any(apart), "{of_live:?}");
    let inside_kept = |pid: &i32| link(pid, "root").as_ref() == Some(&kept);
    assert!(of_kept.iter().any(inside_kept), "{of_kept:?}");

    // QEMU cannot save what a virtiofsd knows.
    inside(&env, "cd /; umount /tmp/plain").exits(0);
    let refused = env.mvm("save demo");
    assert_ne!(refused.code, 0, "{}", refused.stdout);
    assert!(refused.stderr.contains("vhost-user"), "{}", refused.stderr);
    assert_eq!(env.row("demo")["state"], "running");

    // One that is killed is told, and the guest goes on with the others.
    for pid in of_live {
        kill(pid, Signal::SIGKILL);
    }
    let message = || {
        let shown = env.mvm("show demo --format json").exits(0).json();
        shown["message"].as_str().unwrap_or_default().to_owned()
    };
    eventually("its end is told", Duration::from_secs(30), || {
        message().contains("the share `live` answers nothing")
    });
    assert!(
        message().starts_with("virtiofsd has ended"),
        "{}",
        message()
    );
    inside(&env, "cat /tmp/kept/answer").exits(0);

    // The other ends with the guest.
    env.mvm("kill demo").exits(0);
    eventually("virtiofsd is gone", Duration::from_secs(10), || {
        virtiofsd(&env, &kept).is_empty()
    });
    assert!(!env.path("run/demo").exists());
}

#[test]
fn a_virtiofsd_that_does_not_start_leaves_nothing() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: this is not root");
        return;
    }
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    fs::create_dir(env.path("folder")).expect("a folder");
    env.write(
        "config/machines/demo.toml",
        format!(
            "extends = ['demo']\n[share.x]\npath = '{}'\nvirtiofs = {{}}\n",
            env.path("folder").display()
        ),
    );
    let script = env.write(
        "bin/virtiofsd",
        "#!/bin/sh\n[ \"$1\" != --help ] || exec echo '-o source=PATH'\necho no room for a folder >&2\nexit 3\n",
    );
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let mut path = env.path("bin").into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let with = |args: &[&str]| {
        let mut command = env.command(args);
        command.env("PATH", &path);
        crate::env::finish(command)
    };
    let shown = with(&["start", "demo", "--dry-run"]).exits(0).stdout;
    assert!(shown.contains("--socket-path="), "{shown}");
    assert!(shown.contains("log_level=warn"), "{shown}");
    let failed = with(&["start", "demo"]);
    assert_ne!(failed.code, 0);
    assert!(failed.stderr.contains("share-x"), "{}", failed.stderr);
    assert!(!env.path("run/demo").exists());
}
