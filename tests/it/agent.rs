//! What is done inside a guest, by its agent. A few boots serve many checks: booting is what takes the time.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::env::{Ran, TestEnv, eventually, finish, kill, ran};

/// A guest whose agent answers.
fn guest(line: &str) -> Option<TestEnv> {
    let env = TestEnv::with_demo()?;
    env.mvm(&format!("start demo {line}")).exits(0);
    env.mvm("wait demo --for agent --timeout 120s").exits(0);
    Some(env)
}

impl TestEnv {
    /// A script in the guest.
    fn inside(&self, script: &str) -> Ran {
        self.run(&["exec", "demo", "--", "sh", "-c", script])
    }

    fn exec_piped(&self, args: &[&str]) -> Command {
        let mut command = self.command(&[&["exec", "demo"], args].concat());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Neither process nor file of a command is left in the guest.
    #[track_caller]
    fn is_clean(&self, sign: &str) {
        eventually(
            "nothing is left in the guest",
            Duration::from_secs(60),
            || {
                let script =
                    format!("ps | grep -v grep | grep -c '{sign}'; ls -d /tmp/mvm-exec-* | wc -l");
                // The one folder is this very command's.
                self.inside(&script).stdout.replace('\n', " ") == "0 1 "
            },
        );
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn id(child: &Child) -> i32 {
    child.id().try_into().expect("an id")
}

#[test]
fn commands_run_in_a_guest() {
    let Some(env) = guest("") else {
        return;
    };
    ends(&env);
    input(&env);
    while_it_runs(&env);
    deadlines(&env);
    interruptions(&env);
    a_paused_guest(&env);
    an_agent_that_is_started_anew(&env);
    generic(&env);
    // The last: afterwards there is no shell.
    without_a_shell(&env);
    env.mvm("kill demo").exits(0);
}

/// Output, messages and status are the command's own.
fn ends(env: &TestEnv) {
    let ran = env.inside("echo out; printf 'e r r' >&2; exit 7").exits(7);
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("out\n", "e r r")
    );
    let words = [
        "exec", "demo", "--", "printf", "%s|", "a  b", "$HOME", "'\"\\", "-n", "",
    ];
    assert_eq!(env.run(&words).exits(0).stdout, "a  b|$HOME|'\"\\|-n||");
    env.mvm("exec demo -- nosuch").exits(127).says("nosuch");
    env.mvm("exec demo -- /etc/rc.nosuch").exits(127);
    env.inside("kill -9 $$").exits(137);
    env.inside("kill $$").exits(143);
    let words = [
        "exec",
        "demo",
        "--cwd",
        "/usr/sbin",
        "--env",
        "A=two  words\nand a line",
        "--env",
        "IFS=x",
        "--",
        "sh",
        "-c",
        "pwd; printf %s \"$A\"",
    ];
    assert_eq!(
        env.run(&words).exits(0).stdout,
        "/usr/sbin\ntwo  words\nand a line"
    );
    env.mvm("exec demo --cwd /nosuch -- true")
        .exits(2)
        .says("error: `/nosuch` is no folder");
    env.mvm("exec demo --cwd usr -- true").exits(2);
    env.mvm("exec demo --env 1=2 -- true").exits(2);
    env.mvm("exec demo true").exits(2);
    // Every byte, and more than comes with the end at once.
    let ran = env
        .exec_piped(&[
            "-n",
            "--",
            "sh",
            "-c",
            "head -c 400000 /dev/zero; echo $? >&2",
        ])
        .output()
        .expect("mvm runs");
    assert!(ran.stdout.len() == 400_000 && ran.stdout.iter().all(|byte| *byte == 0));
    assert_eq!(text(&ran.stderr), "0\n");
    env.is_clean("head -c 4");
}

/// Input that is known as a whole, that is long, that comes late, and that nobody reads.
fn input(env: &TestEnv) {
    let all: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    for length in [0, 1000, all.len()] {
        let mut child = env.exec_piped(&["--", "cat"]).spawn().expect("mvm starts");
        let mut stdin = child.stdin.take().expect("it was piped");
        let bytes = all[..length].to_vec();
        let writer = thread::spawn(move || stdin.write_all(&bytes));
        let done = child.wait_with_output().expect("it ends");
        writer.join().expect("no panic").expect("all is taken");
        assert!(done.status.success(), "{}", text(&done.stderr));
        assert!(
            done.stdout == all[..length],
            "{} of {length}",
            done.stdout.len()
        );
    }
    // A line at a time, each answered before the next is written.
    let script = "while read line; do echo \"got $line\"; done; echo end";
    let mut child = env
        .exec_piped(&["--", "sh", "-c", script])
        .spawn()
        .expect("mvm starts");
    let mut stdin = child.stdin.take().expect("it was piped");
    let mut lines = BufReader::new(child.stdout.take().expect("it was piped")).lines();
    for word in ["one", "two"] {
        writeln!(stdin, "{word}").expect("it is taken");
        let answer = lines.next().expect("an answer").expect("text");
        assert_eq!(answer, format!("got {word}"));
    }
    drop(stdin);
    assert_eq!(lines.next().expect("a line").expect("text"), "end");
    assert!(child.wait().expect("it ends").success());
    // Its end does not wait for the input's.
    let mut child = env
        .exec_piped(&["--", "sh", "-c", "exit 3"])
        .spawn()
        .expect("mvm starts");
    let stdin = child.stdin.take();
    assert_eq!(child.wait().expect("it ends").code(), Some(3));
    drop(stdin);
    env.is_clean("while read l");
}

/// Output comes while the command runs, and the agent has time for others.
fn while_it_runs(env: &TestEnv) {
    let mut long = env
        .exec_piped(&["-n", "--", "sh", "-c", "echo begun; exec sleep 1000"])
        .spawn()
        .expect("mvm starts");
    let mut lines = BufReader::new(long.stdout.take().expect("it was piped")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "begun");
    let others: Vec<_> = (0..3)
        .map(|number| {
            let mut command = env.command(&["exec", "demo", "--", "sh", "-c"]);
            command.arg(format!("sleep 1; exit {number}"));
            thread::spawn(move || (number, finish(command).code))
        })
        .collect();
    env.mvm("agent demo guest-ping --timeout 10s").exits(0);
    for other in others {
        let (number, code) = other.join().expect("no panic");
        assert_eq!(number, code);
    }
    kill(id(&long), Signal::SIGTERM);
    assert_eq!(long.wait().expect("it ends").code(), Some(143));
    env.is_clean("sleep 1000");
    // Who reads no more ends the command, as on this host.
    let mut yes = env
        .exec_piped(&["-n", "--", "yes"])
        .spawn()
        .expect("mvm starts");
    let mut stdout = yes.stdout.take().expect("it was piped");
    stdout.read_exact(&mut [0; 100]).expect("output");
    drop(stdout);
    assert_eq!(yes.wait().expect("it ends").code(), Some(141));
    env.is_clean(" yes$");
}

fn deadlines(env: &TestEnv) {
    let start = Instant::now();
    let words = [
        "exec",
        "demo",
        "--timeout",
        "2s",
        "--",
        "sh",
        "-c",
        "echo begun; sleep 2000 & sleep 3000",
    ];
    let ran = env
        .run(&words)
        .exits(1)
        .says("error: `sh` did not end within 2s");
    assert!(start.elapsed() >= Duration::from_secs(2));
    assert_eq!(ran.stdout, "begun\n");
    env.is_clean("sleep [23]000");
    let deaf = "trap '' TERM INT; while :; do sleep 1; done";
    let words = ["exec", "demo", "--timeout", "1s", "--", "sh", "-c", deaf];
    env.run(&words).exits(1).says("and was ended");
    env.is_clean("while :");
}

/// The first signal is the command's, the second its end.
fn interruptions(env: &TestEnv) {
    let script = "trap 'echo caught; exit 5' INT; echo begun; while :; do sleep 0.1; done";
    let mut child = env
        .exec_piped(&["-n", "--", "sh", "-c", script])
        .spawn()
        .expect("mvm starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it was piped")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "begun");
    kill(id(&child), Signal::SIGINT);
    assert_eq!(lines.next().expect("a line").expect("text"), "caught");
    assert_eq!(child.wait().expect("it ends").code(), Some(5));
    let script = "trap '' INT; echo begun; while :; do sleep 0.1; done";
    let mut child = env
        .exec_piped(&["-n", "--", "sh", "-c", script])
        .spawn()
        .expect("mvm starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it was piped")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "begun");
    kill(id(&child), Signal::SIGINT);
    thread::sleep(Duration::from_secs(1));
    assert!(child.try_wait().expect("a child").is_none());
    kill(id(&child), Signal::SIGINT);
    assert_eq!(child.wait().expect("it ends").code(), Some(137));
    env.is_clean("begun");
}

