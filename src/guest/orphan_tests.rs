#![expect(clippy::unwrap_used, reason = "tests")]

//! Supervisors that are killed, their QEMUs with them or not.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::recover::{Recovered, recover};
use super::state::{Condition, GuestState, Reason};
use super::testguest::{Place, again, ask, kill_qemu, read_until};
use super::{Presence, Renewal, RunDir, holders, look, state};
use crate::ops::lock;

/// Not a test: what the others start and kill.
#[test]
#[ignore = "the other tests run it as a supervisor"]
fn supervisor() {
    let Some(top) = std::env::var_os("MVM_TEST_PLACE") else {
        panic!("it needs a place");
    };
    let place = Place::at(Path::new(&top));
    let plan = place.plan(&std::env::var("MVM_TEST_GUEST").unwrap());
    let renewal = Renewal::Here(&mut again);
    super::run(
        &place.dirs,
        plan,
        super::Options::default(),
        Box::new(|_| ()),
        renewal,
    )
    .unwrap();
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn now(run: &RunDir) -> Option<GuestState> {
    state::read(&run.state()).ok().flatten()
}

/// A dying process has no descriptors to be seen a moment before the kernel lets go of its locks.
fn is_released(run: &RunDir) -> bool {
    holders::of(&run.lock()).is_empty() && !lock::is_held(&run.lock()).unwrap()
}

/// A guest that runs and whose supervisor was killed.
fn orphan(place: &Place, name: &str) -> (RunDir, GuestState) {
    let run = place.run_dir(name);
    let mut supervisor = place.supervisor(name);
    until("it runs", || {
        now(&run).is_some_and(|state| state.state == Condition::Running)
    });
    let mut console = UnixStream::connect(run.console("main")).unwrap();
    read_until(&mut console, "up\n");
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    assert!(matches!(
        look(&place.dirs, run.name()).unwrap(),
        Presence::Unsupervised(Some(_))
    ));
    let state = now(&run).unwrap();
    (run, state)
}

#[test]
fn an_orphan_is_adopted_and_goes_on() {
    let place = Place::new();
    let (run, before) = orphan(&place, "g");
    assert_eq!(recover(&place.dirs, run.name()).unwrap(), Recovered::Orphan);
    let guest = place.adopt("g");
    let after = guest.ready.clone().expect("it is adopted");
    assert_eq!((after.pid, after.started), (before.pid, before.started));
    assert_eq!(after.supervisor, std::process::id());
    assert_eq!(after.state, Condition::Running);
    let mut console = UnixStream::connect(run.console("main")).unwrap();
    read_until(&mut console, "up\n");
    let answer = guest.ask(json!({"do": "stop"}));
    assert_eq!(answer["ok"]["reason"], "guest-shutdown", "{answer}");
    let ended = guest.end().unwrap();
    assert_eq!(
        (ended.reason, ended.exit_status),
        (Reason::GuestShutdown, None)
    );
    assert!(!run.path().exists());
}

#[test]
fn a_second_start_adopts_too_and_a_paused_guest_stays_so() {
    let place = Place::new();
    let run = place.run_dir("g");
    let mut supervisor = place.supervisor("g");
    until("it answers", || {
        now(&run).is_some_and(|state| state.state == Condition::Running)
    });
    ask(&run.control(), json!({"do": "pause"}));
    let before = now(&run).unwrap();
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    let guest = place.start(place.plan("g"));
    let after = guest.ready.clone().expect("it is adopted");
    assert_eq!(after.pid, before.pid);
    until("it is known to be paused", || {
        guest.ask(json!({"do": "status"}))["ok"]["state"] == "paused"
    });
    let answer = guest.ask(json!({"do": "kill"}));
    assert_eq!(answer["ok"]["reason"], "killed", "{answer}");
    guest.end().unwrap();
}

/// QEMU says `prelaunch` of it, as of one that never ran.
#[test]
fn a_guest_that_was_reset_while_paused_is_adopted_as_paused() {
    let place = Place::new();
    let run = place.run_dir("g");
    let mut supervisor = place.supervisor("g");
    until("it answers", || {
        now(&run).is_some_and(|state| state.state == Condition::Running)
    });
    ask(&run.control(), json!({"do": "pause"}));
    let answer = ask(&run.control(), json!({"do": "reset"}));
    assert_eq!(answer["ok"]["state"], "paused", "{answer}");
    let before = now(&run).unwrap();
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    assert_eq!(recover(&place.dirs, run.name()).unwrap(), Recovered::Orphan);
    let guest = place.adopt("g");
    let after = guest.ready.clone().expect("it is adopted");
    assert_eq!(after.pid, before.pid);
    until("it is known to be paused", || {
        guest.ask(json!({"do": "status"}))["ok"]["state"] == "paused"
    });
    let answer = guest.ask(json!({"do": "resume"}));
    assert_eq!(answer["ok"]["state"], "running", "{answer}");
    guest.ask(json!({"do": "kill"}));
    guest.end().unwrap();
}

#[test]
fn the_end_that_nobody_saw_is_told_from_the_event_log() {
    let place = Place::new();
    let (run, _) = orphan(&place, "g");
    let runtime = super::start::runtime().unwrap();
    runtime.block_on(async {
        let (qmp, _) = mvm_qmp::Qmp::connect(&run.monitor(), Duration::from_secs(5))
            .await
            .unwrap();
        qmp.call("system_powerdown", None).await.unwrap();
        let gone = tokio::time::timeout(Duration::from_secs(20), qmp.closed());
        gone.await.unwrap();
    });
    until("QEMU is gone", || is_released(&run));
    let Recovered::CleanedUp {
        ended: Some(ended), ..
    } = recover(&place.dirs, run.name()).unwrap()
    else {
        panic!("it was dead");
    };
    assert_eq!(ended.reason, Reason::GuestShutdown);
    assert!(!run.path().exists());
    assert_eq!(
        recover(&place.dirs, run.name()).unwrap(),
        Recovered::Nothing
    );
}

#[test]
fn both_killed_is_told_as_that() {
    let place = Place::new();
    let (run, _) = orphan(&place, "g");
    kill_qemu(&run);
    until("QEMU is gone", || is_released(&run));
    let Recovered::CleanedUp {
        ended: Some(ended), ..
    } = recover(&place.dirs, run.name()).unwrap()
    else {
        panic!("it was dead");
    };
    assert_eq!(ended.reason, Reason::Unknown);
    assert!(ended.message.unwrap().contains("had not shut down"));
    assert!(!run.path().exists());
}

/// As a service manager sees it: READY=1, and a SIGTERM that is a graceful stop.
#[test]
fn a_service_manager_is_told_and_obeyed() {
    let place = Place::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let variables = [
        ("NOTIFY_SOCKET", path.as_os_str()),
        ("WATCHDOG_USEC", "300000".as_ref()),
    ];
    let mut supervisor = place.supervisor_with("g", &variables);
    let word = move || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut heard = word();
    while !heard.contains("READY=1") {
        heard = word();
    }
    assert!(heard.contains("STATUS=running"), "{heard}");
    // The loop pings, and asks for more time once it has ended.
    for _ in 0..3 {
        heard = word();
        while heard != "WATCHDOG=1\n" {
            heard = word();
        }
    }
    let run = place.run_dir("g");
    let mut console = UnixStream::connect(run.console("main")).unwrap();
    read_until(&mut console, "up\n");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(supervisor.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let mut longer = false;
    while !heard.contains("STOPPING=1") {
        heard = word();
        longer |= heard.contains("WATCHDOG_USEC=600000000");
    }
    assert!(longer);
    assert!(supervisor.wait().unwrap().success());
    let ended: super::Ended = state::read(&run.last()).unwrap().unwrap();
    assert_eq!(ended.reason, Reason::GuestShutdown);
    assert!(!run.path().exists());
}

#[test]
fn a_closed_terminal_stops_the_guest() {
    let place = Place::new();
    let run = place.run_dir("g");
    let mut supervisor = place.supervisor("g");
    until("it runs", || {
        now(&run).is_some_and(|state| state.state == Condition::Running)
    });
    let mut console = UnixStream::connect(run.console("main")).unwrap();
    read_until(&mut console, "up\n");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(supervisor.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
    assert!(supervisor.wait().unwrap().success());
    let ended: super::Ended = state::read(&run.last()).unwrap().unwrap();
    assert_eq!(ended.reason, Reason::GuestShutdown);
}

/// Whenever the supervisor is killed, the next start or recovery finds its way.
#[test]
fn a_supervisor_killed_at_any_moment_is_recovered_from() {
    let place = Place::new();
    let run = place.run_dir("g");
    for step in 0..24u64 {
        let mut supervisor = place.supervisor("g");
        // From before its first step to when the guest runs.
        std::thread::sleep(Duration::from_micros(step * step * 350));
        supervisor.kill().unwrap();
        supervisor.wait().unwrap();
        if step % 3 == 0 {
            kill_qemu(&run);
            until("QEMU is gone", || is_released(&run));
        }
        let what = format!(
            "killed at step {step}, as {:?}",
            look(&place.dirs, run.name())
        );
        if step % 2 == 0 {
            match recover(&place.dirs, run.name()).expect(&what) {
                Recovered::Orphan => {
                    let guest = place.adopt("g");
                    assert!(guest.ready.is_some(), "{what}");
                    guest.ask(json!({"do": "kill"}));
                    guest.end().expect(&what);
                }
                Recovered::Nothing | Recovered::CleanedUp { .. } => {}
                Recovered::Supervised => panic!("{what}"),
            }
        } else {
            let guest = place.start(place.plan("g"));
            assert!(guest.ready.is_some(), "{what}: {:?}", guest.end());
            guest.ask(json!({"do": "kill"}));
            guest.end().expect(&what);
        }
        assert!(!run.path().exists(), "{what}");
        assert!(holders::of(&run.lock()).is_empty(), "{what}");
    }
}
