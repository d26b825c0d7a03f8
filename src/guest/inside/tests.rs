//! Commands and copies with this host in the guest's place: its shell runs the scripts.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::mpsc;

use super::copy::{CopyError, Incoming, Outgoing};
use super::exec::{self, Ends, ExecError, Job, Stream};
use super::here::Here;
use super::script::PLACES;
use crate::error::Report;

/// What came of a command.
struct Came {
    done: Result<u8, ExecError>,
    out: Vec<u8>,
    err: Vec<u8>,
}

fn job(words: &[&str]) -> Job {
    Job {
        words: words.iter().map(ToString::to_string).collect(),
        input_ends: true,
        ..Job::default()
    }
}

async fn run(here: &mut Here, job: Job) -> Came {
    let (_keep, mut signals) = mpsc::unbounded_channel();
    let (_, mut input) = mpsc::channel(1);
    run_with(here, job, &mut input, &mut signals, usize::MAX).await
}

/// The same, whose output is wanted up to that many bytes.
async fn run_with(
    here: &mut Here,
    job: Job,
    input: &mut mpsc::Receiver<std::io::Result<Vec<u8>>>,
    signals: &mut mpsc::UnboundedReceiver<Signal>,
    wanted: usize,
) -> Came {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut output = |stream: Stream, bytes: &[u8]| -> Result<bool, Report> {
        match stream {
            Stream::Out => out.extend_from_slice(bytes),
            Stream::Err => err.extend_from_slice(bytes),
        }
        Ok(out.len() < wanted)
    };
    let ends = Ends {
        output: &mut output,
        input,
        signals,
    };
    let done = exec::run(here, job, ends).await;
    Came { done, out, err }
}

/// Folders of commands that printed that: none may stay.
fn left(here: &Here, sign: &str) -> usize {
    assert!(here.calls["guest-exec"] > 0);
    let entries = PLACES.iter().filter_map(|place| fs::read_dir(place).ok());
    let ours = entries.flatten().flatten().filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let mark = fs::read_to_string(entry.path().join("out")).unwrap_or_default();
        name.starts_with("mvm-exec-") && mark.contains(sign)
    });
    ours.count()
}

#[tokio::test]
async fn a_quick_command_takes_few_calls() {
    let mut here = Here::default();
    let mut job = job(&[
        "/bin/sh",
        "-c",
        "cat; printf %s \"$A$PWD\"; echo e >&2; exit 3",
    ]);
    job.input = b"in\0\n".to_vec();
    job.env = vec!["A=x y\n".to_owned()];
    job.cwd = Some("/".to_owned());
    let came = run(&mut here, job).await;
    assert_eq!(came.done.unwrap(), 3);
    assert_eq!(
        (came.out.as_slice(), came.err.as_slice()),
        (&b"in\0\nx y\n/"[..], &b"e\n"[..])
    );
    assert_eq!(here.calls["guest-exec"], 1);
}

#[tokio::test]
async fn long_output_comes_whole() {
    let mut here = Here::default();
    let script = "echo left-by-1; i=0; while [ $i -lt 40000 ]; do i=$((i + 1)); echo $i; echo e$i >&2; done; kill -9 $$";
    let came = run(&mut here, job(&["/bin/sh", "-c", script])).await;
    assert_eq!(came.done.unwrap(), 137);
    let lines = |mark: &str| -> String { (1..=40_000).map(|i| format!("{mark}{i}\n")).collect() };
    assert!(came.out == format!("left-by-1\n{}", lines("")).as_bytes());
    assert!(came.err == lines("e").as_bytes());
    assert_eq!(left(&here, "left-by-1"), 0);
}

#[tokio::test]
async fn input_comes_while_it_runs() {
    let mut here = Here::default();
    let mut job = job(&["/bin/sh", "-c", "read -r a; echo \"$a\"; wc -c"]);
    job.input = b"first\n".to_vec();
    job.input_ends = false;
    let (sender, mut input) = mpsc::channel(1);
    let (_keep, mut signals) = mpsc::unbounded_channel();
    let feeding = async move {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            sender.send(Ok(vec![b'x'; 100_000])).await.unwrap();
        }
    };
    let running = run_with(&mut here, job, &mut input, &mut signals, usize::MAX);
    let (came, ()) = tokio::join!(running, feeding);
    assert_eq!(came.done.unwrap(), 0);
    let said = String::from_utf8(came.out).unwrap();
    assert_eq!(
        said.split_whitespace().collect::<Vec<_>>(),
        ["first", "500000"]
    );
}

#[tokio::test]
async fn what_runs_too_long_is_ended() {
    let mut here = Here::default();
    let mut job = job(&["/bin/sh", "-c", "echo left-by-2; sleep 100 & sleep 200"]);
    job.timeout = Some(Duration::from_millis(500));
    let came = run(&mut here, job).await;
    assert!(
        matches!(came.done, Err(ExecError::TimedOut { .. })),
        "{:?}",
        came.done
    );
    assert_eq!(came.out, b"left-by-2\n");
    assert_eq!(left(&here, "left-by-2"), 0);
}

