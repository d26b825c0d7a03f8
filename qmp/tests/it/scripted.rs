//! The client against what QEMU will not do.

use std::time::Duration;

use mvm_qmp::{EVENTS_LOST, Events, Qmp, QmpError, qapi};
use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::peer::{GREETING, NO_OOB, Peer};

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(20);

async fn opened(greeting: &str) -> (Peer, Qmp, Events) {
    let (mut peer, stream) = Peer::new();
    let (client, _) = tokio::join!(Qmp::from_stream(stream, LONG), peer.open(greeting));
    let (qmp, events) = client.unwrap();
    (peer, qmp, events)
}

async fn failure(stream: UnixStream, deadline: Duration) -> QmpError {
    Qmp::from_stream(stream, deadline)
        .await
        .map(|_| ())
        .unwrap_err()
}

#[tokio::test]
async fn oob_is_enabled_only_where_it_is_offered() {
    let (mut peer, stream) = Peer::new();
    let (client, request) = tokio::join!(Qmp::from_stream(stream, LONG), peer.open(GREETING));
    assert_eq!(request["arguments"], json!({"enable": ["oob"]}));
    assert_eq!(client.unwrap().0.greeting().version, (99, 0, 1));

    let (mut peer, stream) = Peer::new();
    let (client, request) = tokio::join!(Qmp::from_stream(stream, LONG), peer.open(NO_OOB));
    assert_eq!(request.get("arguments"), None);
    let refused = client.unwrap().0.call_oob("yank", None).await.unwrap_err();
    assert!(matches!(refused, QmpError::NoOutOfBand { .. }), "{refused}");
}

#[tokio::test]
async fn openings_that_are_none() {
    let (mut peer, stream) = Peer::new();
    peer.raw("QEMU 7.2.0 monitor - type 'help' for more information\r\n(qemu) ")
        .await;
    let got = failure(stream, LONG).await;
    assert!(
        matches!(&got, QmpError::NotQmp { got } if got.starts_with("QEMU 7.2.0 monitor")),
        "{got}"
    );

    let (mut peer, stream) = Peer::new();
    peer.raw("login: ").await;
    let got = failure(stream, SHORT).await;
    assert!(
        matches!(&got, QmpError::NotQmp { got } if got == "login: "),
        "{got}"
    );

    let (_peer, stream) = Peer::new();
    assert!(matches!(
        failure(stream, SHORT).await,
        QmpError::NoGreeting { .. }
    ));

    let (peer, stream) = Peer::new();
    drop(peer);
    assert!(matches!(failure(stream, LONG).await, QmpError::Closed));

    let (mut peer, stream) = Peer::new();
    peer.line(GREETING).await;
    let silent = failure(stream, SHORT).await;
    assert!(matches!(&silent, QmpError::Timeout { command, .. } if command == "qmp_capabilities"));
}

