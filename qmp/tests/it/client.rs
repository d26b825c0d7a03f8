//! The client against a real QEMU.

use std::{
    os::fd::OwnedFd,
    time::{Duration, SystemTime},
};

use mvm_qmp::{Qmp, QmpError, negotiate_and_leave, qapi};
use serde_json::json;

use crate::qemu::{Qemu, SECONDS};

fn some_fd() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

#[tokio::test]
async fn commands_events_and_the_end() {
    let Some(mut qemu) = Qemu::start(&[]) else {
        return;
    };
    let (qmp, mut events) = qemu.connect().await;
    assert!(qmp.greeting().version >= (7, 0, 0) && qmp.greeting().has_oob());
    assert!(
        qmp.execute(&qapi::qmp::query_status {})
            .await
            .unwrap()
            .running
    );
    assert_eq!(qmp.call("stop", None).await.unwrap(), json!({}));
    let stop = events.wait_for("STOP", SECONDS).await.unwrap();
    assert!(stop.timestamp.time().unwrap() <= SystemTime::now());
    assert!(qmp.call_oob("query-yank", None).await.unwrap().is_array());
    let unknown = qmp.call("no-such-command", None).await.unwrap_err();
    assert_eq!(unknown.class(), Some("CommandNotFound"));
    let schema = qmp.call("query-qmp-schema", None).await.unwrap();
    assert!(schema.as_array().unwrap().len() > 500);

    qmp.call("quit", None).await.unwrap();
    let shutdown = events.wait_for("SHUTDOWN", SECONDS).await.unwrap();
    assert!(!shutdown.parse::<qapi::qmp::SHUTDOWN>().unwrap().guest);
    assert!(events.next().await.is_none());
    qmp.closed().await;
    assert!(matches!(
        qmp.call("stop", None).await,
        Err(QmpError::Closed)
    ));
    assert!(qemu.ended().await);
}

#[tokio::test]
async fn fifty_cancelled_calls_then_a_good_one() {
    let Some(qemu) = Qemu::start(&[]) else { return };
    let (qmp, _events) = qemu.connect().await;
    for i in 0..50 {
        // Some are given up before they are sent, some in the middle, some after the reply.
        let _ = tokio::time::timeout(
            Duration::from_micros(i * 20),
            qmp.call("query-commands", None),
        )
        .await;
    }
    assert_eq!(
        qmp.call("query-status", None).await.unwrap()["running"],
        true
    );
    assert_eq!(qmp.junk_lines(), 0);
}

#[tokio::test]
async fn descriptors_are_passed() {
    let Some(qemu) = Qemu::start(&[]) else { return };
    let (qmp, _events) = qemu.connect().await;
    let name = |i: i32| Some(json!({"fdname": format!("f{i}")}));
    let calls = (0..12).map(|i| qmp.call_with_fds("getfd", name(i), vec![some_fd()]));
    let mut set = tokio::task::JoinSet::new();
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    // All at once: each must get its own descriptor all the same.
    for i in 12..24 {
        let qmp = qmp.clone();
        set.spawn(async move { qmp.call_with_fds("getfd", name(i), vec![some_fd()]).await });
    }
    set.join_all()
        .await
        .into_iter()
        .for_each(|done| drop(done.unwrap()));
    for i in 0..24 {
        qmp.call("closefd", name(i)).await.unwrap();
    }
    assert!(qmp.call("getfd", name(1)).await.is_err());

    let opaque = Some(json!({"fdset-id": 3, "opaque": "disk"}));
    let added = qmp
        .call_with_fds("add-fd", opaque, vec![some_fd()])
        .await
        .unwrap();
    assert_eq!(added["fdset-id"], 3);
    let sets = qmp.call("query-fdsets", None).await.unwrap();
    assert_eq!(sets[0]["fds"][0]["opaque"], "disk");
}

#[tokio::test]
async fn long_paths_and_a_monitor_that_is_taken() {
    let top = tempfile::tempdir().unwrap();
    let dir = tempfile::Builder::new()
        .prefix(&"long".repeat(30))
        .tempdir_in(top.path())
        .unwrap();
    let Some(qemu) = Qemu::start_in(dir, &[]) else {
        return;
    };
    assert!(qemu.path("qmp.sock").as_os_str().len() > 107);
    let _first = qemu.connect().await;
    let taken = Qmp::connect(&qemu.path("qmp.sock"), Duration::from_millis(100)).await;
    assert!(matches!(
        taken.map(|_| ()),
        Err(QmpError::NoGreeting { .. })
    ));
    let missing = Qmp::connect(&qemu.path("nothing"), SECONDS)
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(missing.to_string().ends_with("/nothing"), "{missing}");
}

#[tokio::test]
async fn a_monitor_negotiated_and_left_goes_on_recording() {
    let chardev =
        "socket,id=ev,path={dir}/ev.sock,server=on,wait=off,logfile={dir}/events,logappend=on";
    let Some(qemu) = Qemu::start(&["-chardev", chardev, "-mon", "chardev=ev,mode=control"]) else {
        return;
    };
    let (qmp, mut events) = qemu.connect().await;
    let greeting = negotiate_and_leave(&qemu.path("ev.sock"), SECONDS)
        .await
        .unwrap();
    assert_eq!(greeting.version, qmp.greeting().version);
    qmp.call("stop", None).await.unwrap();
    events.wait_for("STOP", SECONDS).await.unwrap();
    qmp.call("quit", None).await.unwrap();
    qmp.closed().await;
    let log = std::fs::read_to_string(qemu.dir().join("events")).unwrap();
    assert!(
        log.contains("\"STOP\"") && log.contains("\"SHUTDOWN\""),
        "{log}"
    );
}
