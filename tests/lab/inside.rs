//! The loop of a sweep. It runs inside the host (this test program is shared with it), because there is much
//! to do at each point and each question from outside takes time.

use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::snapshot::Snapshot;
use crate::sweep::{Found, Sweep};
use crate::tracer::{self, Traced};

/// Started by `Host::sweep` in the host, never by itself.
#[test]
#[ignore = "the part of a sweep that runs inside a host"]
fn sweep() {
    let path = std::env::var("LAB_SWEEP").expect("Host::sweep starts this");
    let text = fs::read_to_string(&path).expect("the description of the sweep");
    let sweep: Sweep = serde_json::from_str(&text).expect("the description of the sweep");
    let found = all_points(&sweep);
    let text = serde_json::to_string(&found).expect("plain data");
    fs::write(format!("{path}.found"), text).expect("the shared folder");
}

fn all_points(sweep: &Sweep) -> Found {
    let mut found = Found::default();
    // Once to the end and not watched: what the first run asks of KVM and QEMU takes long, and it keeps the
    // answers. What it makes for good is there before the host is looked at.
    script(&sweep.prepare, sweep).expect("prepare");
    for _ in 0..5 {
        // On a busy machine QEMU may be too slow to load the first time.
        let (done, said) = shell(&sweep.command, sweep.seconds);
        say(&said);
        if done {
            break;
        }
    }
    script(&sweep.after, sweep).expect("after");
    script(&sweep.prepare, sweep).expect("prepare");
    let whole = traced(sweep, None);
    say(&format!(
        "a run to the end: {} calls that change something, exit {:?}",
        whole.calls.len(),
        whole.code
    ));
    for (at, call) in whole.calls.iter().enumerate() {
        say(&format!("  {}: {call}", at + 1));
    }
    if whole.code != Some(sweep.code) {
        found
            .failures
            .push(format!("unharmed, it ended with {whole:?}"));
        return found;
    }
    script(&sweep.after, sweep).expect("after");
    let before = snapshot();

    let from = match whole
        .calls
        .iter()
        .position(|call| call.starts_with(&sweep.from))
    {
        Some(before) => before + sweep.first,
        None => {
            found.failures.push(format!("no call is `{}`", sweep.from));
            return found;
        }
    };
    let mut misses = 0;
    loop {
        let at = from + found.points * sweep.stride;
        let begin = Instant::now();
        if let Err(why) = script(&sweep.prepare, sweep) {
            found.failures.push(format!("before {at}: {why}"));
            break;
        }
        let run = traced(sweep, Some(at));
        if !run.killed && run.code != Some(sweep.code) {
            // The machine may have been too busy for one of mvm's deadlines. That is not what is looked for, but
            // nor does it end the sweep: the point is still to be met.
            say(&format!("{at}: not met, it ended with {:?}", run.code));
            misses += 1;
            if misses > 5 {
                found.failures.push(format!("passed through with {run:?}"));
                break;
            }
            if let Err(why) = script(&sweep.after, sweep).and_then(|()| settle(&before)) {
                found.failures.push(format!("refused at {at}: {why}"));
                break;
            }
            continue;
        }
        if !run.killed {
            break;
        }
        found.points += 1;
        let call = run.calls.last().map(String::as_str).unwrap_or_default();
        let outcome = check(sweep, &before, &run);
        let seconds = begin.elapsed().as_secs_f32();
        let Err(why) = outcome else {
            say(&format!("{at}: {call}: ok ({seconds:.1} s)"));
            continue;
        };
        say(&format!("{at}: {call}: WRONG ({seconds:.1} s)\n{why}"));
        found
            .failures
            .push(format!("killed at {at}, {call}:\n{why}"));
        // The next points are worth looking at where this one's traces can be removed.
        let clean = sweep.reset.is_empty() || script(&sweep.reset, sweep).is_ok();
        if found.failures.len() >= 5 || !clean || settle(&before).is_err() {
            say("the sweep ends here");
            break;
        }
    }
    found
}

fn traced(sweep: &Sweep, at: Option<usize>) -> Traced {
    tracer::run(
        &sweep.command,
        at,
        sweep.victim,
        Duration::from_secs(sweep.seconds),
        &sweep.only,
    )
}

fn check(sweep: &Sweep, before: &Snapshot, run: &Traced) -> Result<(), String> {
    if run.hung {
        return Err("what was left of it did not end".to_owned());
    }
    if sweep.kill_qemu {
        kill_qemu(&sweep.spare)?;
    }
    script(&sweep.after, sweep)?;
    settle(before)
}

/// Waits until the host is as it was.
fn settle(before: &Snapshot) -> Result<(), String> {
    let begin = Instant::now();
    loop {
        let diff = before.diff(&snapshot());
        if diff.is_empty() {
            return Ok(());
        }
        if begin.elapsed() > Duration::from_secs(15) {
            return Err(format!("the host is not as it was:\n{diff}"));
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

fn snapshot() -> Snapshot {
    let output = Command::new("lab-snapshot").output().expect("the script");
    Snapshot::parse(&String::from_utf8_lossy(&output.stdout))
}

/// Every QEMU of this host but those of one guest, and waits until they are gone.
fn kill_qemu(spare: &str) -> Result<(), String> {
    let is_qemu = |pid: &i32| {
        let exe = fs::read_link(format!("/proc/{pid}/exe"));
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let spared = !spare.is_empty() && String::from_utf8_lossy(&words).contains(spare);
        !spared && exe.is_ok_and(|path| path.to_string_lossy().contains("/qemu-system-"))
    };
    let begin = Instant::now();
    loop {
        let all = fs::read_dir("/proc").map_err(|error| error.to_string())?;
        let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let qemus: Vec<i32> = pids.filter(is_qemu).collect();
        if qemus.is_empty() {
            return Ok(());
        }
        if begin.elapsed() > Duration::from_secs(20) {
            return Err(format!("QEMU cannot be killed: {qemus:?}"));
        }
        for pid in qemus {
            // It may be ending by itself.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn script(text: &str, sweep: &Sweep) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    match shell(text, sweep.seconds) {
        (true, _) => Ok(()),
        (false, said) => Err(format!("`{text}` failed:\n{said}")),
    }
}

/// A script, ended when its time is over; whether it succeeded, and what it said.
fn shell(text: &str, seconds: u64) -> (bool, String) {
    // Into a file: a supervisor that it leaves in the background may keep the descriptor.
    let path = "/tmp/lab-sweep-script.log";
    let log = fs::File::create(path).expect("a file");
    let status = Command::new("timeout")
        .args(["-s", "KILL", &seconds.to_string(), "dash", "-c", text])
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone().expect("a second descriptor"))
        .stderr(log)
        .status()
        .expect("a shell");
    (
        status.success(),
        fs::read_to_string(path).unwrap_or_default(),
    )
}

fn say(line: &str) {
    let mut stdout = std::io::stdout();
    // Seen from outside as it comes.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