#[tokio::test]
async fn words_meant_for_a_predecessor_are_passed_over() {
    let (mut peer, stream) = Peer::new();
    let (client, ()) = tokio::join!(Qmp::from_stream(stream, LONG), async {
        peer.line(r#"{"event": "STOP"}"#).await;
        peer.line(r#"{"return": "old"}"#).await;
        peer.line(GREETING).await;
        let request = peer.request().await;
        peer.line(r#"{"return": "old", "id": 1}"#).await;
        peer.line(r#"{"error": {"class": "GenericError", "desc": "old"}}"#)
            .await;
        peer.answer(&request, json!({})).await;
        peer.line(r#"{"event": "RESUME"}"#).await;
    });
    let (qmp, mut events) = client.unwrap();
    assert_eq!(events.next().await.unwrap().name, "RESUME");
    let (reply, ()) = tokio::join!(qmp.call("x", None), async {
        let request = peer.request().await;
        peer.answer(&request, json!("new")).await;
    });
    assert_eq!(reply.unwrap(), "new");
}

#[tokio::test]
async fn events_and_values_newer_than_the_schema_are_passed_on() {
    let (mut peer, qmp, mut events) = opened(GREETING).await;
    peer.line(r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "COFFEE_READY", "data": {"cups": 2}}"#).await;
    peer.line(r#"{"timestamp": {"seconds": 3, "microseconds": 4}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "boredom"}}"#).await;
    peer.line(r#"{"timestamp": {"seconds": -1, "microseconds": -1}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset", "more": [1]}}"#).await;
    peer.line(r#"{"event": "STOP", "new-member": {"a": 1}}"#)
        .await;

    let coffee = events.next().await.unwrap();
    assert_eq!(
        (coffee.name.as_str(), &coffee.data["cups"]),
        ("COFFEE_READY", &json!(2))
    );
    assert_eq!(
        (coffee.timestamp.seconds, coffee.timestamp.microseconds),
        (1, 2)
    );
    let bored = events.next().await.unwrap();
    assert_eq!(bored.data["reason"], "boredom");
    match bored.parse::<qapi::qmp::SHUTDOWN>() {
        Err(QmpError::Decode { raw, .. }) => assert_eq!(raw["reason"], "boredom"),
        other => panic!("{other:?}"),
    }
    let reset = events.next().await.unwrap();
    assert_eq!(reset.timestamp.time(), None);
    assert_eq!(
        reset.parse::<qapi::qmp::SHUTDOWN>().unwrap().reason,
        qapi::qmp::ShutdownCause::guest_reset
    );
    let stop = events.next().await.unwrap();
    stop.parse::<qapi::qmp::STOP>().unwrap();
    assert!(stop.parse::<qapi::qmp::RESUME>().is_err());

    let (status, ()) = tokio::join!(qmp.execute(&qapi::qmp::query_status {}), async {
        let request = peer.request().await;
        peer.answer(&request, json!({"status": "levitating", "running": true}))
            .await;
    });
    match status {
        Err(QmpError::Decode { raw, .. }) => assert_eq!(raw["status"], "levitating"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn garbage_and_half_lines_are_passed_over() {
    let (mut peer, qmp, mut events) = opened(GREETING).await;
    let (answer, ()) = tokio::join!(qmp.call("x", None), async {
        let request = peer.request().await;
        peer.raw(
            b"\xff\xfe\0garbage\r\n{\"half\": \n[]\n\r\n7\n{\"return\": 1, \"id\": 9999}\n{}\n",
        )
        .await;
        peer.line(r#"{"return": 1, "id": "a string"}"#).await;
        // The first of several goes without an id, and must not get the reply to another.
        assert_eq!(request.get("id"), None);
        let whole = "{\"return\": {\"a\": \"ü\"}}\r\n";
        for byte in whole.as_bytes() {
            peer.raw([*byte]).await;
            tokio::task::yield_now().await;
        }
        peer.line(r#"{"return": "nobody asked"}"#).await;
        peer.line(r#"{"event": "STOP"}"#).await;
    });
    assert_eq!(answer.unwrap(), json!({"a": "ü"}));
    assert_eq!(events.next().await.unwrap().name, "STOP");
    assert_eq!(qmp.junk_lines(), 8);
}

#[tokio::test]
async fn the_end_is_clean_even_in_the_middle_of_a_reply() {
    let (mut peer, qmp, mut events) = opened(GREETING).await;
    let (a, b, ()) = tokio::join!(qmp.call("a", None), qmp.call("b", None), async {
        peer.request().await;
        peer.line(r#"{"event": "STOP"}"#).await;
        peer.raw(r#"{"return": {"#).await;
        drop(peer);
    });
    assert!(matches!(a, Err(QmpError::Closed)) && matches!(b, Err(QmpError::Closed)));
    qmp.closed().await;
    assert!(qmp.is_closed());
    assert_eq!(events.next().await.unwrap().name, "STOP");
    assert!(events.next().await.is_none());
    assert!(qmp.subscribe().next().await.is_none());
    assert!(matches!(qmp.call("c", None).await, Err(QmpError::Closed)));
    assert_eq!(qmp.junk_lines(), 1);
}

#[tokio::test]
async fn late_replies_to_cancelled_calls_are_dropped() {
    let (mut peer, qmp, _events) = opened(GREETING).await;
    let qmp = qmp.with_deadline(SHORT);
    for _ in 0..3 {
        let late = qmp.call("slow", None).await.unwrap_err();
        assert!(
            matches!(&late, QmpError::Timeout { command, after } if command == "slow" && *after == SHORT)
        );
    }
    let slow = [
        peer.request().await,
        peer.request().await,
        peer.request().await,
    ];
    let (good, ()) = tokio::join!(qmp.call_within("good", None, LONG), async {
        for request in &slow {
            peer.answer(request, json!("late")).await;
        }
        let request = peer.request().await;
        assert_eq!(request["execute"], "good");
        peer.answer(&request, json!("right")).await;
    });
    assert_eq!(good.unwrap(), json!("right"));
    assert_eq!(qmp.junk_lines(), 0);
}

#[tokio::test]
async fn seven_commands_at_most_and_out_of_band_ones_pass_them() {
    let (mut peer, qmp, _events) = opened(GREETING).await;
    let mut calls = tokio::task::JoinSet::new();
    for i in 0..10 {
        let qmp = qmp.clone();
        calls.spawn(async move { qmp.call("slow", Some(json!({"i": i}))).await });
    }
    let mut slow = Vec::new();
    for i in 0..7 {
        slow.push(peer.request().await);
        assert_eq!(slow[i]["arguments"]["i"], i);
    }
    // One that still waits is given up: QEMU must never see it.
    let given_up = tokio::time::timeout(SHORT, qmp.call("given-up", None)).await;
    assert!(given_up.is_err());
    let (oob, ()) = tokio::join!(qmp.call_oob("yank", None), async {
        let request = peer.request().await;
        assert_eq!(request["exec-oob"], "yank");
        peer.answer(&request, json!({})).await;
    });
    oob.unwrap();
    for i in 0..10 {
        if i >= slow.len() {
            slow.push(peer.request().await);
        }
        peer.answer(&slow[i].clone(), slow[i]["arguments"]["i"].clone())
            .await;
    }
    let mut got: Vec<Value> = calls
        .join_all()
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    got.sort_by_key(Value::as_u64);
    assert_eq!(got, (0..10).map(Value::from).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_lagging_subscriber_is_told_and_delays_nobody() {
    let (mut peer, qmp, mut lagging) = opened(GREETING).await;
    let mut keeping_up = qmp.subscribe();
    for i in 0..300 {
        peer.line(&json!({"event": "TICK", "data": {"i": i}}).to_string())
            .await;
        assert_eq!(keeping_up.next().await.unwrap().data["i"], i);
    }
    let told = lagging.next().await.unwrap();
    assert_eq!(
        (told.name.as_str(), &told.data["count"]),
        (EVENTS_LOST, &json!(44))
    );
    assert_eq!(lagging.next().await.unwrap().data["i"], 44);
}

#[tokio::test]
async fn a_large_request_is_written_whole_though_its_caller_is_gone() {
    let (mut peer, qmp, _events) = opened(GREETING).await;
    let big = json!({"x": "y".repeat(4 << 20)});
    assert!(
        tokio::time::timeout(SHORT, qmp.call("big", Some(big.clone())))
            .await
            .is_err()
    );
    let (good, ()) = tokio::join!(qmp.call("good", None), async {
        let request = peer.request().await;
        assert_eq!(request["arguments"], big);
        peer.answer(&request, json!({})).await;
        let request = peer.request().await;
        peer.answer(&request, json!(5)).await;
    });
    assert_eq!(good.unwrap(), 5);
}

#[tokio::test]
async fn the_connection_ends_with_its_last_user() {
    let (mut peer, qmp, events) = opened(GREETING).await;
    drop(qmp);
    peer.line(r#"{"event": "STOP"}"#).await;
    drop(events);
    assert!(peer.at_end().await);
}
