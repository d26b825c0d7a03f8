#![expect(clippy::unwrap_used, reason = "tests")]

//! Guests for real: started, driven, ended, orphaned and adopted.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::json;

use super::state::{self, Condition, Ended, Reason};
use super::testguest::{Place, again, read_until};
use super::{Presence, Renewal, StartError, look};
use crate::error::Hint;
use crate::machine::{Forward, Nic, NicBackend};

#[test]
fn a_guest_lives_and_shuts_down() {
    let place = Place::new();
    let guest = place.start(place.plan("g"));
    let ready = guest.ready.clone().expect("it starts");
    assert_eq!(ready.state, Condition::Running);
    assert!(ready.pid.is_some());

    let mut console = UnixStream::connect(guest.run.console("main")).unwrap();
    read_until(&mut console, "up\n");
    console.write_all(b"echo").unwrap();
    read_until(&mut console, "echo");
    let mut late = UnixStream::connect(guest.run.console("main")).unwrap();
    assert!(read_until(&mut late, "echo").contains("up\n"));

    assert_eq!(guest.ask(json!({"do": "pause"}))["ok"]["state"], "paused");
    let status = guest.ask(json!({"do": "status"}));
    assert_eq!(status["ok"]["state"], "paused");
    assert_eq!(guest.ask(json!({"do": "resume"}))["ok"]["state"], "running");
    assert_eq!(guest.ask(json!({"do": "reset"}))["ok"]["state"], "running");
    read_until(&mut console, "up\n");
    // It has no agent: the keys do it.
    assert_eq!(guest.ask(json!({"do": "reboot"}))["ok"]["state"], "running");
    read_until(&mut console, "up\n");
    let error = guest.ask(json!({"do": "dance"}));
    assert_eq!(error["error"]["code"], 2, "{error}");
    let error = guest.ask(json!({"do": "wait", "for": "paused", "timeout-ms": 50}));
    assert_eq!(error["error"]["code"], 1, "{error}");

    // Those who wait for something and go away take up no place.
    for _ in 0..70 {
        let mut gone = UnixStream::connect(guest.run.control()).unwrap();
        gone.write_all(b"{\"do\":\"wait\",\"for\":\"suspended\"}\n")
            .unwrap();
    }
    // A script that pipes its request in has ended its side before the answer comes.
    let mut script = UnixStream::connect(guest.run.control()).unwrap();
    script.write_all(b"{\"do\":\"status\"}\n").unwrap();
    script.shutdown(std::net::Shutdown::Write).unwrap();
    read_until(&mut script, "\"running\"");

    // A paused guest is continued first.
    guest.ask(json!({"do": "pause"}));
    let answer = guest.ask(json!({"do": "stop"}));
    assert_eq!(answer["ok"]["reason"], "guest-shutdown", "{answer}");
    let run = guest.run.clone();
    let ended = guest.end().unwrap();
    assert_eq!(ended.reason, Reason::GuestShutdown);
    assert_eq!(ended.exit_status, Some(0));
    assert!(!run.path().exists());
    assert_eq!(state::read::<Ended>(&run.last()).unwrap(), Some(ended));
    assert_eq!(look(&place.dirs, run.name()).unwrap(), Presence::Absent);
}

#[test]
fn a_guest_that_does_not_listen_is_forced_or_killed() {
    let place = Place::new();
    let mut plan = place.plan("deaf");
    // Without a disk there is nobody who sees the power button.
    plan.command.args.truncate(plan.command.args.len() - 4);
    let guest = place.start(plan.clone());
    let error = guest.ask(json!({"do": "stop", "timeout-ms": 200}));
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("still running"), "{error}");
    assert_eq!(guest.ask(json!({"do": "status"}))["ok"]["state"], "running");
    let start = Instant::now();
    let answer = guest.ask(json!({"do": "kill"}));
    assert!(
        start.elapsed() < Duration::from_millis(1500),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(answer["ok"]["reason"], "killed", "{answer}");
    assert_eq!(guest.end().unwrap().reason, Reason::Killed);

    let guest = place.start(plan);
    let answer = guest.ask(json!({"do": "stop", "timeout-ms": 200, "force": true}));
    assert_eq!(answer["ok"]["reason"], "killed", "{answer}");
    guest.end().unwrap();
}

