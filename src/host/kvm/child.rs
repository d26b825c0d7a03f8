//! The probe in a process of its own, which can be abandoned: an ioctl that hangs in the kernel cannot
//! be taken back, and nothing of mvm may hang with it.

use std::process::Command;
use std::time::Duration;

use kvm_ioctls::Kvm;
use nix::errno::Errno;

use super::vm::{self, Probe};
use super::{Abilities, AbsentWhy, KvmFacts, KvmState, Measured};
use crate::host::bounded;

/// Set in the probe's process.
const CHILD_MARK: &str = "MVM_KVM_PROBE";

/// How long one run of the loop may take in the virtual machine.
const RUN_LIMIT: Duration = Duration::from_millis(30);

/// How long the child has for everything. A healthy host needs a few milliseconds, an emulated one some
/// hundred.
const CHILD_LIMIT: Duration = Duration::from_millis(1500);

/// A virtual machine that is slower than this many times is not worth having: QEMU's own emulation
/// (TCG) costs between 20 and 100 times on such a loop, and less on real code.
const SLOW_RATIO: f64 = 10.0;

/// Below this a slow machine may as well be a busy one.
const BUSY_RATIO: f64 = 200.0;

/// How often a doubtful verdict is asked for.
const TRIES: usize = 3;

/// What the hidden command `mvm internal kvm-probe` prints: the facts as one line of JSON.
///
/// It must run in a process with one thread: it uses `SIGALRM`.
pub fn probe_child() -> String {
    serde_json::to_string(&probe()).expect("facts about KVM can be written as JSON")
}

/// Runs the probe in this very process.
fn probe() -> KvmFacts {
    let result = Kvm::new()
        .map_err(vm::Error::at("opening /dev/kvm"))
        .and_then(|kvm| {
            let (mut probe, abilities) = Probe::new(&kvm)?;
            Ok((probe.measure(RUN_LIMIT), abilities))
        });
    match result {
        Ok((Ok(measured), abilities)) => judge(measured, abilities),
        Ok((Err(error), abilities)) => failed(&error, Some(abilities)),
        Err(error) => failed(&error, None),
    }
}

fn judge(measured: Measured, abilities: Abilities) -> KvmFacts {
    let ratio = measured.ratio();
    let (state, reason) = if measured.guest_rounds == 0 {
        (
            KvmState::Broken,
            format!(
                "a virtual machine did not get through one round of a loop in {} ms",
                measured.guest_ns / 1_000_000
            ),
        )
    } else if ratio > SLOW_RATIO {
        (
            KvmState::Slow,
            format!(
                "a loop in a virtual machine takes {ratio:.0} times as long as the same loop natively; \
                 the host above this machine seems to emulate every instruction"
            ),
        )
    } else {
        (
            KvmState::Healthy,
            format!("a loop in a virtual machine takes {ratio:.2} times as long as natively"),
        )
    };
    KvmFacts {
        state,
        reason,
        measured: Some(measured),
        abilities: Some(abilities),
        cached: false,
    }
}

fn failed(error: &vm::Error, abilities: Option<Abilities>) -> KvmFacts {
    let (state, reason) = match error.errno() {
        // What KVM_CREATE_VM says where VirtualBox or VMware run guests.
        Some(Errno::EBUSY) => (
            KvmState::Absent(AbsentWhy::Busy),
            format!("{error}: another hypervisor on this host uses the CPU's virtualisation"),
        ),
        Some(errno) => (KvmState::Broken, format!("{error}: {}", errno.desc())),
        None => (KvmState::Broken, error.to_string()),
    };
    KvmFacts {
        state,
        reason,
        measured: None,
        abilities,
        cached: false,
    }
}

/// Runs the probe in a child: this program, with the hidden argument. The second value says whether the
/// verdict is one to keep for longer: a child that did not answer may have met a busy moment.
pub(super) fn run() -> (KvmFacts, bool) {
    // A program that has this library and not mvm's hidden command would start itself over and over.
    if std::env::var_os(CHILD_MARK).is_some() {
        return (
            broken("the KVM probe asked for the KVM probe".to_owned()),
            false,
        );
    }
    let mut answer = ask();
    for _ in 1..TRIES {
        if !answer.0.is_doubtful() {
            return answer;
        }
        answer = ask();
    }
    let firm = answer.1 && !answer.0.is_doubtful();
    (answer.0, firm)
}

fn ask() -> (KvmFacts, bool) {
    let mut command = Command::new("/proc/self/exe");
    command.args(["internal", "kvm-probe"]);
    command.env(CHILD_MARK, "1");
    run_command(command, CHILD_LIMIT)
}

impl KvmFacts {
    /// Whether a busy moment could have made this of a healthy KVM. One that emulates every instruction
    /// is thousands of times as slow.
    fn is_doubtful(&self) -> bool {
        self.measured
            .as_ref()
            .is_some_and(|measured| match self.state {
                KvmState::Broken => measured.guest_rounds == 0,
                KvmState::Slow => measured.ratio() < BUSY_RATIO,
                _ => false,
            })
    }
}

fn broken(reason: String) -> KvmFacts {
    KvmFacts {
        state: KvmState::Broken,
        reason,
        measured: None,
        abilities: None,
        cached: false,
    }
}

