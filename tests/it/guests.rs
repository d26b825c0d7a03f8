//! The verbs where nothing runs, and `mvm list`.

use std::time::{Duration, Instant};

use crate::env::{TestEnv, eventually};

#[test]
fn a_guest_that_does_not_run_is_told_from_one_that_is_not_known() {
    let env = TestEnv::new();
    env.write("config/machines/ubuntu.toml", "");
    for verb in [
        "stop", "kill", "reboot", "reset", "pause", "resume", "console", "memory", "eject", "ip",
        "info", "set-time", "agent",
    ] {
        env.mvm(&format!("{verb} ubuntu"))
            .exits(5)
            .says("error: ubuntu is not running\n")
            .says("hint: `mvm start ubuntu`");
    }
    for line in [
        "qmp ubunut query-status",
        "qmp ubunut --socket",
        "log ubunut",
    ] {
        env.mvm(line)
            .exits(5)
            .says("there is no guest `ubunut`")
            .says("did you mean `ubuntu`?");
    }
    env.mvm("stop a/b")
        .exits(2)
        .says("`a/b` is not a guest name");
    let both = env.mvm("stop ubuntu other ubuntu").exits(5);
    assert_eq!(both.stderr.matches("error: ").count(), 2, "{}", both.stderr);
    env.mvm("stop --all").exits(0);
    env.mvm("stop").exits(2);
    env.mvm("stop ubuntu --all").exits(2);
}

#[test]
fn waiting_has_an_end() {
    let env = TestEnv::new();
    env.mvm("wait nobody --for stopped").exits(0);
    let start = Instant::now();
    env.mvm("wait nobody --for running --timeout 200ms")
        .exits(5);
    assert!(start.elapsed() >= Duration::from_millis(200));
    env.mvm("wait nobody --for tea").exits(2).says("running");
}

#[test]
fn the_list_has_its_columns() {
    let env = TestEnv::new();
    let empty = env.mvm("list").exits(0).stdout;
    assert_eq!(empty, "NAME  STATE  PID  PROFILE  SINCE\n");
    assert_eq!(
        env.mvm("list --format json").exits(0).json(),
        serde_json::json!([])
    );
    assert!(env.tree().len() < 12, "looking makes no folders");

    env.write("config/machines/web.toml", "this is not even TOML");
    env.write("config/machines/no good.toml", "");
    let all = env.mvm("list --all --format json").exits(0).json();
    assert_eq!(
        all,
        serde_json::json!([
            {"name": "web", "state": "stopped", "pid": null, "profile": "web", "since": null, "devices": []}
        ])
    );
}

/// What a supervisor writes is enough; nothing of the guest is asked.
#[test]
fn a_guest_that_left_things_behind_is_listed() {
    let env = TestEnv::new();
    env.write(
        "run/web/state.json",
        r#"{"name":"web","state":"running","pid":4242,"profile":"ubuntu","since":1,"started":1}"#,
    );
    let row = &env.mvm("list --format json").exits(0).json()[0];
    assert_eq!(
        (&row["state"], &row["pid"]),
        (&"crashed".into(), &serde_json::Value::Null)
    );
    env.mvm("stop web").exits(5).says("mvm recover web");
    env.mvm("wait web --for stopped --timeout 0s").exits(0);
}

#[test]
fn the_list_is_quick_with_many_machines() {
    let env = TestEnv::new();
    for number in 0..500 {
        env.write(
            format!("config/machines/m{number}.toml"),
            "extends = ['ubuntu']\n",
        );
    }
    // The best of some tries: the machine may be busy with other tests.
    eventually(
        "500 machines are listed in 50 ms",
        Duration::from_secs(20),
        || {
            let start = Instant::now();
            let lines = env.mvm("list --all").exits(0).stdout.lines().count();
            assert_eq!(lines, 501);
            start.elapsed() < Duration::from_millis(50)
        },
    );
}
