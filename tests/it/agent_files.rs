//! What goes into a guest and comes out of it by its agent: files, its clock, its addresses, much output.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::agent::{guest, id, text};
use crate::env::{TestEnv, eventually, kill, ran};

#[test]
fn files_clocks_and_addresses() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    let kernel = fs::canonicalize(env.image("demo/kernel")).expect("the guest's folder");
    let disk = kernel.with_file_name("rootfs.ext4");
    let copy = env.image("data.ext4");
    fs::copy(&disk, &copy).expect("a copy");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).expect("it is ours");
    env.run(&["start", "demo", "--disk", copy.to_str().expect("text")])
        .exits(0);
    // The agent is not there yet: what the host knows counts, and it knows nothing.
    let early = env.mvm("ip demo --timeout 1s");
    if early.code != 0 {
        early.exits(1).says("52:54:00").says("--for agent");
    }
    env.mvm("wait demo --for agent --timeout 120s").exits(0);
    copies(&env);
    refused_copies(&env);
    times(&env);
    told(&env);
    frozen(&env);
    env.mvm("kill demo").exits(0);
}

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path)
        .expect("it is there")
        .permissions()
        .mode()
        & 0o7777
}

fn copies(env: &TestEnv) {
    let bytes: Vec<u8> = (0..=255).cycle().take(700_001).collect();
    let here = env.write("a file", &bytes);
    fs::set_permissions(&here, fs::Permissions::from_mode(0o751)).expect("it is ours");
    // Into a folder, under another name, over a file that somebody else owns, through a link.
    env.run(&["cp", "a file", "demo:/root"]).exits(0);
    env.run(&["cp", "a file", "demo:/root/b c"]).exits(0);
    env.inside("echo old >/root/theirs; chown 12:34 /root/theirs; ln -s theirs /root/link")
        .exits(0);
    env.run(&["cp", "./a file", "demo:/root/link"]).exits(0);
    let seen = env.inside(
        "cd /root; cmp 'a file' 'b c' && cmp 'a file' theirs && stat -c '%a %u:%g %F' 'a file' theirs link; ls -A",
    );
    assert_eq!(
        seen.exits(0).stdout,
        "751 0:0 regular file\n751 12:34 regular file\n777 0:0 symbolic link\na file\nb c\nlink\ntheirs\n"
    );
    // Back, into a folder and under another name.
    fs::create_dir(env.path("back")).expect("a folder");
    env.run(&["cp", "demo:/root/b c", "back"]).exits(0);
    env.run(&["cp", "demo:/root/theirs", "back/d"]).exits(0);
    for name in ["back/b c", "back/d"] {
        assert!(fs::read(env.path(name)).expect("a file") == bytes, "{name}");
        assert_eq!(mode(&env.path(name)), 0o751);
    }
    // Through pipes; what tells no size is a file too.
    let mut child = env
        .command(&["cp", "-", "demo:/root/piped"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("mvm starts");
    let mut stdin = child.stdin.take().expect("it was piped");
    stdin.write_all(b"through a pipe\n").expect("it is taken");
    drop(stdin);
    assert!(child.wait().expect("it ends").success());
    assert_eq!(
        env.mvm("cp demo:/root/piped -").exits(0).stdout,
        "through a pipe\n"
    );
    let version = env.mvm("cp demo:/proc/version -").exits(0).stdout;
    assert!(version.starts_with("Linux version"), "{version}");
    let empty = env.write("empty", "");
    env.run(&["cp", empty.to_str().expect("text"), "demo:/root/piped"])
        .exits(0);
    assert_eq!(env.mvm("cp demo:/root/piped -").exits(0).stdout, "");
}

fn refused_copies(env: &TestEnv) {
    for (words, code, why) in [
        (["demo:/nosuch", "x"], 1, "does not exist"),
        (["demo:/etc", "x"], 1, "is a folder"),
        (["demo:/dev/null", "x"], 1, "not an ordinary file"),
        (["nosuch", "demo:/root/x"], 1, "cannot read nosuch"),
        (["empty", "demo:/nosuch/x"], 1, "in no folder that exists"),
        (["empty", "demo:/nosuch/"], 1, "in no folder that exists"),
        (["empty", "demo:/dev/null"], 1, "not an ordinary file"),
        (["empty", "demo:/proc/x"], 1, "no file can be made"),
        (["demo:/etc/rc", "/nosuch/x"], 1, "cannot write in /nosuch"),
        (["-", "demo:/root"], 1, "is a folder"),
        (["empty", "x"], 2, "neither side is in a guest"),
        (["demo:/a", "demo:/b"], 2, "both sides are in a guest"),
        (["empty", "demo:x"], 2, "from the root on"),
        (["empty", "nobody:/x"], 5, "nobody"),
    ] {
        env.run(&["cp", words[0], words[1]]).exits(code).says(why);
        assert!(!env.path("x").exists(), "{words:?}");
    }
    // What is full says so, and keeps what was there.
    env.inside("mkdir /small && mount -t tmpfs -o size=200k small /small && echo old >/small/x")
        .exits(0);
    env.run(&["cp", "a file", "demo:/small/x"])
        .exits(1)
        .says("space");
    assert_eq!(
        env.inside("cd /small; ls -A; cat x").exits(0).stdout,
        "x\nold\n"
    );
    // So does what is broken off.
    let mut child = env
        .command(&["cp", "-", "demo:/small/x"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mvm starts");
    let mut stdin = child.stdin.take().expect("it was piped");
    stdin.write_all(b"half").expect("it is taken");
    eventually("it has begun", Duration::from_secs(30), || {
        env.inside("ls -A /small").stdout.contains(".mvm-")
    });
    kill(id(&child), Signal::SIGINT);
    let done = ran(child.wait_with_output().expect("it ends"));
    done.exits(1).says("interrupted by SIGINT");
    drop(stdin);
    assert_eq!(
        env.inside("cd /small; ls -A; cat x").exits(0).stdout,
        "x\nold\n"
    );
}

fn times(env: &TestEnv) {
    let set = env
        .mvm("set-time demo 2001-02-03T04:05:06+01:00 --format json")
        .exits(0)
        .json();
    assert!(
        set["time"]
            .as_str()
            .expect("text")
            .starts_with("2001-02-03T03:05:"),
        "{set}"
    );
    assert!(set["was-ahead-ns"].as_i64().expect("a number") > 0);
    assert_eq!(env.inside("date -u +%Y").exits(0).stdout, "2001\n");
    let info = env.mvm("info demo").exits(0).stdout;
    assert!(info.contains("behind this host"), "{info}");
    let said = env.mvm("set-time demo").exits(0).stdout;
    assert!(said.contains("behind)"), "{said}");
    let now = std::time::SystemTime::now();
    let now = now
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let guest: u64 = env
        .inside("date +%s")
        .exits(0)
        .stdout
        .trim()
        .parse()
        .expect("seconds");
    assert!(now.abs_diff(guest) < 30, "{now} {guest}");
    env.mvm("set-time demo tomorrow").exits(2);
}

fn told(env: &TestEnv) {
    env.inside(
        "ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ip addr add fd00::5/64 dev eth0",
    )
    .exits(0);
    let shown = env.mvm("show demo --format json").exits(0).json();
    let mac = shown["devices"]["nics"][0]["mac"].clone();
    let ip = env.mvm("ip demo --format json").exits(0).json();
    let eth0 = &ip["interfaces"][0];
    assert_eq!(
        (&eth0["name"], &eth0["mac"]),
        (&json!("eth0"), &mac),
        "{ip}"
    );
    let addresses = eth0["addresses"].as_array().expect("addresses");
    let expected = json!({"address": "10.0.2.15", "prefix": 24, "from": "agent"});
    assert!(addresses.contains(&expected), "{ip}");
    let table = env.mvm("ip demo").exits(0).stdout;
    assert!(
        table.contains("10.0.2.15/24") && table.contains("fd00::5/64"),
        "{table}"
    );
    assert!(!table.contains("127.0.0.1"), "{table}");
    let info = env.mvm("info demo --format json").exits(0).json();
    assert_eq!(info["hostname"], "mvm-guest");
    assert_eq!(info["os"]["pretty-name"], "mvm test guest");
    assert!(info["cpus"]["all"].as_u64() > Some(0), "{info}");
    let people = env.mvm("info demo").exits(0).stdout;
    assert!(
        people.contains("mvm test guest") && people.contains("qemu-ga"),
        "{people}"
    );
}

fn frozen(env: &TestEnv) {
    // Nothing of an initramfs can be frozen, and nothing stays frozen for it.
    env.mvm("fsfreeze demo freeze")
        .exits(1)
        .says("no file system");
    assert_eq!(env.mvm("fsfreeze demo status").exits(0).stdout, "thawed\n");
    env.inside("mount -t ext4 /dev/vda /mnt").exits(0);
    let info = env.mvm("info demo").exits(0).stdout;
    assert!(info.contains("/mnt (ext4 on vda)"), "{info}");
    let frozen = env
        .mvm("fsfreeze demo freeze")
        .exits(0)
        .says("stays frozen until");
    assert_eq!(frozen.stdout, "frozen: 1 file system\n");
    assert_eq!(env.mvm("fsfreeze demo status").exits(0).stdout, "frozen\n");
    let no = env.mvm("exec demo -- true").exits(1);
    no.says("mvm fsfreeze demo thaw");
    env.mvm("fsfreeze demo freeze")
        .exits(1)
        .says("is frozen already");
    let thawed = env.mvm("fsfreeze demo thaw --format json").exits(0).json();
    assert_eq!(
        (&thawed["state"], &thawed["file-systems"]),
        (&json!("thawed"), &json!(1))
    );
    env.inside("echo x >/mnt/x && sync").exits(0);
    env.mvm("fsfreeze demo thaw")
        .exits(0)
        .says("was not frozen");
    // By itself, and only where it is still wanted.
    env.mvm("fsfreeze demo freeze --thaw-after 2s").exits(0);
    eventually("it thaws by itself", Duration::from_secs(60), || {
        env.mvm("fsfreeze demo status").exits(0).stdout == "thawed\n"
    });
    env.mvm("fsfreeze demo freeze --thaw-after 2s").exits(0);
    env.mvm("fsfreeze demo thaw").exits(0);
    env.mvm("fsfreeze demo freeze --mountpoint /mnt").exits(0);
    thread::sleep(Duration::from_secs(3));
    assert_eq!(env.mvm("fsfreeze demo status").exits(0).stdout, "frozen\n");
    env.mvm("fsfreeze demo thaw").exits(0);
    env.mvm("fsfreeze demo thaw --thaw-after 1s").exits(2);
}

/// What is long comes whole, and in bounded memory.
#[test]
fn long_output_and_long_files() {
    const LINE: &[u8] = b"0123456789abcdef\n";
    let Some(env) = guest("") else {
        return;
    };
    let script = "yes 0123456789abcdef | head -c 100000000; echo 'and an end' >&2; exit 9";
    let mut child = env
        .exec_piped(&["-n", "--", "sh", "-c", script])
        .spawn()
        .expect("mvm starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("it was piped"));
    let (mut length, mut most) = (0, 0);
    let mut line = Vec::new();
    while stdout.read_until(b'\n', &mut line).expect("output") > 0 {
        let last = LINE[..LINE.len().min(100_000_000 - length)].to_vec();
        assert!(line == last, "at {length}: {}", text(&line));
        if length < 90_000_000 && length + line.len() >= 90_000_000 {
            most = peak(id(&child));
        }
        length += line.len();
        line.clear();
    }
    let done = child.wait_with_output().expect("it ends");
    assert_eq!((length, done.status.code()), (100_000_000, Some(9)));
    assert_eq!(text(&done.stderr), "and an end\n");
    assert!(most > 0 && most < 64 << 10, "{most} KiB");
    env.is_clean("yes 0123");

    let bytes: Vec<u8> = random(50 << 20);
    let here = env.write("big", &bytes);
    wait(env.command(&["cp", "big", "demo:/root/big"]));
    let sum = text(
        &Command::new("sha256sum")
            .arg(&here)
            .output()
            .expect("it runs")
            .stdout,
    );
    let there = env.mvm("exec demo -- sha256sum /root/big").exits(0).stdout;
    assert_eq!(sum.split(' ').next(), there.split(' ').next());
    wait(env.command(&["cp", "demo:/root/big", "back"]));
    assert!(fs::read(env.path("back")).expect("a file") == bytes);
    assert_eq!(env.inside("ls -A /root").exits(0).stdout, "big\n");
    env.mvm("kill demo").exits(0);
}

/// The most memory that a process had, in KiB.
fn peak(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).unwrap_or_default()
}

/// Bytes without a pattern.
fn random(length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length);
    let source = fs::File::open("/dev/urandom").expect("the kernel has it");
    let limit = u64::try_from(length).expect("it fits");
    source.take(limit).read_to_end(&mut bytes).expect("bytes");
    bytes
}

/// Runs what takes longer than `finish` allows.
#[track_caller]
fn wait(mut command: Command) {
    let status = command.status().expect("mvm runs");
    assert!(status.success(), "{command:?}: {status}");
}