/// Nothing waits for an agent that cannot answer, but a command outlasts a pause.
fn a_paused_guest(env: &TestEnv) {
    let mut child = env
        .exec_piped(&["-n", "--", "sh", "-c", "echo begun; sleep 3; echo done"])
        .spawn()
        .expect("mvm starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it was piped")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "begun");
    env.mvm("pause demo").exits(0);
    let start = Instant::now();
    for line in [
        "exec demo -- true",
        "info demo",
        "cp demo:/etc/rc -",
        "fsfreeze demo status",
    ] {
        env.mvm(line)
            .exits(1)
            .says("demo` is paused")
            .says("mvm resume demo");
    }
    assert!(start.elapsed() < Duration::from_secs(20));
    env.mvm("resume demo").exits(0);
    assert_eq!(lines.next().expect("a line").expect("text"), "done");
    assert!(child.wait().expect("it ends").success());
}

/// Its status is lost with the agent; what is said of it is true.
fn an_agent_that_is_started_anew(env: &TestEnv) {
    let script = "echo begun; sleep 1; kill $(pidof qemu-ga); exec sleep 4000";
    let words = ["exec", "demo", "-n", "--", "sh", "-c", script];
    let ran = env
        .run(&words)
        .exits(1)
        .says("the guest agent no longer knows `sh`");
    assert_eq!(ran.stdout, "begun\n");
    let pid = ran.stderr.rsplit("as process ").next().expect("a process");
    let pid = pid.trim().to_owned();
    env.mvm("wait demo --for agent --timeout 60s").exits(0);
    let seen = env.inside(&format!("tr '\\0' ' ' </proc/{pid}/cmdline; kill {pid}"));
    assert_eq!(seen.exits(0).stdout.trim(), "sleep 4000");
    // The shell that waited for it has put its files away.
    env.is_clean("sleep 4000");
}

