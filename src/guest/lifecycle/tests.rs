#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use proptest::prelude::*;

const MINUTE: Duration = Duration::from_secs(60);

fn run(inputs: impl IntoIterator<Item = Input>) -> (Life, Vec<Action>) {
    let mut life = Life::default();
    let mut last = Vec::new();
    for input in inputs {
        (life, last) = life.step(input);
    }
    (life, last)
}

fn stop(force: bool) -> Input {
    Input::Stop {
        timeout: MINUTE,
        force,
    }
}

fn gone() -> Input {
    Input::Exited(Exit {
        status: Some(0),
        signal: None,
    })
}

fn shutdown(word: &str) -> Input {
    Input::Qemu(News::Shutdown(word.to_owned()))
}

#[test]
fn a_stop_asks_the_agent_and_else_presses_the_button() {
    let (_, actions) = run([Input::Ready, Input::Agent(true), stop(false)]);
    assert!(actions.contains(&Action::Ask {
        resume: false,
        agent: true
    }));
    let (_, actions) = run([
        Input::Ready,
        Input::Agent(true),
        stop(false),
        Input::AgentFailed,
    ]);
    assert!(actions.contains(&Action::Ask {
        resume: false,
        agent: false
    }));
    let (_, actions) = run([Input::Ready, Input::Qemu(News::Stopped), stop(false)]);
    assert!(actions.contains(&Action::Ask {
        resume: true,
        agent: false
    }));
}

#[test]
fn a_sleeping_guest_is_woken_and_then_asked() {
    let asleep = [
        Input::Ready,
        Input::Qemu(News::Suspended),
        Input::Qemu(News::Stopped),
    ];
    let (life, actions) = run(asleep.into_iter().chain([stop(false)]));
    assert!(actions.contains(&Action::Wake), "{actions:?}");
    let (_, actions) = life.step(Input::Qemu(News::WokeUp));
    assert!(actions.contains(&Action::Ask {
        resume: false,
        agent: false
    }));
}

#[test]
fn a_deadline_ends_the_wait_or_the_guest() {
    let (life, actions) = run([Input::Ready, stop(false), Input::Timer(Timer::Deadline)]);
    assert_eq!(actions[0], Action::StopFailed);
    assert_eq!(life.condition(), Condition::Running);
    let (life, actions) = run([Input::Ready, stop(true), Input::Timer(Timer::Deadline)]);
    assert_eq!(actions[0], Action::Quit);
    let (_, actions) = life.step(Input::Timer(Timer::Quit));
    assert_eq!(actions[0], Action::Kill);
}

#[test]
fn a_reset_ends_the_agent() {
    let (life, actions) = run([Input::Ready, Input::Agent(true), Input::Qemu(News::Reset)]);
    assert!(!life.agent());
    assert_eq!(actions, [Action::Publish]);
}

#[test]
fn a_second_signal_is_impatient() {
    let signal = || Input::Signal { timeout: MINUTE };
    let (life, actions) = run([Input::Ready, signal()]);
    assert!(matches!(actions[1], Action::Ask { .. }));
    let (_, actions) = life.step(signal());
    assert_eq!(actions[0], Action::Quit);
}

#[test]
fn the_first_signal_lets_a_stop_that_goes_on_go_on() {
    let signal = || Input::Signal { timeout: MINUTE };
    for before in [stop(false), shutdown("guest-shutdown")] {
        let (life, actions) = run([Input::Ready, before, signal()]);
        assert!(
            !actions.contains(&Action::Quit)
                && !actions
                    .iter()
                    .any(|action| matches!(action, Action::Arm(Timer::Quit, _))),
            "{actions:?}"
        );
        assert!(actions.contains(&Action::Arm(Timer::Deadline, MINUTE)));
        let (_, actions) = life.step(Input::Timer(Timer::Deadline));
        assert!(
            actions.contains(&Action::Arm(Timer::Quit, QUIT)),
            "it is forced"
        );
        let (_, actions) = life.step(signal());
        assert!(actions.contains(&Action::Arm(Timer::Quit, QUIT)));
    }
}

