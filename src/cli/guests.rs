//! Which guests there are: looked up in the run-time directory, without waiting for any of them.

use std::str::FromStr as _;

use super::control::Control;
use super::{Context, Failure};
use crate::dirs::Dirs;
use crate::error::{ExitCode, Report, did_you_mean};
use crate::guest::{self, GuestState, Presence, RunDir, asleep};
use crate::ids::GuestName;
use crate::profile;

/// A guest that runs, or whose remains lie in the run-time directory.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) name: GuestName,
    pub(super) run: RunDir,
    pub(super) life: Life,
    /// What its supervisor wrote down last.
    pub(super) state: Option<GuestState>,
}

/// Who holds the guest's locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// QEMU runs, or is being started, under a supervisor.
    Supervised,
    /// QEMU runs, and its supervisor is gone.
    Unsupervised,
    /// Nothing runs: what is there was left behind.
    Gone,
}

impl Seen {
    fn new(dirs: &Dirs, name: GuestName, presence: Presence) -> Option<Self> {
        let (life, state) = match presence {
            Presence::Absent => return None,
            Presence::Supervised(state) => (Life::Supervised, state),
            Presence::Unsupervised(state) => (Life::Unsupervised, state),
            Presence::Dead(state) => (Life::Gone, state),
        };
        Some(Self {
            run: RunDir::new(dirs, &name),
            name,
            life,
            state: state.map(|state| *state),
        })
    }

    /// The state's name, as `mvm list` shows it.
    pub(super) fn state_name(&self) -> &'static str {
        match (self.life, &self.state) {
            (Life::Supervised, Some(state)) => state.state.as_str(),
            (Life::Supervised, None) => "starting",
            (Life::Unsupervised, _) => "unsupervised",
            (Life::Gone, _) => "crashed",
        }
    }

    /// QEMU's process, while there is one.
    pub(super) fn pid(&self) -> Option<u32> {
        let state = self.state.as_ref().filter(|_| self.life != Life::Gone);
        state.and_then(|state| state.pid)
    }

    /// A conversation with its supervisor.
    pub(super) async fn control(&self) -> Result<Control, Failure> {
        Ok(Control::connect(self.name.as_str(), self.run.control()).await?)
    }
}

/// Every guest of the run-time directory, by name, those that left only remains included.
pub(super) fn all(dirs: &Dirs) -> Result<Vec<Seen>, Failure> {
    let found = guest::list(dirs)?.into_iter();
    Ok(found
        .filter_map(|(name, presence)| Seen::new(dirs, name, presence))
        .collect())
}

/// Every guest that runs.
pub(super) fn running(dirs: &Dirs) -> Result<Vec<Seen>, Failure> {
    let mut seen = all(dirs)?;
    seen.retain(|guest| guest.life != Life::Gone);
    Ok(seen)
}

/// The guest of that name, if it runs or left something behind.
pub(super) fn look(dirs: &Dirs, name: &str) -> Result<Option<Seen>, Failure> {
    let name = GuestName::from_str(name)?;
    let presence = guest::look(dirs, &name)?;
    Ok(Seen::new(dirs, name, presence))
}

/// The running guest of that name; where there is none, the error says what there is instead.
pub(super) fn find(dirs: &Dirs, name: &str) -> Result<Seen, Failure> {
    match look(dirs, name)? {
        Some(seen) if seen.life != Life::Gone => Ok(seen),
        Some(_) => Err(Report::new(
            ExitCode::NotRunning,
            format!("{name} is not running: it ended without being cleaned up after"),
        )
        .hint(format!(
            "`mvm recover {name}` does that, `mvm start {name}` too"
        ))
        .into()),
        None => Err(not_running(dirs, name)?),
    }
}

/// The running, supervised guest of that name: one whose supervisor can be asked.
pub(super) fn find_supervised(context: &Context, name: &str) -> Result<Seen, Failure> {
    let seen = find(&context.dirs, name)?;
    supervised(&seen)?;
    Ok(seen)
}

/// Fails where nobody supervises the guest.
pub(super) fn supervised(seen: &Seen) -> Result<(), Failure> {
    if seen.life == Life::Supervised {
        return Ok(());
    }
    Err(Report::new(
        ExitCode::Failed,
        format!("{} runs, but its supervisor is gone", seen.name),
    )
    .hint(format!("`mvm recover {}` gives it a new one", seen.name))
    .into())
}

fn not_running(dirs: &Dirs, name: &str) -> Result<Failure, Failure> {
    let stopped = dirs.guest_state(&GuestName::from_str(name)?).is_dir();
    let machines = machines(dirs)?;
    let asleep = asleep::read(&RunDir::new(dirs, &GuestName::from_str(name)?));
    if let Ok(Some(asleep)) = asleep {
        let state = asleep.kind.as_str();
        let report = Report::new(
            ExitCode::NotRunning,
            format!("{name} does not run: {state}"),
        )
        .hint(match asleep.kind {
            asleep::Kind::UsedUp => {
                format!(
                    "`{} --discard-hibernation` starts it anew",
                    asleep.start_command()
                )
            }
            _ => format!("`{}` lets it go on where it was", asleep.start_command()),
        });
        return Ok(report.into());
    }
    let report = if stopped || machines.iter().any(|machine| machine == name) {
        Report::new(ExitCode::NotRunning, format!("{name} is not running"))
            .hint(format!("`mvm start {name}` starts it"))
    } else {
        let report = Report::new(ExitCode::NotRunning, format!("there is no guest `{name}`"));
        let running = all(dirs)?;
        let running = running.iter().map(|seen| seen.name.as_str());
        let known = running.chain(machines.iter().map(String::as_str));
        match did_you_mean(name, known) {
            Some(near) => report.hint(format!("did you mean `{near}`?")),
            None => report.hint("`mvm list --all` shows the guests"),
        }
    };
    Ok(report.into())
}

/// The names of all machine files, each once, sorted. Only folders are read, no file.
pub(super) fn machines(dirs: &Dirs) -> Result<Vec<String>, Failure> {
    let machines = profile::machines(dirs)?.into_iter();
    // Not every name of a file is one that a guest can have.
    Ok(machines
        .map(|machine| machine.name)
        .filter(|name| GuestName::from_str(name).is_ok())
        .collect())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;

    fn world() -> (tempfile::TempDir, Dirs) {
        let root = tempfile::tempdir().unwrap();
        let base = root.path().to_owned();
        let dirs = Dirs::new(1000, &|name| match name {
            "MVM_CONFIG_DIR" => Some(base.join("config").into()),
            "MVM_STATE_DIR" => Some(base.join("state").into()),
            "MVM_RUNTIME_DIR" => Some(base.join("run").into()),
            "MVM_CACHE_DIR" => Some(base.join("cache").into()),
            "MVM_HOST_DIR" => Some(base.join("host").into()),
            _ => None,
        });
        fs::create_dir_all(dirs.machines()[0].as_path()).unwrap();
        (root, dirs)
    }

    #[test]
    fn unknown_and_stopped_are_told_apart() {
        let (_root, dirs) = world();
        fs::write(dirs.machines()[0].join("ubuntu.toml"), "").unwrap();
        let text = |name| find(&dirs, name).unwrap_err().reports()[0].to_string();
        assert!(text("ubuntu").starts_with("error: ubuntu is not running\n"));
        assert!(text("ubunut").contains("did you mean `ubuntu`?"));
        assert!(text("zzz").contains("mvm list --all"));
        assert_eq!(find(&dirs, "a/b").unwrap_err().exit_code(), ExitCode::Usage);
    }
}
