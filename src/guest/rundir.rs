//! Where a guest's files are at run time.

use std::path::{Path, PathBuf};

use crate::dirs::Dirs;
use crate::ids::GuestName;

/// The paths of one guest. Nothing is made by naming them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    name: GuestName,
    dir: PathBuf,
    state: PathBuf,
    host: PathBuf,
}

macro_rules! files {
    ($($(#[$doc:meta])* $method:ident = $name:literal;)*) => {
        $($(#[$doc])* pub fn $method(&self) -> PathBuf { self.dir.join($name) })*
    };
}

impl RunDir {
    /// The paths of that guest.
    pub fn new(dirs: &Dirs, name: &GuestName) -> Self {
        Self {
            name: name.clone(),
            dir: dirs.guest_runtime(name),
            state: dirs.guest_state(name),
            host: dirs.host().to_owned(),
        }
    }

    /// The guest.
    pub fn name(&self) -> &GuestName {
        &self.name
    }

    /// The directory itself; it is there only while the guest is, or until it is recovered.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// What it shares with the other guests of this host is below this.
    pub fn host(&self) -> &Path {
        &self.host
    }

    files! {
        /// Locked as long as QEMU or the supervisor lives.
        lock = "lock";
        /// Locked by whoever supervises, starts or recovers the guest.
        supervisor_lock = "supervisor.lock";
        /// [`super::GuestState`].
        state = "state.json";
        /// The plan as carried out.
        plan = "plan.json";
        /// The plan as it was made, of a guest that is started anew after its end.
        first_plan = "first-plan.json";
        /// What came to the guest while it runs, and how far it is.
        devices = "devices.json";
        /// The inverses of what was done.
        journal = "journal.jsonl";
        /// QEMU's monitor; the supervisor is its one client.
        monitor = "monitor.sock";
        /// The second monitor, which records events.
        events = "events.sock";
        /// What it recorded.
        events_log = "events.log";
        /// QMP for any number of clients.
        qmp = "qmp.sock";
        /// The supervisor's verbs.
        control = "control.sock";
        /// The guest agent's channel; the supervisor is its one client.
        agent = "agent.sock";
    }

    /// A console for any number of clients.
    pub fn console(&self, id: &str) -> PathBuf {
        self.dir.join(format!("console-{id}.sock"))
    }

    /// QEMU's side of that console; the supervisor is its one client.
    pub fn console_qemu(&self, id: &str) -> PathBuf {
        self.dir.join(format!("console-{id}.qemu.sock"))
    }

    /// A channel of the user's.
    pub fn channel(&self, id: &str) -> PathBuf {
        self.dir.join(format!("channel-{id}.sock"))
    }

    /// The folder of the logs, which outlive the guest.
    pub fn log_dir(&self) -> PathBuf {
        self.state.join("log")
    }

    /// What QEMU writes to stdout and stderr.
    pub fn qemu_log(&self) -> PathBuf {
        self.log_dir().join("qemu.log")
    }

    /// What a console showed.
    pub fn console_log(&self, id: &str) -> PathBuf {
        self.log_dir().join(format!("console-{id}.log"))
    }

    /// What a supervisor in the background has to say.
    pub fn supervisor_log(&self) -> PathBuf {
        self.log_dir().join("supervisor.log")
    }

    /// What it left when it went to sleep: [`super::asleep::Asleep`].
    pub fn asleep(&self) -> PathBuf {
        self.state.join("asleep.json")
    }

    /// Its state, where it was saved: the image that its mark speaks of.
    pub fn saved(&self) -> PathBuf {
        self.state.join("saved.img")
    }

    /// The same, while it is being written.
    pub fn saved_part(&self) -> PathBuf {
        self.state.join("saved.part")
    }

    /// How the guest ended last: [`super::Ended`].
    pub fn last(&self) -> PathBuf {
        self.state.join("last.json")
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_directory_is_one_that_is_removed() {
        let dirs = Dirs::new(0, &|_| None);
        let run = RunDir::new(&dirs, &"g".parse().unwrap());
        for path in [
            run.lock(),
            run.supervisor_lock(),
            run.state(),
            run.plan(),
            run.first_plan(),
            run.devices(),
            run.journal(),
            run.monitor(),
            run.events(),
            run.events_log(),
            run.qmp(),
            run.control(),
            run.agent(),
            run.console("main"),
            run.console_qemu("main"),
            run.channel("x"),
            crate::sidecar::Sidecar::socket_in(run.path(), "x"),
            crate::sidecar::Sidecar::lock_in(run.path(), "x"),
            run.path().join("sidecar-x.ready"),
            crate::hook::Hook::mark_in(run.path(), "x"),
        ] {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(crate::ops::dirs::is_ours(name), "{name}");
        }
    }
}
