//! The server on a real QEMU.

use std::{path::PathBuf, time::Duration};

use mvm_qmp::{ClientCommand, Hook, Limits, Qmp, Refusal, Server, Verdict};
use serde_json::{Value, json};
use tokio::{
    io::AsyncReadExt,
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

use crate::{
    qemu::{Qemu, SECONDS},
    raw::Raw,
};

pub(crate) struct Shared {
    pub(crate) qemu: Qemu,
    pub(crate) qmp: Qmp,
    pub(crate) server: Server,
    serving: JoinHandle<()>,
    pub(crate) path: PathBuf,
}

pub(crate) fn forward(_: &ClientCommand<'_>) -> Verdict {
    Verdict::Forward
}

pub(crate) async fn shared(limits: Limits, hook: impl Hook) -> Option<Shared> {
    let qemu = Qemu::start(&["-qmp", "unix:direct.sock,server=on,wait=off"])?;
    let (qmp, _) = qemu.connect().await;
    let path = qemu.path("shared.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = Server::with(&qmp, limits, hook);
    let serving = tokio::spawn({
        let server = server.clone();
        async move { server.serve(listener).await }
    });
    Some(Shared {
        qemu,
        qmp,
        server,
        serving,
        path,
    })
}

pub(crate) async fn plain() -> Option<Shared> {
    shared(Limits::default(), forward).await
}

#[tokio::test]
async fn a_conversation_goes_as_with_qemu_itself() {
    let Some(shared) = plain().await else { return };
    let mut direct = Raw::connect(&shared.qemu.path("direct.sock")).await;
    let mut through = Raw::connect(&shared.path).await;
    let requests: &[&[u8]] = &[
        br#"{"execute":"query-status","id":1}"#,
        br#"{"exec-oob":"query-yank","id":1}"#,
        br#"{"execute":"qmp_capabilities","arguments":{"enable":["foo"]},"id":2}"#,
        br#"{"execute":"qmp_capabilities","arguments":{"enable":["oob"]},"id":{"a":[1, 2.50]}}"#,
        br#"{"execute":"qmp_capabilities"}"#,
        br#"{'execute':'query-status','id':'it\'s "x"'}"#,
        br#"{"execute":"query-status","foo":1,"id":true}"#,
        br#"{"execute":"query-status","id":null}"#,
        b"hello\n",
        br#"{"execute" 5}"#,
        b"[]",
        b"{}",
        b"5\n",
        br#"{"execute":5,"id":3}"#,
        br#"{"execute":"query-status","exec-oob":"a"}"#,
        br#"{"execute":"query-status","arguments":5}"#,
        br#"{"execute":"query-status","arguments":{"a":1},"id":4}"#,
        b"}\n",
        b"\n  {\n\"execute\"\n:\"query-status\" , \"id\": 7 }\n",
        br#"{"exec-oob":"query-status","id":10}"#,
        br#"{"exec-oob":"query-yank","id":11}"#,
        br#"{"execute":"nope","id":12}"#,
        br#"{"execute":"query-status","id":1,"id":2}"#,
        br#"{"execute":"getfd","arguments":{"fdname":"a"},"id":13}"#,
        br#"{"execute":"getfd","arguments":{"fdname":"1"},"id":13}"#,
        br#"{"execute":"closefd","arguments":{"fdname":"a"},"id":14}"#,
        br#"{"execute":"closefd","id":15}"#,
        br#"{"execute":"query-name","arguments":{}}"#,
    ];
    for request in requests {
        let text = String::from_utf8_lossy(request);
        direct.send(request).await;
        through.send(request).await;
        let (mut direct, mut through) = (direct.reply().await, through.reply().await);
        // QEMU's version of words is its own where the text itself is at fault.
        for reply in [&mut direct, &mut through] {
            let desc = reply["error"]["desc"].as_str().unwrap_or_default();
            if desc.contains("JSON parse error") || desc.starts_with("Parameter") || text == "5\n" {
                reply["error"]["desc"] = Value::Null;
            }
        }
        if direct["return"].is_array() {
            // `query-yank` lists the sockets themselves; both have the same.
            assert!(through["return"].is_array());
        } else if text != "hello\n" && text != "5\n" && text != "}\n" {
            assert_eq!(through, direct, "{text}");
        } else {
            assert_eq!(
                through["error"]["class"], direct["error"]["class"],
                "{text}"
            );
        }
    }
    assert_eq!(shared.qmp.junk_lines(), 0);
}

#[tokio::test]
async fn twenty_clients_at_once() {
    let Some(shared) = plain().await else { return };
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..20 {
        let path = shared.path.clone();
        tasks.spawn(async move {
            let mut raw = Raw::negotiated(&path, &[]).await;
            for id in 0..50 {
                let unknown = format!("c{client}-{id}");
                let reply = raw.call(json!({"execute": unknown, "id": id})).await;
                let desc = format!("The command {unknown} has not been found");
                assert_eq!(
                    reply,
                    json!({"error": {"class": "CommandNotFound", "desc": desc}, "id": id})
                );
            }
            // Ten at once come back in order.
            for id in 0..10 {
                raw.send(json!({"execute": "query-status", "id": [id, client]}).to_string())
                    .await;
            }
            for id in 0..10 {
                assert_eq!(raw.reply().await["id"], json!([id, client]));
            }
            raw
        });
    }
    let mut clients = tasks.join_all().await;
    assert_eq!(shared.server.clients(), 20);
    shared.qmp.call("stop", None).await.unwrap();
    for client in &mut clients {
        let event = client.event().await;
        assert_eq!(event["event"], "STOP");
        assert!(event["timestamp"]["seconds"].as_i64().unwrap() > 1_600_000_000);
    }
    // One that has not negotiated hears nothing of it.
    let mut late = Raw::connect(&shared.path).await;
    clients[0].call(json!({"execute": "cont"})).await;
    let reply = late.call(json!({"execute": "qmp_capabilities"})).await;
    assert_eq!(reply, json!({"return": {}}));
    drop(clients);
    while shared.server.clients() > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_clients_quit_ends_qemu_and_everyone_is_told() {
    let Some(mut shared) = plain().await else {
        return;
    };
    let mut other = Raw::negotiated(&shared.path, &[]).await;
    let mut silent = Raw::connect(&shared.path).await;
    let mut raw = Raw::negotiated(&shared.path, &[]).await;
    assert_eq!(
        raw.call(json!({"execute": "quit", "id": "q"})).await,
        json!({"return": {}, "id": "q"})
    );
    assert_eq!(raw.line().await, None);
    assert_eq!(other.event().await["event"], "SHUTDOWN");
    assert_eq!(other.line().await, None);
    assert_eq!(silent.line().await, None);
    tokio::time::timeout(SECONDS, shared.serving)
        .await
        .unwrap()
        .unwrap();
    assert!(shared.qmp.is_closed() && shared.qemu.ended().await);
}

fn end_of_pipe() -> (UnixStream, std::os::unix::net::UnixStream) {
    let (kept, given) = std::os::unix::net::UnixStream::pair().unwrap();
    kept.set_nonblocking(true).unwrap();
    (UnixStream::from_std(kept).unwrap(), given)
}

/// Whether all copies of the other end get closed.
async fn gets_closed(stream: &mut UnixStream) -> bool {
    let read = tokio::time::timeout(SECONDS, stream.read_u8()).await;
    matches!(read, Ok(Err(e)) if e.kind() == std::io::ErrorKind::UnexpectedEof)
}

#[tokio::test]
async fn names_of_descriptors_are_each_clients_own() {
    let Some(shared) = plain().await else { return };
    let mut one = Raw::negotiated(&shared.path, &[]).await;
    let mut two = Raw::negotiated(&shared.path, &[]).await;
    let getfd = |id: u32| json!({"execute": "getfd", "arguments": {"fdname": "x"}, "id": id});
    let (mut ends, mut given): (Vec<_>, Vec<_>) = (0..3).map(|_| end_of_pipe()).unzip();
    assert_eq!(
        one.call_with_fd(getfd(1), given.remove(0)).await,
        json!({"return": {}, "id": 1})
    );
    assert_eq!(
        two.call_with_fd(getfd(2), given.remove(0)).await,
        json!({"return": {}, "id": 2})
    );
    let closefd = json!({"execute": "closefd", "arguments": {"fdname": "x"}});
    assert_eq!(one.call(closefd.clone()).await, json!({"return": {}}));
    assert!(gets_closed(&mut ends.remove(0)).await);
    let missing = one.call(closefd.clone()).await;
    assert_eq!(
        missing["error"]["desc"],
        "File descriptor named 'x' not found"
    );
    // The other's is still there, by its name, where it is used.
    let netdev =
        json!({"execute": "netdev_add", "arguments": {"type": "socket", "id": "n", "fd": "x"}});
    assert!(one.call(netdev.clone()).await.get("error").is_some());
    assert_eq!(two.call(netdev).await, json!({"return": {}}));
    let gone = two.call(closefd).await;
    assert_eq!(gone["error"]["desc"], "File descriptor named 'x' not found");
    // What a client leaves behind is closed.
    assert_eq!(
        one.call_with_fd(getfd(3), given.remove(0)).await,
        json!({"return": {}, "id": 3})
    );
    drop(one);
    assert!(gets_closed(&mut ends.remove(1)).await);

    let add = json!({"execute": "add-fd", "arguments": {"fdset-id": 5, "opaque": "o"}});
    let file = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(two.call_with_fd(add, file).await["return"]["fdset-id"], 5);
    let sets = two.call(json!({"execute": "query-fdsets"})).await;
    assert_eq!(sets["return"][0]["fds"][0]["opaque"], "o");
    // QEMU reads descriptor after descriptor, however many clients send one.
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let path = shared.path.clone();
        tasks.spawn(async move {
            let mut raw = Raw::negotiated(&path, &[]).await;
            for id in 0..5 {
                let request =
                    json!({"execute": "getfd", "arguments": {"fdname": format!("f{id}")}});
                let file = std::fs::File::open("/dev/null").unwrap();
                assert_eq!(raw.call_with_fd(request, file).await, json!({"return": {}}));
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test]
async fn programs_are_refused_and_hooks_decide() {
    let hook = |command: &ClientCommand<'_>| match command.name {
        "quit" => Verdict::Answer(Err(Refusal::generic("not now"))),
        "query-name" => Verdict::Answer(Ok(json!({"name": command.arguments().len()}))),
        "system_powerdown" => Verdict::Later(Box::pin(async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            Ok(json!({}))
        })),
        _ => Verdict::Forward,
    };
    let Some(shared) = shared(Limits::default(), hook).await else {
        return;
    };
    let mut raw = Raw::negotiated(&shared.path, &[]).await;
    let exec = raw
        .call(json!({"execute": "migrate", "arguments": {"uri": "exec:cat"}, "id": 1}))
        .await;
    assert!(
        exec["error"]["desc"]
            .as_str()
            .unwrap()
            .starts_with("exec: is refused"),
        "{exec}"
    );
    assert_eq!(
        raw.call(json!({"execute": "quit"})).await["error"]["desc"],
        "not now"
    );
    let named = raw
        .call(json!({"execute": "query-name", "arguments": {"a": 1}}))
        .await;
    assert_eq!(named["return"]["name"], 1);
    // A late answer keeps its place before what follows.
    raw.send(r#"{"execute":"system_powerdown","id":1}{"execute":"query-status","id":2}"#)
        .await;
    assert_eq!(raw.reply().await, json!({"return": {}, "id": 1}));
    assert_eq!(raw.reply().await["id"], 2);
}

#[tokio::test]
async fn a_script_that_sends_everything_and_hangs_up_gets_its_replies() {
    let Some(shared) = plain().await else { return };
    let mut raw = Raw::connect(&shared.path).await;
    raw.send(r#"{"execute":"qmp_capabilities"}{"execute":"query-status","id":1}{"execute":"query-qmp-schema","id":2}{"execute":"nope","id":3}"#).await;
    let rest = raw.rest().await;
    let lines: Vec<Value> = rest
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 4);
    assert!(lines[2]["return"].as_array().unwrap().len() > 500);
    assert_eq!(lines[3]["id"], 3);
}