fn run_command(command: Command, limit: Duration) -> (KvmFacts, bool) {
    // A process in an uninterruptible ioctl does not die; it is left behind.
    let outcome = match bounded::run(command, limit) {
        Ok(outcome) => outcome,
        Err(e) => {
            let why = format!("the KVM probe could not be started: {e}");
            return (broken(why), false);
        }
    };
    let answer = outcome.stdout.as_deref();
    if let Some(facts) = answer.and_then(|text| serde_json::from_slice(text).ok()) {
        return (facts, true);
    }
    let why = match (answer, outcome.status) {
        (Some(_), Some(status)) => format!("the KVM probe ended without an answer ({status})"),
        _ => format!("KVM did not answer within {} ms", limit.as_millis()),
    };
    (broken(why), false)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use super::*;
    use std::time::Instant;

    fn measured(guest_rounds: u64, guest_ns: u64) -> Measured {
        Measured {
            rounds: 100_000,
            guest_rounds,
            guest_ns,
            native_ns: 30_000,
        }
    }

    #[test]
    fn the_native_loop_is_the_yardstick() {
        let state = |m| judge(m, Abilities::default()).state;
        assert_eq!(state(measured(100_000, 45_000)), KvmState::Healthy);
        assert_eq!(state(measured(100_000, 180_000_000)), KvmState::Slow);
        assert_eq!(state(measured(16_000, 30_000_000)), KvmState::Slow);
        assert_eq!(state(measured(0, 30_000_000)), KvmState::Broken);
        // An emulated host: a hundred times slower, and natively just as slow.
        let emulated = Measured {
            native_ns: 3_000_000,
            ..measured(100_000, 3_500_000)
        };
        assert_eq!(state(emulated), KvmState::Healthy);
    }

    #[test]
    fn only_what_a_busy_moment_could_have_made_is_asked_again() {
        let doubtful = |m| judge(m, Abilities::default()).is_doubtful();
        assert!(!doubtful(measured(100_000, 45_000)), "healthy");
        assert!(
            !doubtful(measured(16_000, 30_000_000)),
            "thousands of times as slow"
        );
        assert!(doubtful(measured(100_000, 900_000)), "30 times as slow");
        assert!(doubtful(measured(0, 30_000_000)), "it never ran");
    }

    #[test]
    fn another_hypervisor_is_named_as_such() {
        let busy = vm::Error::Call {
            call: "KVM_CREATE_VM",
            source: Errno::EBUSY,
        };
        assert_eq!(failed(&busy, None).state, KvmState::Absent(AbsentWhy::Busy));
        let other = vm::Error::Exit("Shutdown".into());
        assert_eq!(failed(&other, None).state, KvmState::Broken);
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_child_that_hangs_is_left_behind() {
        let start = Instant::now();
        let (facts, keep) = run_command(shell("exec sleep 60"), Duration::from_millis(50));
        assert!(start.elapsed() < Duration::from_secs(5));
        assert_eq!((facts.state, keep), (KvmState::Broken, false));
        assert!(facts.reason.contains("did not answer"), "{}", facts.reason);
    }

    #[test]
    fn a_child_that_dies_says_so() {
        let (facts, keep) = run_command(shell("kill -SEGV $$"), Duration::from_secs(5));
        assert!(!keep);
        assert!(facts.reason.contains("signal: 11"), "{}", facts.reason);
    }

    #[test]
    fn a_child_that_answers_is_believed() {
        let facts = judge(measured(100_000, 30_000), Abilities::default());
        let json = serde_json::to_string(&facts).unwrap();
        let (read, keep) = run_command(shell(&format!("echo '{json}'")), Duration::from_secs(5));
        assert_eq!((read, keep), (facts, true));
    }

    /// The real thing, in a process of its own because of its signal: this test runs itself again.
    #[test]
    fn this_host_gets_a_verdict_in_time() {
        if std::env::var_os("MVM_TEST_KVM_PROBE").is_some() {
            let at = std::env::var("MVM_TEST_KVM_PROBE").unwrap();
            std::fs::write(at, probe_child()).unwrap();
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("facts");
        let start = Instant::now();
        let mut command = Command::new(std::env::current_exe().unwrap());
        let name = "host::kvm::child::tests::this_host_gets_a_verdict_in_time";
        command.args(["--exact", name, "--test-threads=1"]);
        command.env("MVM_TEST_KVM_PROBE", &at);
        let said = command.output().unwrap();
        assert!(said.status.success(), "{said:?}");
        let facts: KvmFacts = serde_json::from_slice(&std::fs::read(&at).unwrap()).unwrap();
        assert!(start.elapsed() < Duration::from_secs(5), "{facts:?}");
        assert!(!facts.reason.is_empty());
        match facts.state {
            KvmState::Healthy | KvmState::Slow => {
                let measured = facts.measured.unwrap();
                assert!(
                    measured.guest_rounds > 0 && measured.native_ns > 0,
                    "{facts:?}"
                );
                assert!(facts.abilities.unwrap().max_vcpus > 0);
            }
            KvmState::Broken | KvmState::Absent(_) => {}
            KvmState::NotAsked => panic!("it was asked"),
        }
    }
}
