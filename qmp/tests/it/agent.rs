//! The guest agent client: against scripted guests, and against the real agent where there is one.

use std::{path::PathBuf, process::Command, time::Duration};

use mvm_qmp::{Agent, AgentError, qapi};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(50);

/// The guest's end of the channel.
struct Guest(BufReader<UnixStream>);

impl Guest {
    fn new() -> (Self, Agent) {
        let (near, far) = UnixStream::pair().unwrap();
        (Self(BufReader::new(near)), Agent::new(far))
    }

    async fn raw(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).await.unwrap();
    }

    async fn request(&mut self) -> Value {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).await.unwrap();
        // What the real agent's parser does at this byte.
        let start = line.iter().rposition(|&b| b == 0xff).map_or(0, |at| at + 1);
        serde_json::from_slice(&line[start..]).unwrap()
    }

    async fn answer(&mut self, value: Value) {
        self.raw(format!("{}\n", json!({ "return": value }))).await;
    }

    /// Answers one synchronisation as an agent does.
    async fn sync(&mut self) {
        let request = self.request().await;
        assert_eq!(request["execute"], "guest-sync-delimited");
        self.sync_answer(&request).await;
    }

    async fn sync_answer(&mut self, request: &Value) {
        self.raw(b"\xff").await;
        self.answer(request["arguments"]["id"].clone()).await;
    }
}

#[tokio::test]
async fn a_call_gets_in_step_once() {
    let (mut guest, agent) = Guest::new();
    let (answers, ()) = tokio::join!(
        async {
            let first = agent.call("guest-info", None, LONG).await.unwrap();
            let refused = agent
                .call("guest-exec", Some(json!({"path": "x"})), LONG)
                .await;
            (first, refused)
        },
        async {
            guest.sync().await;
            assert_eq!(guest.request().await, json!({"execute": "guest-info"}));
            guest.answer(json!({"version": "1"})).await;
            let request = guest.request().await;
            assert_eq!(
                request,
                json!({"execute": "guest-exec", "arguments": {"path": "x"}})
            );
            guest
                .raw(b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such file\"}}\n")
                .await;
        }
    );
    assert_eq!(answers.0, json!({"version": "1"}));
    assert!(matches!(answers.1, Err(AgentError::Command { desc, .. }) if desc == "no such file"));
}

#[tokio::test]
async fn a_silent_guest_is_told_by_the_deadline_and_not_buried_in_requests() {
    let (mut guest, agent) = Guest::new();
    for _ in 0..10 {
        assert!(matches!(
            agent.ping(SHORT).await,
            Err(AgentError::Silent { .. })
        ));
    }
    assert!(matches!(
        agent.call("x", None, SHORT).await,
        Err(AgentError::Silent { .. })
    ));
    // It starts late, finds what was left for it, and answers all of it.
    let (done, sent) = tokio::join!(agent.call("guest-ping", None, LONG), async {
        let mut sent = 0;
        loop {
            let request = guest.request().await;
            if request["execute"] == "guest-ping" {
                guest.answer(json!({})).await;
                return sent;
            }
            sent += 1;
            guest.sync_answer(&request).await;
        }
    });
    done.unwrap();
    assert_eq!(sent, 4);
}

#[tokio::test]
async fn a_slow_answer_is_never_taken_for_the_next_one() {
    let (mut guest, agent) = Guest::new();
    let (slow, ()) = tokio::join!(agent.call("slow", None, 10 * SHORT), async {
        guest.sync().await;
        assert_eq!(guest.request().await["execute"], "slow");
    });
    assert!(matches!(slow, Err(AgentError::Timeout { command, .. }) if command == "slow"));
    guest.answer(json!("late")).await;
    let (next, ()) = tokio::join!(agent.call("next", None, LONG), async {
        guest.sync().await;
        assert_eq!(guest.request().await["execute"], "next");
        guest.answer(json!("right")).await;
    });
    assert_eq!(next.unwrap(), "right");
}

#[tokio::test]
async fn dropped_calls_do_no_harm() {
    let (mut guest, agent) = Guest::new();
    let serve = async {
        loop {
            let request = guest.request().await;
            match request["execute"].as_str() {
                Some("guest-sync-delimited") => guest.sync_answer(&request).await,
                _ => guest.answer(request["arguments"]["n"].clone()).await,
            }
        }
    };
    let calls = async {
        for n in 0..50 {
            let call = agent.call("echo", Some(json!({"n": n})), LONG);
            let _ = tokio::time::timeout(Duration::from_micros(n * 5), call).await;
        }
        agent.call("echo", Some(json!({"n": "good"})), LONG).await
    };
    tokio::select! {
        () = serve => unreachable!(),
        good = calls => assert_eq!(good.unwrap(), "good"),
    }
}

#[tokio::test]
async fn stale_answers_and_garbage_are_passed_over() {
    let (mut guest, agent) = Guest::new();
    guest.raw(b"Debian GNU/Linux 12 hvc0\r\n\r\nlogin: \xff{\"return\": 17}\n{\"return\": {}}\nhalf a li").await;
    let (first, ()) = tokio::join!(agent.call("a", None, LONG), async {
        let request = guest.request().await;
        guest.raw(b"ne\xff\xff{\"return\": \"no\"}\n\xff{bad\n{\"error\": {\"class\": \"x\", \"desc\": \"y\"}}\n").await;
        guest.raw(vec![b'#'; 300_000]).await;
        guest.sync_answer(&request).await;
        guest.request().await;
        guest.raw(b"\n\xfe\n[1]\n").await;
        guest.answer(json!(1)).await;
    });
    assert_eq!(first.unwrap(), 1);
    // Something unasked between two calls: the next one gets in step again.
    guest.raw(b"{\"return\": 2}\nlog").await;
    let (second, ()) = tokio::join!(agent.call("b", None, LONG), async {
        guest.sync().await;
        guest.request().await;
        guest.answer(json!(3)).await;
    });
    assert_eq!(second.unwrap(), 3);
}