#[tokio::test]
async fn signals_go_on_and_a_reader_that_goes_away_ends_it() {
    let mut here = Here::default();
    let (sender, mut signals) = mpsc::unbounded_channel();
    sender.send(Signal::SIGTERM).unwrap();
    let (_, mut input) = mpsc::channel(1);
    let script = "trap 'echo caught; exit 5' TERM; while :; do sleep 0.05; done";
    let words = job(&["/bin/sh", "-c", script]);
    let came = run_with(&mut here, words, &mut input, &mut signals, usize::MAX).await;
    // Before the trap was set it ends by the signal.
    let status = came.done.unwrap();
    assert!(
        status == 5 && came.out == b"caught\n" || status == 143,
        "{status}"
    );
    let words = job(&["/bin/sh", "-c", "echo left-by-3; exec yes"]);
    let came = run_with(&mut here, words, &mut input, &mut signals, 1).await;
    assert_eq!(came.done.unwrap(), 141);
    assert_eq!(left(&here, "left-by-3"), 0);
}

#[tokio::test]
async fn a_silent_agent_is_waited_for_and_a_new_one_told() {
    let mut here = Here::default();
    here.silent = 3;
    let came = run(&mut here, job(&["/bin/sh", "-c", "echo x"])).await;
    assert_eq!((came.done.unwrap(), came.out.as_slice()), (0, &b"x\n"[..]));
    let mut here = Here::default();
    here.dies_at = Some(12);
    let came = run(&mut here, job(&["/bin/sh", "-c", "exec sleep 3"])).await;
    let Err(ExecError::Forgotten { still, .. }) = came.done else {
        panic!("{:?}", came.done);
    };
    let pid = still.unwrap().expect("it still runs");
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(line, b"sleep\x003\x00");
}

#[tokio::test]
async fn what_cannot_be_run_says_why() {
    let mut here = Here::default();
    let came = run(&mut here, job(&["/nosuch/command"])).await;
    assert_eq!(came.done.unwrap(), 127);
    let mut nowhere = job(&["/bin/true"]);
    nowhere.cwd = Some("/nosuch".to_owned());
    let came = run(&mut here, nowhere).await;
    assert!(
        matches!(came.done, Err(ExecError::NoCwd { .. })),
        "{:?}",
        came.done
    );
    here.no_shell = true;
    let came = run(&mut here, job(&["/bin/echo", "alone"])).await;
    assert_eq!(
        (came.done.unwrap(), came.out.as_slice()),
        (0, &b"alone\n"[..])
    );
    here.truncates = true;
    let came = run(
        &mut here,
        job(&["/usr/bin/env", "sh", "-c", "echo part; exit 4"]),
    )
    .await;
    assert!(
        matches!(came.done, Err(ExecError::Truncated { status: 4, .. })),
        "{:?}",
        came.done
    );
    assert_eq!(came.out, b"part\n");
    let mut fed = job(&["/bin/cat"]);
    fed.input_ends = false;
    let came = run(&mut here, fed).await;
    assert!(
        matches!(came.done, Err(ExecError::NeedsShell { .. })),
        "{:?}",
        came.done
    );
}

#[tokio::test]
async fn files_take_their_place_when_they_are_complete() {
    let top = tempfile::tempdir().unwrap();
    let path = |name: &str| top.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("a b"), "old").unwrap();
    std::os::unix::fs::symlink("a b", path("link")).unwrap();
    let mut here = Here::default();
    let given_up = Incoming::begin(&mut here, &path("link"), None)
        .await
        .unwrap();
    given_up.add(&mut here, b"half").await.unwrap();
    given_up.discard(&mut here).await;
    assert_eq!(fs::read(path("a b")).unwrap(), b"old");
    let incoming = Incoming::begin(&mut here, &path("link"), None)
        .await
        .unwrap();
    incoming.add(&mut here, &vec![7; 300_000]).await.unwrap();
    assert_eq!(incoming.becomes(), path("a b"));
    incoming.finish(&mut here, Some(0o640)).await.unwrap();
    assert_eq!(fs::read_dir(top.path()).unwrap().count(), 2);
    let outgoing = Outgoing::open(&mut here, &path("link")).await.unwrap();
    assert_eq!((outgoing.mode, outgoing.size), (Some(0o640), Some(300_000)));
    let first = outgoing.next(&mut here).await.unwrap();
    let second = outgoing.next(&mut here).await.unwrap();
    assert_eq!(first.len() + second.len(), 300_000);
    assert!(outgoing.next(&mut here).await.unwrap().is_empty());
    // In a folder it has its own name, or is refused.
    let folder = path("");
    let incoming = Incoming::begin(&mut here, &folder, Some("c"))
        .await
        .unwrap();
    incoming.finish(&mut here, None).await.unwrap();
    assert_eq!(fs::read(path("c")).unwrap(), b"");
    for (to, why) in [
        (folder.as_str(), "is a folder"),
        ("/dev/null", "not an ordinary"),
        ("/nosuch/x", "no folder"),
    ] {
        let refused = Incoming::begin(&mut here, to, None).await.unwrap_err();
        assert!(
            matches!(refused, CopyError::Path { .. }) && refused.to_string().contains(why),
            "{refused}"
        );
    }
}