#[test]
fn reasons_are_what_was_seen() {
    let crash = || {
        Input::Exited(Exit {
            status: None,
            signal: Some(11),
        })
    };
    let failed = || Input::HookFailed("it failed".to_owned());
    for (inputs, reason) in [
        (vec![crash()], Reason::StartFailed),
        (vec![Input::ConnectFailed, gone()], Reason::StartFailed),
        (
            vec![Input::ConnectFailed, Input::Timer(Timer::Quit), crash()],
            Reason::StartFailed,
        ),
        (vec![Input::Kill, gone()], Reason::Killed),
        (vec![Input::Ready, crash()], Reason::Crashed),
        (vec![Input::Ready, gone()], Reason::Unknown),
        (
            vec![Input::Ready, shutdown("guest-shutdown"), gone()],
            Reason::GuestShutdown,
        ),
        (
            vec![Input::Ready, stop(true), shutdown("guest-shutdown"), gone()],
            Reason::GuestShutdown,
        ),
        (
            vec![Input::Ready, shutdown("host-qmp-quit"), gone()],
            Reason::Quit,
        ),
        (
            vec![Input::Ready, Input::Kill, shutdown("host-qmp-quit"), gone()],
            Reason::Killed,
        ),
        (
            vec![Input::Ready, failed(), shutdown("host-qmp-quit"), gone()],
            Reason::HookFailed,
        ),
        (vec![Input::Ready, failed(), crash()], Reason::HookFailed),
        // The user was faster.
        (
            vec![Input::Ready, Input::Kill, failed(), gone()],
            Reason::Killed,
        ),
        (
            vec![Input::Ready, shutdown("guest-reset"), gone()],
            Reason::GuestReset,
        ),
        (
            vec![Input::Ready, Input::Qemu(News::WatchdogPoweroff), gone()],
            Reason::Watchdog,
        ),
        (
            vec![Input::Ready, Input::Qemu(News::Panicked), gone()],
            Reason::GuestPanic,
        ),
    ] {
        let shown = format!("{inputs:?}");
        let (life, actions) = run(inputs);
        assert_eq!(actions, [Action::Finish(reason)], "{shown}");
        assert_eq!(life.condition(), Condition::Stopped);
    }
}

fn any_input() -> impl Strategy<Value = Input> {
    prop_oneof![
        Just(Input::Ready),
        Just(Input::Qemu(News::Stopped)),
        Just(Input::Qemu(News::Resumed)),
        Just(Input::Qemu(News::Suspended)),
        Just(Input::Qemu(News::WokeUp)),
        Just(shutdown("guest-shutdown")),
        Just(shutdown("host-qmp-quit")),
        Just(Input::Qemu(News::Panicked)),
        Just(Input::Qemu(News::Reset)),
        Just(Input::Qemu(News::WatchdogPoweroff)),
        any::<bool>().prop_map(Input::Agent),
        Just(Input::AgentFailed),
        any::<bool>().prop_map(stop),
        Just(Input::Kill),
        Just(Input::HookFailed("it failed".to_owned())),
        Just(Input::Signal { timeout: MINUTE }),
        prop_oneof![
            Just(Timer::Nudge),
            Just(Timer::Deadline),
            Just(Timer::Quit),
            Just(Timer::Kill),
            Just(Timer::Linger),
        ]
        .prop_map(Input::Timer),
        Just(Input::MonitorClosed),
        Just(Input::ConnectFailed),
        Just(gone()),
    ]
}

proptest! {
    #[test]
    fn any_order_of_inputs_is_safe(keeps in any::<bool>(), inputs in proptest::collection::vec(any_input(), 0..60)) {
        let mut life = Life::after(Before {
            keeps,
            ..Before::default()
        });
        let mut armed = std::collections::BTreeSet::new();
        let (mut quits, mut kills, mut finished) = (0, 0, 0);
        for input in inputs {
            // A timer only runs out when it was armed.
            if let Input::Timer(timer) = &input {
                if !armed.remove(timer) {
                    continue;
                }
            }
            let over = life.condition() == Condition::Stopped;
            let (next, actions) = life.step(input);
            life = next;
            prop_assert!(!over || actions.is_empty(), "nothing happens after the end");
            for action in actions {
                match action {
                    Action::Arm(timer, _) => { armed.insert(timer); }
                    Action::Quit => quits += 1,
                    Action::Kill => kills += 1,
                    Action::Finish(_) => finished += 1,
                    _ => {}
                }
            }
            prop_assert!(quits <= 1 && kills <= 1 && finished <= 1);
            let limit = match life.ending {
                Ending::Asked => Some(Timer::Deadline),
                Ending::Leaving => Some(Timer::Linger),
                Ending::Quitting => Some(Timer::Quit),
                Ending::No | Ending::Killing | Ending::Over => None,
            };
            prop_assert!(limit.is_none_or(|timer| armed.contains(&timer)), "{life:?} can last for ever");
        }
        let (life, _) = life.step(gone());
        prop_assert_eq!(life.condition(), Condition::Stopped);
    }
}