fn generic(env: &TestEnv) {
    let osinfo = env.mvm("agent demo guest-get-osinfo").exits(0).json();
    assert_eq!(osinfo["id"], "mvm-test");
    let words = ["agent", "demo", "guest-file-open", "path=/etc/rc", "mode=r"];
    let handle = env.run(&words).exits(0).json();
    let arguments = json!({ "handle": handle, "count": 2 }).to_string();
    let read = env
        .run(&["agent", "demo", "guest-file-read", &arguments])
        .exits(0)
        .json();
    assert_eq!(read["buf-b64"], "IyE=");
    env.run(&[
        "agent",
        "demo",
        "guest-file-close",
        &format!("handle={handle}"),
    ])
    .exits(0);
    let list = env.mvm("agent demo").exits(0).stdout;
    assert!(list.lines().any(|line| line == "guest-exec"), "{list}");
    env.mvm("agent demo guest-get-osinf")
        .exits(1)
        .says("did you mean `guest-get-osinfo`?");
    env.mvm("agent demo guest-file-close handle=77")
        .exits(1)
        .says("77");
}

/// The agent alone runs a command, takes a file and gives one, as far as it can.
fn without_a_shell(env: &TestEnv) {
    env.mvm("exec demo -- mv /bin/sh /bin/sh.away").exits(0);
    let words = [
        "exec",
        "demo",
        "-n",
        "--",
        "ash",
        "-c",
        "echo out; echo err >&2; exit 4",
    ];
    let ran = env.run(&words).exits(4);
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("out\n", "err\n")
    );
    env.mvm("exec demo -n -- nosuch").exits(1).says("nosuch");
    env.mvm("exec demo -n --cwd / -- true")
        .exits(1)
        .says("a folder to run in takes a shell in the guest");
    env.mvm("exec demo -n --timeout 1s -- sleep 5")
        .exits(1)
        .says("goes on in the guest as process");
    let here = env.write("plain", "some bytes\n");
    env.run(&["cp", here.to_str().expect("text"), "demo:/root/plain"])
        .exits(0)
        .says("written in place");
    assert_eq!(
        env.mvm("cp demo:/root/plain -").exits(0).stdout,
        "some bytes\n"
    );
}

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

/// A hundred commands, five at a time: each has its own output, messages and status.
#[test]
fn a_hundred_commands_five_at_a_time() {
    let Some(env) = guest("") else {
        return;
    };
    let lane = |lane: usize| {
        for turn in 0..20 {
            let number = lane * 20 + turn;
            let length = number * 97;
            let script = format!(
                "head -c {length} /dev/zero | tr '\\0' x; echo {number} >&2; exit {number}"
            );
            let ran = env
                .inside(&script)
                .exits(i32::try_from(number).expect("small"));
            assert_eq!(ran.stdout.len(), length, "{number}");
            assert!(ran.stdout.bytes().all(|byte| byte == b'x'));
            assert_eq!(ran.stderr, format!("{number}\n"));
        }
    };
    thread::scope(|scope| {
        for number in 0..5 {
            scope.spawn(move || lane(number));
        }
    });
    env.is_clean("head -c");
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
