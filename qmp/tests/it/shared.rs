//! The server on a scripted QEMU.

use std::{path::PathBuf, time::Duration};

use mvm_qmp::{Qmp, Server};
use serde_json::json;
use tokio::net::UnixListener;

use crate::{
    peer::{GREETING, NO_OOB, Peer},
    raw::Raw,
};

async fn shared(greeting: &str) -> (Peer, PathBuf, tempfile::TempDir) {
    let (mut peer, stream) = Peer::new();
    let (client, _) = tokio::join!(
        Qmp::from_stream(stream, Duration::from_secs(10)),
        peer.open(greeting)
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let server = Server::new(&client.unwrap().0);
    tokio::spawn(async move { server.serve(listener).await });
    (peer, path, dir)
}

#[tokio::test]
async fn out_of_band_overtakes_ten_slow_commands() {
    let (mut qemu, path, _dir) = shared(GREETING).await;
    let mut alone = Raw::negotiated(&path, &["oob"]).await;
    for id in 0..10 {
        alone
            .send(json!({"execute": "slow", "id": id}).to_string())
            .await;
    }
    let mut others = Vec::new();
    for id in 0..10 {
        let mut raw = Raw::negotiated(&path, &[]).await;
        raw.send(json!({"execute": "slow", "id": id}).to_string())
            .await;
        others.push(raw);
    }
    let mut slow = Vec::new();
    for _ in 0..7 {
        slow.push(qemu.request().await);
        assert_eq!(slow.last().unwrap()["execute"], "slow");
    }
    alone
        .send(json!({"exec-oob": "yank", "id": "now", "arguments": {"instances": []}}).to_string())
        .await;
    let yank = qemu.request().await;
    assert_eq!(
        (&yank["exec-oob"], &yank["arguments"]),
        (&json!("yank"), &json!({"instances": []}))
    );
    qemu.answer(&yank, json!({})).await;
    assert_eq!(alone.reply().await, json!({"return": {}, "id": "now"}));
    // Then all the others, in turn.
    for n in 0..20 {
        if n >= slow.len() {
            slow.push(qemu.request().await);
        }
        let request = slow[n].clone();
        qemu.answer(&request, json!({"n": n})).await;
    }
    for id in 0..10 {
        assert_eq!(alone.reply().await["id"], id);
    }
    for (id, raw) in others.iter_mut().enumerate() {
        assert_eq!(raw.reply().await["id"], id);
    }
}

#[tokio::test]
async fn oob_is_refused_where_qemu_has_none() {
    let (_qemu, path, _dir) = shared(NO_OOB).await;
    let mut raw = Raw::connect(&path).await;
    let refused = raw
        .call(json!({"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}))
        .await;
    assert_eq!(refused["error"]["class"], "GenericError");
    assert_eq!(
        raw.call(json!({"execute": "qmp_capabilities"})).await,
        json!({"return": {}})
    );
}

#[tokio::test]
async fn replies_and_ids_are_passed_on_to_the_letter() {
    let (mut qemu, path, _dir) = shared(GREETING).await;
    let mut raw = Raw::negotiated(&path, &[]).await;
    raw.send(r#"{"execute":"x","arguments":{"big": 18446744073709551616, "f": 1.10},"id":{ "b":1.0,"a":"\u00e9"}}"#).await;
    let mut line = String::new();
    qemu.line(r#"{"event": "NEW_ONE", "future": 1.50}"#).await;
    // Our own id is left out, the client's is not QEMU's business.
    let request = qemu.text().await;
    assert_eq!(
        request,
        "{\"execute\":\"x\",\"arguments\":{\"big\":18446744073709551616,\"f\":1.10}}\n"
    );
    qemu.line(r#"{"return": {"n": 18446744073709551616, "f": 2.20}}"#)
        .await;
    for _ in 0..2 {
        line.push_str(&raw.line().await.unwrap());
    }
    let event = "{\"event\": \"NEW_ONE\", \"future\": 1.50}\r\n";
    let reply = "{\"return\": {\"n\": 18446744073709551616, \"f\": 2.20}, \"id\": { \"b\":1.0,\"a\":\"\\u00e9\"}}\r\n";
    assert_eq!(line, format!("{event}{reply}"));
}

#[tokio::test]
async fn the_end_of_qemu_ends_every_client() {
    let (mut qemu, path, _dir) = shared(GREETING).await;
    let mut busy = Raw::negotiated(&path, &[]).await;
    let mut quitter = Raw::negotiated(&path, &[]).await;
    busy.send(r#"{"execute":"slow"}"#).await;
    qemu.request().await;
    quitter.send(r#"{"execute":"quit","id":1}"#).await;
    qemu.request().await;
    drop(qemu);
    assert_eq!(busy.line().await, None);
    // QEMU did as it was told, though it had no time to say so.
    assert_eq!(quitter.reply().await, json!({"return": {}, "id": 1}));
    assert_eq!(quitter.line().await, None);
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_no_command_behind_in_the_queue() {
    let (mut qemu, path, _dir) = shared(GREETING).await;
    let mut slow = Vec::new();
    for id in 0..8 {
        let mut raw = Raw::negotiated(&path, &[]).await;
        raw.send(json!({"execute": "slow", "id": id}).to_string())
            .await;
        slow.push(raw);
    }
    let mut requests = Vec::new();
    for _ in 0..7 {
        requests.push(qemu.request().await);
    }
    // The first has its command at QEMU: the reply finds nobody, and nobody minds.
    drop(slow.remove(0));
    for request in &requests {
        qemu.answer(request, json!({})).await;
    }
    let last = qemu.request().await;
    qemu.answer(&last, json!({})).await;
    for (i, raw) in slow.iter_mut().enumerate() {
        assert_eq!(raw.reply().await["id"], i + 1);
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_can_ask_for_only_so_much() {
    let (mut qemu, path, _dir) = shared(GREETING).await;
    let mut lazy = Raw::negotiated(&path, &["oob"]).await;
    for id in 0..100 {
        lazy.send(json!({"execute": "big", "id": id}).to_string())
            .await;
    }
    let big = json!("x".repeat(100_000));
    let mut asked = 0;
    let quiet = Duration::from_millis(300);
    while let Ok(request) = tokio::time::timeout(quiet, qemu.request()).await {
        qemu.answer(&request, big.clone()).await;
        asked += 1;
    }
    // What its socket holds, and one reply more.
    assert!((1..20).contains(&asked), "{asked}");
    let mut other = Raw::negotiated(&path, &[]).await;
    other.send(r#"{"execute":"small"}"#).await;
    let request = qemu.request().await;
    assert_eq!(request["execute"], "small");
    qemu.answer(&request, json!(1)).await;
    assert_eq!(other.reply().await, json!({"return": 1}));
    // Once it reads, it gets all of it.
    for id in 0..100 {
        if id >= asked {
            let request = qemu.request().await;
            qemu.answer(&request, big.clone()).await;
        }
        assert_eq!(lazy.reply().await["id"], id);
    }
}

#[tokio::test]
async fn an_error_without_an_id_goes_to_the_command_whose_turn_it_is() {
    let (mut qemu, path, _dir) = shared(GREETING).await;
    let mut clients = Vec::new();
    for id in 0..3 {
        let mut raw = Raw::negotiated(&path, &["oob"]).await;
        raw.send(json!({"execute": "x", "id": id}).to_string())
            .await;
        clients.push(raw);
    }
    clients[0].send(r#"{"exec-oob":"yank","id":"oob"}"#).await;
    let mut requests = Vec::new();
    for _ in 0..4 {
        requests.push(qemu.request().await);
    }
    let nameless = r#"{"error": {"class": "GenericError", "desc": "JSON parse error"}}"#;
    qemu.answer(&requests[0], json!({})).await;
    qemu.line(nameless).await;
    qemu.line(nameless).await;
    qemu.answer(&requests[3], json!({})).await;
    assert_eq!(clients[0].reply().await, json!({"return": {}, "id": 0}));
    assert_eq!(clients[0].reply().await, json!({"return": {}, "id": "oob"}));
    for (id, raw) in clients.iter_mut().enumerate().skip(1) {
        let reply = raw.reply().await;
        assert_eq!(
            (&reply["id"], reply["error"].is_object()),
            (&json!(id), true)
        );
    }
}