#[test]
fn a_qemu_that_fails_says_why_and_leaves_nothing() {
    let place = Place::new();
    let mut plan = place.plan("bad");
    plan.command.args.extend(
        ["-device", "no-such-device"].map(|arg| crate::qemu::command::Arg::Text(arg.to_owned())),
    );
    let guest = place.start(plan);
    assert!(guest.ready.is_none());
    let run = guest.run.clone();
    let error = guest.end().unwrap_err();
    assert!(
        error.to_string().contains("no device `no-such-device`"),
        "{error}"
    );
    assert!(!error.hints().is_empty());
    assert!(!run.path().exists());
    let last: Ended = state::read(&run.last()).unwrap().unwrap();
    assert_eq!(last.reason, Reason::StartFailed);
}

#[test]
fn two_guests_do_not_share_what_only_one_can_have() {
    let place = Place::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let forwarding = |name: &str, mac: u8| {
        let mut plan = place.plan(name);
        plan.machine.nics.push(Nic {
            id: "lan".parse().unwrap(),
            model: crate::profile::schema::NicModel::Virtio,
            mac: crate::ids::MacAddr::from_hash([0, 0, mac]),
            backend: NicBackend::User {
                forwards: vec![Forward {
                    udp: false,
                    address: "127.0.0.1".parse().unwrap(),
                    host: port,
                    guest: 22,
                }],
                restrict: false,
                addresses: crate::machine::net::Addresses::default(),
            },
            options: crate::machine::NicOptions::default(),
        });
        plan
    };
    let one = place.start(forwarding("one", 1));
    assert!(one.ready.is_some());
    let again = place.start(place.plan("one")).end().unwrap_err();
    assert!(
        again
            .to_string()
            .starts_with("guest `one` is running already"),
        "{again}"
    );
    let error = place.start(forwarding("two", 2)).end().unwrap_err();
    assert!(error.to_string().contains(&format!("{port}")), "{error}");
    assert!(error.to_string().ends_with("guest `one`"), "{error}");
    assert!(error.hints()[0].contains("mvm stop one"));
    let mut plan = forwarding("two", 1);
    plan.machine.nics[0].backend = NicBackend::User {
        forwards: vec![],
        restrict: false,
        addresses: crate::machine::net::Addresses::default(),
    };
    let error = place.start(plan).end().unwrap_err();
    assert!(
        error.to_string().contains("MAC address 52:54:00:00:00:01"),
        "{error}"
    );
    let mut plan = place.plan("two");
    plan.machine.disks[0].read_only = false;
    let error = place.start(plan).end().unwrap_err();
    assert!(
        error.to_string().ends_with("is in use by guest `one`"),
        "{error}"
    );
    assert!(!place.run_dir("two").path().exists(), "nothing was touched");
    // Both read it only.
    let two = place.start(place.plan("two"));
    assert!(two.ready.is_some());
    two.ask(json!({"do": "kill"}));
    two.end().unwrap();
    one.ask(json!({"do": "kill"}));
    one.end().unwrap();

    let taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let error = place.start(forwarding("one", 1)).end().unwrap_err();
    assert!(
        error.to_string().contains("another process"),
        "our own process is not looked at: {error}"
    );
    drop(taken);
}

#[test]
fn only_an_orphan_can_be_adopted() {
    let place = Place::new();
    let error = place.adopt("nobody").end().unwrap_err();
    assert!(matches!(error, StartError::NothingToAdopt(_)), "{error}");
    let guest = place.start(place.plan("g"));
    let error = place.adopt("g").end().unwrap_err();
    assert!(matches!(error, StartError::Busy(_)), "{error}");
    guest.ask(json!({"do": "kill"}));
    guest.end().unwrap();
}

fn qemu(guest: &super::testguest::Guest) -> nix::unistd::Pid {
    let pid = guest.ready.as_ref().and_then(|state| state.pid).unwrap();
    nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap())
}

#[test]
fn ends_from_outside_are_told_apart() {
    use nix::sys::signal::{Signal, kill};
    let place = Place::new();
    let guest = place.start(place.plan("g"));
    kill(qemu(&guest), Signal::SIGTERM).unwrap();
    let ended = guest.end().unwrap();
    assert_eq!(ended.reason, Reason::HostSignal);
    let message = ended.message.unwrap();
    assert!(
        message.contains(&format!("from pid {}", std::process::id())),
        "{message}"
    );

    let guest = place.start(place.plan("g"));
    kill(qemu(&guest), Signal::SIGKILL).unwrap();
    let ended = guest.end().unwrap();
    assert_eq!((ended.reason, ended.signal), (Reason::Crashed, Some(9)));
    assert!(ended.message.unwrap().contains("ran out of memory"));

    let guest = place.start(place.plan("g"));
    let runtime = super::start::runtime().unwrap();
    runtime.block_on(async {
        let within = Duration::from_secs(5);
        let (one, _) = mvm_qmp::Qmp::connect(&guest.run.qmp(), within)
            .await
            .unwrap();
        let (two, _) = mvm_qmp::Qmp::connect(&guest.run.qmp(), within)
            .await
            .unwrap();
        let status = one.call("query-status", None).await.unwrap();
        assert_eq!(status["status"], "running");
        two.call("quit", None).await.unwrap();
        let gone = tokio::time::timeout(Duration::from_secs(20), one.closed());
        gone.await.unwrap();
    });
    assert_eq!(guest.end().unwrap().reason, Reason::Quit);
}