#[test]
fn the_words_of_qemu_are_known() {
    for (word, reason) in [
        ("guest-panic", Reason::GuestPanic),
        ("x-new", Reason::Unknown),
    ] {
        assert_eq!(shutdown_reason(word), reason);
    }
    assert_eq!(
        serde_json::to_string(&shutdown_reason("host-signal")).unwrap(),
        "\"host-signal\""
    );
}

#[test]
fn a_hibernation_is_told_from_a_shutdown() {
    let reason = |inputs: Vec<Input>| {
        let (_, actions) = run([Input::Ready].into_iter().chain(inputs));
        actions
    };
    let hibernated = Input::Qemu(News::Hibernated);
    let off = || shutdown("guest-shutdown");
    assert_eq!(
        reason(vec![hibernated.clone(), off(), gone()]),
        [Action::Finish(Reason::Hibernated)]
    );
    // Whoever ends QEMU then: the guest's memory is on its disk.
    assert_eq!(
        reason(vec![hibernated, Input::Kill, gone()]),
        [Action::Finish(Reason::Hibernated)]
    );
    // A board that does not tell them apart.
    let asked = Input::Hibernate(true);
    assert_eq!(
        reason(vec![asked.clone(), off(), gone()]),
        [Action::Finish(Reason::HibernationRequested)]
    );
    assert_eq!(
        reason(vec![asked.clone(), Input::Hibernate(false), off(), gone()]),
        [Action::Finish(Reason::GuestShutdown)]
    );
    // It did not, and was then asked to shut down.
    assert_eq!(
        reason(vec![asked.clone(), stop(false), off(), gone()]),
        [Action::Finish(Reason::GuestShutdown)]
    );
    assert_eq!(
        reason(vec![asked, Input::Kill, gone()]),
        [Action::Finish(Reason::Killed)]
    );
}

#[test]
fn the_clock_is_set_after_each_sleep() {
    let (life, actions) = run([
        Input::Ready,
        Input::Qemu(News::Suspended),
        Input::Qemu(News::WokeUp),
    ]);
    assert!(actions.contains(&Action::SetClock), "{actions:?}");
    assert_eq!(life.wakeups(), 1);
    assert_eq!(life.step(Input::Qemu(News::Reset)).0.wakeups(), 0);
    // Hibernated before: once its agent answers, and once only.
    let life = Life::after(Before {
        resumes: true,
        ..Before::default()
    });
    let (life, _) = life.step(Input::Ready);
    let (life, actions) = life.step(Input::Agent(true));
    assert!(actions.contains(&Action::SetClock), "{actions:?}");
    let (life, _) = life.step(Input::Agent(false));
    let (_, actions) = life.step(Input::Agent(true));
    assert!(!actions.contains(&Action::SetClock), "{actions:?}");
}

fn keeping(inputs: impl IntoIterator<Item = Input>) -> (Life, Vec<Action>) {
    let mut life = Life::after(Before {
        keeps: true,
        ..Before::default()
    });
    let mut last = Vec::new();
    for input in inputs {
        (life, last) = life.step(input);
    }
    (life, last)
}

