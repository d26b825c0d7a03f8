//! What is done inside a guest, by its agent. A few boots serve many checks: booting is what takes the time.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::env::{Ran, TestEnv, eventually, finish, kill};

/// A guest whose agent answers.
pub(crate) fn guest(line: &str) -> Option<TestEnv> {
    let env = TestEnv::with_demo()?;
    env.mvm(&format!("start demo {line}")).exits(0);
    env.mvm("wait demo --for agent --timeout 120s").exits(0);
    Some(env)
}

impl TestEnv {
    /// A script in the guest.
    pub(crate) fn inside(&self, script: &str) -> Ran {
        self.run(&["exec", "demo", "--", "sh", "-c", script])
    }

    pub(crate) fn exec_piped(&self, args: &[&str]) -> Command {
        let mut command = self.command(&[&["exec", "demo"], args].concat());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Neither process nor file of a command is left in the guest.
    #[track_caller]
    pub(crate) fn is_clean(&self, sign: &str) {
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

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn id(child: &Child) -> i32 {
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