#[test]
fn a_guest_that_is_still_being_started_can_be_asked_and_ended() {
    let place = Place::new();
    let mut plan = place.plan("slow");
    // A program that has all the sockets and never says a word.
    plan.command.program = crate::ops::process::find("sleep", None).unwrap();
    plan.command.args = vec![crate::qemu::command::Arg::Text("60".to_owned())];
    let run = place.run_dir("slow");
    let dirs = place.dirs.clone();
    let thread = std::thread::spawn(move || {
        let renewal = Renewal::Here(&mut again);
        super::run(
            &dirs,
            plan,
            super::Options::default(),
            Box::new(|_| ()),
            renewal,
        )
    });
    let end = Instant::now() + Duration::from_secs(10);
    while !crate::ops::socket::is_listening(&run.control()) {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
    let ask = |request| super::testguest::ask(&run.control(), request);
    assert_eq!(ask(json!({"do": "status"}))["ok"]["state"], "starting");
    let error = ask(json!({"do": "pause"}));
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("still being started"), "{error}");
    let answer = ask(json!({"do": "stop"}));
    assert_eq!(answer["ok"]["reason"], "killed", "{answer}");
    assert_eq!(thread.join().unwrap().unwrap().reason, Reason::Killed);
    assert!(!run.path().exists());
}

/// Of starts at the same moment that want the same thing one wins, and the others say who has it.
#[test]
fn races_have_one_winner() {
    let place = Place::new();
    let plans: Vec<_> = ["a", "b", "c", "c"]
        .into_iter()
        .map(|name| {
            let mut plan = place.plan(name);
            plan.machine.vsock = Some(77);
            plan
        })
        .collect();
    let guests: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = plans
            .into_iter()
            .map(|plan| scope.spawn(|| place.start(plan)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let (winners, losers): (Vec<_>, Vec<_>) =
        guests.into_iter().partition(|guest| guest.ready.is_some());
    assert_eq!(winners.len(), 1);
    let winner = winners[0].run.name().to_string();
    for loser in losers {
        let error = loser.end().unwrap_err().to_string();
        let busy = error.contains("running already");
        assert!(
            busy || error.contains(&format!("guest `{winner}`")),
            "{error}"
        );
    }
    for guest in winners {
        guest.ask(json!({"do": "kill"}));
        guest.end().unwrap();
    }
}

#[test]
fn a_tap_is_made_handed_over_and_taken_away() {
    use crate::plan::step::Step;
    use crate::qemu::command::{Arg, Fd, FdSource};
    let name = format!("mvmg{}", std::process::id() % 100_000);
    let there = || std::path::Path::new("/sys/class/net").join(&name).exists();
    let place = Place::new();
    let mut plan = place.plan("g");
    plan.steps.push(Step::CreateTap {
        name: name.clone(),
        bridge: None,
        address: Some("10.231.9.1/30".to_owned()),
        vnet_hdr: true,
        multi_queue: false,
        mtu: None,
    });
    plan.command.args.extend([
        Arg::Text("-netdev".to_owned()),
        Arg::Fd {
            real: "tap,id=lan,fd={fd:tap}".to_owned(),
            shown: String::new(),
        },
        Arg::Text("-device".to_owned()),
        Arg::Text("virtio-net-pci,netdev=lan".to_owned()),
    ]);
    plan.command.fds.push(Fd {
        name: "tap".to_owned(),
        source: FdSource::Tap(name.clone()),
    });
    let guest = place.start(plan);
    if guest.ready.is_none() {
        // Only who may make network devices can see it work.
        let error = guest.end().unwrap_err();
        assert!(
            error
                .hints()
                .iter()
                .any(|hint| hint.contains("CAP_NET_ADMIN")),
            "{error}"
        );
        return;
    }
    assert!(there());
    guest.ask(json!({"do": "kill"}));
    guest.end().unwrap();
    assert!(!there());
}