#[test]
fn a_guest_that_is_kept_after_its_shutdown_can_begin_anew_or_end() {
    let halted = [
        Input::Ready,
        shutdown("guest-shutdown"),
        Input::Qemu(News::Stopped),
    ];
    let (life, actions) = keeping(halted.clone());
    assert_eq!(life.condition(), Condition::Paused);
    assert!(life.word().unwrap().contains("shut down") && actions.is_empty());

    // Nobody is asked for what has happened; the reason is the guest's.
    let (life, actions) = keeping(halted.clone().into_iter().chain([stop(false)]));
    assert!(actions.contains(&Action::Quit), "{actions:?}");
    let (life, _) = life.step(shutdown("host-qmp-quit"));
    let (life, actions) = life.step(gone());
    assert_eq!(actions, [Action::Finish(Reason::GuestShutdown)]);
    assert!(life.wished(Reason::GuestShutdown));

    let reset = [Input::Qemu(News::Reset), Input::Qemu(News::Resumed)];
    let (life, _) = keeping(halted.into_iter().chain(reset));
    assert_eq!((life.condition(), life.word()), (Condition::Running, None));
    let (life, _) = life.step(Input::Kill);
    let (_, actions) = life.step(gone());
    assert_eq!(actions, [Action::Finish(Reason::Killed)]);
}

#[test]
fn what_is_not_kept_is_ended_where_qemu_stays() {
    for (inputs, reason) in [
        (vec![shutdown("guest-reset")], Reason::GuestReset),
        (vec![shutdown("guest-panic")], Reason::GuestPanic),
        (
            vec![stop(false), shutdown("guest-shutdown")],
            Reason::GuestShutdown,
        ),
    ] {
        let (life, actions) = keeping([Input::Ready].into_iter().chain(inputs));
        assert!(actions.contains(&Action::Quit), "{reason:?}: {actions:?}");
        let (life, _) = life.step(shutdown("host-qmp-quit"));
        let (_, actions) = life.step(gone());
        assert_eq!(actions, [Action::Finish(reason)]);
    }
}

/// A guest that is hibernated is not one that has shut down and is kept.
#[test]
fn hibernation_ends_a_qemu_that_stays() {
    for (asked, reason) in [
        (Input::Qemu(News::Hibernated), Reason::Hibernated),
        (Input::Hibernate(true), Reason::HibernationRequested),
    ] {
        let (life, actions) = keeping([Input::Ready, asked, shutdown("guest-shutdown")]);
        assert!(actions.contains(&Action::Quit), "{actions:?}");
        let (life, _) = life.step(shutdown("host-qmp-quit"));
        let (_, actions) = life.step(gone());
        assert_eq!(actions, [Action::Finish(reason)]);
    }
}

#[test]
fn a_panicked_guest_that_is_paused_is_ended_without_being_asked() {
    let panicked = [
        Input::Ready,
        Input::Qemu(News::Panicked),
        Input::Qemu(News::Stopped),
    ];
    let (life, _) = run(panicked.clone());
    assert_eq!(life.condition(), Condition::Paused);
    assert!(life.word().unwrap().contains("panicked"));
    let (life, actions) = life.step(stop(false));
    assert!(actions.contains(&Action::Quit), "{actions:?}");
    let (life, _) = life.step(shutdown("host-qmp-quit"));
    let (_, actions) = life.step(gone());
    assert_eq!(actions, [Action::Finish(Reason::GuestPanic)]);

    let (life, _) = run(panicked.into_iter().chain([Input::Qemu(News::Reset)]));
    assert_eq!(life.word(), None);
}

#[test]
fn what_a_user_wants_is_remembered() {
    let wished = |inputs: Vec<Input>, reason| {
        let (life, _) = run([Input::Ready].into_iter().chain(inputs));
        life.wished(reason)
    };
    let by_itself = vec![shutdown("guest-shutdown")];
    assert!(!wished(by_itself, Reason::GuestShutdown));
    assert!(wished(vec![Input::Kill], Reason::Killed));
    let signal = Input::Signal { timeout: MINUTE };
    assert!(wished(vec![signal], Reason::GuestShutdown));
    // A stop that came to nothing: the guest may still heed it, and a crash is none of it.
    let late = vec![stop(false), Input::Timer(Timer::Deadline)];
    assert!(wished(late.clone(), Reason::GuestShutdown));
    assert!(!wished(late.clone(), Reason::Crashed));
    let reset = late.into_iter().chain([Input::Qemu(News::Reset)]).collect();
    assert!(!wished(reset, Reason::GuestShutdown));
}
