//! Clients of the server that do harm, on a real QEMU: only they may suffer for it.

use std::time::Duration;

use mvm_qmp::Limits;
use serde_json::json;

use crate::{
    raw::Raw,
    server::{forward, plain, shared},
};

#[tokio::test]
async fn nonsense_harms_only_its_author() {
    let Some(shared) = plain().await else { return };
    let mut good = Raw::negotiated(&shared.path, &[]).await;
    let mut bad = Raw::negotiated(&shared.path, &["oob"]).await;
    // What our JSON parser lets pass, and QEMU's refuses without an id.
    let twice = r#"{"execute":"query-status","arguments":{"a":1,"a":2},"id":"twice"}"#;
    let noncharacter =
        "{\"execute\":\"query-status\",\"arguments\":{\"a\":\"\u{ffff}\"},\"id\":\"twice\"}";
    let surrogate = r#"{"execute":"query-status","arguments":{"a":"\ud800"},"id":"twice"}"#;
    for request in [twice, noncharacter, surrogate] {
        for _ in 0..10 {
            bad.send(request).await;
        }
        for _ in 0..10 {
            let reply = bad.reply().await;
            assert_eq!(reply["id"], "twice", "{reply}");
            assert!(reply.get("error").is_some(), "{reply}");
        }
        let status = good.call(json!({"execute": "query-status", "id": 1})).await;
        assert_eq!(status["return"]["running"], true);
    }
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    bad.send(format!(
        "{{\"execute\":\"query-status\",\"arguments\":{{\"a\":{deep}}},\"id\":\"deep\"}}"
    ))
    .await;
    let reply = bad.reply().await;
    assert!(reply.get("error").is_some(), "{reply}");
    assert_eq!(
        good.call(json!({"execute": "stop"})).await,
        json!({"return": {}})
    );

    // A request without end.
    let endless = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let text = vec![b'x'; 1 << 20];
        bad.send("{\"execute\":\"").await;
        for _ in 0..16 {
            if bad.0.get_mut().write_all(&text).await.is_err() {
                return true;
            }
        }
        false
    });
    assert!(endless.await.unwrap(), "still connected");
    assert_eq!(
        good.call(json!({"execute": "cont"})).await,
        json!({"return": {}})
    );
    assert_eq!(shared.qmp.junk_lines(), 0);
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody() {
    let Some(shared) = plain().await else { return };
    let mut lazy = Raw::negotiated(&shared.path, &[]).await;
    let mut good = Raw::negotiated(&shared.path, &[]).await;
    // Its replies are far more than its socket holds.
    for id in 0..30 {
        lazy.send(json!({"execute": "query-qmp-schema", "id": id}).to_string())
            .await;
    }
    for _ in 0..400 {
        assert_eq!(
            good.call(json!({"execute": "stop"})).await,
            json!({"return": {}})
        );
        assert_eq!(
            good.call(json!({"execute": "cont"})).await,
            json!({"return": {}})
        );
    }
    // Back again, it gets every reply in order, and is told of the events it missed.
    let mut lost = 0;
    let mut seen = 0;
    let mut id = 0;
    while id < 30 {
        let line = lazy.json().await;
        match line["event"].as_str() {
            Some("MVM_EVENTS_LOST") => lost += line["data"]["count"].as_u64().unwrap(),
            Some(_) => seen += 1,
            None => {
                assert_eq!(line["id"], id);
                id += 1;
            }
        }
    }
    good.call(json!({"execute": "stop"})).await;
    loop {
        let event = lazy.event().await;
        if event["event"] == "MVM_EVENTS_LOST" {
            lost += event["data"]["count"].as_u64().unwrap();
        } else {
            seen += 1;
        }
        if seen + lost == 801 {
            break;
        }
    }
    assert!(lost > 0);
}

#[tokio::test]
async fn a_client_that_is_dead_is_hung_up_on() {
    let limits = Limits {
        stalled: Duration::from_millis(200),
        clients: 2,
        ..Limits::default()
    };
    let Some(shared) = shared(limits, forward).await else {
        return;
    };
    let mut dead = Raw::negotiated(&shared.path, &[]).await;
    // One that merely has nothing to say or to read is not dead.
    let mut idle = Raw::negotiated(&shared.path, &[]).await;
    let mut third = Raw(tokio::io::BufReader::new(
        mvm_qmp::connect(&shared.path).await.unwrap(),
    ));
    assert_eq!(third.line().await, None);
    for id in 0..30 {
        dead.send(json!({"execute": "query-qmp-schema", "id": id}).to_string())
            .await;
    }
    while shared.server.clients() > 1 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        idle.call(json!({"execute": "query-status"})).await["return"]["running"],
        true
    );
}