#[tokio::test]
async fn a_guest_that_never_stops_talking_is_bounded() {
    // From a thread of its own, so that there is always more to read.
    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    let flood = std::thread::spawn(move || {
        use std::io::Write;
        while (&near).write_all(&[b'x'; 65536]).is_ok() {}
    });
    let agent = Agent::new(UnixStream::from_std(far).unwrap());
    let got = agent.call("a", None, SHORT).await;
    assert!(matches!(got, Err(AgentError::Silent { .. })), "{got:?}");
    let got = agent.ping(SHORT).await;
    assert!(matches!(got, Err(AgentError::Silent { .. })), "{got:?}");
    drop(agent);
    flood.join().unwrap();

    let (mut guest, agent) = Guest::new();
    let endless = async {
        guest.sync().await;
        guest.request().await;
        guest.raw(b"{\"return\": \"").await;
        loop {
            // Ends once the caller has given up and asks to get in step.
            tokio::select! {
                biased;
                request = guest.0.read_u8() => break assert_eq!(request.unwrap(), 0xff),
                () = tokio::time::sleep(Duration::ZERO) => {}
            }
            guest.raw(vec![b'x'; 65536]).await;
        }
        guest.sync().await;
    };
    let calls = async {
        let got = agent.call("a", None, LONG).await;
        assert!(matches!(got, Err(AgentError::TooLong { .. })), "{got:?}");
        agent.ping(LONG).await
    };
    tokio::join!(endless, calls).1.unwrap();
}

#[tokio::test]
async fn commands_that_do_not_answer() {
    let (mut guest, agent) = Guest::new();
    let (fired, ()) = tokio::join!(
        agent.fire("guest-shutdown", Some(json!({"mode": "halt"})), LONG),
        async {
            guest.sync().await;
            assert_eq!(guest.request().await["arguments"]["mode"], "halt");
        }
    );
    fired.unwrap();
    let (refused, ()) = tokio::join!(agent.fire("guest-suspend-ram", None, LONG), async {
        guest.sync().await;
        guest.request().await;
        guest
            .raw(b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"not supported\"}}\n")
            .await;
    });
    assert!(
        matches!(refused, Err(AgentError::Command { .. })),
        "{refused:?}"
    );
    let silent = agent.fire("guest-shutdown", None, SHORT).await;
    assert!(
        matches!(silent, Err(AgentError::Silent { .. })),
        "{silent:?}"
    );
    drop(guest);
    assert!(agent.ping(LONG).await.unwrap_err().is_closed());
}

#[tokio::test]
async fn calls_queue_up() {
    let (mut guest, agent) = Guest::new();
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..5 {
        let agent = agent.clone();
        calls.spawn(async move {
            (
                n,
                agent
                    .call("echo", Some(json!({"n": n})), LONG)
                    .await
                    .unwrap(),
            )
        });
    }
    guest.sync().await;
    for _ in 0..5 {
        let request = guest.request().await;
        // The next must not be sent before this one is answered.
        assert!(
            tokio::time::timeout(SHORT, guest.0.fill_buf())
                .await
                .is_err()
        );
        guest.answer(request["arguments"]["n"].clone()).await;
    }
    for (n, answer) in calls.join_all().await {
        assert_eq!(answer, n);
    }
}

#[tokio::test]
async fn the_real_agent() {
    let given = std::env::var_os("MVM_QEMU_GA").map(PathBuf::from);
    let usual = ["/usr/sbin/qemu-ga", "/usr/bin/qemu-ga"].map(PathBuf::from);
    let Some(program) = given.or_else(|| usual.into_iter().find(|path| path.exists())) else {
        eprintln!("SKIPPED: no qemu-ga in /usr/sbin, and MVM_QEMU_GA is not set");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (socket, state) = (dir.path().join("ga"), dir.path().join("state"));
    std::fs::create_dir(&state).unwrap();
    // This host stands in for the guest: only commands that change nothing.
    let mut child = Command::new(program)
        .args([
            "-m",
            "unix-listen",
            "-b",
            "guest-shutdown,guest-suspend-ram,guest-suspend-disk",
        ])
        .arg("-p")
        .arg(&socket)
        .arg("-t")
        .arg(&state)
        .spawn()
        .unwrap();
    while !socket.exists() {
        assert!(child.try_wait().unwrap().is_none());
        tokio::time::sleep(SHORT).await;
    }
    let agent = Agent::connect(&socket, LONG).await.unwrap();
    agent.ping(LONG).await.unwrap();
    let os = agent
        .execute(&qapi::qga::guest_get_osinfo {}, LONG)
        .await
        .unwrap();
    assert!(os.kernel_release.is_some());
    let _ = agent.call("guest-info", None, Duration::ZERO).await;
    assert_eq!(
        agent.call("guest-ping", None, LONG).await.unwrap(),
        json!({})
    );
    let unknown = agent.fire("guest-no-such-thing", None, LONG).await;
    assert!(
        matches!(unknown, Err(AgentError::Command { .. })),
        "{unknown:?}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
}
