//! Crash sweeps: a command is killed at every system call that changes something, one after the other, and
//! each time the host must come back to what it was. The loop itself is in `inside.rs`.

use std::fs;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::host::Host;
pub(crate) use crate::tracer::Victim;

/// What is swept. The scripts are run by dash, the command is one program of mvm with its words.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sweep {
    /// What is killed: `mvm run …`, `mvm recover`.
    pub(crate) command: String,
    /// Its exit code when nobody kills it.
    pub(crate) code: i32,
    /// Run before each time; must succeed.
    pub(crate) prepare: String,
    /// What must put the host right afterwards; must succeed.
    pub(crate) after: String,
    /// Run where the host was not put right, so that the next point starts clean. Without it, or where it does
    /// not help, the sweep ends at the first failure.
    pub(crate) reset: String,
    /// Who is killed.
    pub(crate) victim: Victim,
    /// Whether QEMU is killed too, right afterwards.
    pub(crate) kill_qemu: bool,
    /// Where this is not empty: a QEMU with that in its command line is another guest's, and left alone.
    pub(crate) spare: String,
    /// Where this is not empty, only the calls are points whose words hold it, and the one after each of them.
    pub(crate) only: String,
    /// Where this is not empty: the first point is the first call whose words begin with it.
    pub(crate) from: String,
    /// The first point, from 1, and how far the next one is.
    pub(crate) first: usize,
    pub(crate) stride: usize,
    /// How long each command and script may take.
    pub(crate) seconds: u64,
}

impl Sweep {
    /// A sweep of that command, after which that script must put the host right. `mvm run` itself is killed;
    /// QEMU lives on.
    pub(crate) fn of(command: &str, after: &str) -> Self {
        Self {
            command: command.to_owned(),
            code: 0,
            prepare: String::new(),
            after: after.to_owned(),
            reset: String::new(),
            victim: Victim::Main,
            kill_qemu: false,
            spare: String::new(),
            only: String::new(),
            from: String::new(),
            first: 1,
            stride: 1,
            seconds: 120,
        }
    }

    /// Run before each time.
    pub(crate) fn prepare(mut self, script: &str) -> Self {
        script.clone_into(&mut self.prepare);
        self
    }

    /// Run after a point that failed, so that the sweep can go on.
    pub(crate) fn reset(mut self, script: &str) -> Self {
        script.clone_into(&mut self.reset);
        self
    }

    /// QEMU is killed together with its supervisor.
    pub(crate) fn with_qemu(mut self) -> Self {
        self.kill_qemu = true;
        self
    }

    /// A guest that lives all the while: its QEMU is not killed with the others.
    pub(crate) fn spare(mut self, name: &str) -> Self {
        name.clone_into(&mut self.spare);
        self
    }

    /// Only calls with that in their words are points (`write /sys/`), and the one after each of them: the
    /// moments right before and right after.
    pub(crate) fn only(mut self, words: &str) -> Self {
        words.clone_into(&mut self.only);
        self
    }

    /// QEMU is killed together with its supervisor. Until it is started, that is the sweep in which it lives:
    /// the points are those from its start on.
    pub(crate) fn with_qemu_once_started(mut self) -> Self {
        self.kill_qemu = true;
        "execve /usr/bin/qemu-system".clone_into(&mut self.from);
        self
    }

    /// Each second point: the odd ones, or the even ones. Both together leave none out.
    pub(crate) fn half(mut self, half: Half) -> Self {
        self.stride = 2;
        self.first = match half {
            Half::Odd => 1,
            Half::Even => 2,
        };
        self
    }

    /// Who is killed.
    pub(crate) fn victim(mut self, victim: Victim) -> Self {
        self.victim = victim;
        self
    }
}

/// Which points of a sweep that two hosts share.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Half {
    Odd,
    Even,
}

/// What a sweep found.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    /// How often the command was killed.
    pub(crate) points: usize,
    /// What was wrong.
    pub(crate) failures: Vec<String>,
}

impl Host {
    /// Sweeps, prints how many points there were, and fails with all that was wrong.
    #[track_caller]
    pub(crate) fn sweep(&self, sweep: &Sweep) -> usize {
        let name = format!("sweep-{}", self.number());
        let path = self.scratch().join(&name);
        let mut sweep = sweep.clone();
        // For people: to go on where one was broken off.
        if let Some(first) = std::env::var("LAB_FIRST")
            .ok()
            .and_then(|first| first.parse().ok())
        {
            sweep.first = first;
        }
        let text = serde_json::to_string(&sweep).expect("plain data");
        fs::write(&path, text).expect("the shared folder");
        // Its own deadlines end the script: for each command, and for the test.
        let output = self.sh(
            &format!(
                "LAB_SWEEP=/lab/{name} /mvm/lab inside::sweep --exact --ignored --nocapture >/lab/{name}.log 2>&1"
            ),
            Duration::from_secs(3 * 3600),
        );
        let log = fs::read_to_string(path.with_extension("log")).unwrap_or_default();
        println!("{log}");
        let found = fs::read_to_string(path.with_extension("found"));
        let found = found.ok().and_then(|text| serde_json::from_str(&text).ok());
        let found: Found = found.unwrap_or_else(|| panic!("the sweep broke: {output}"));
        println!("{}: {} points swept", sweep.command, found.points);
        assert!(
            found.failures.is_empty(),
            "{} points swept, {} wrong:\n{}",
            found.points,
            found.failures.len(),
            found.failures.join("\n")
        );
        found.points
    }
}
