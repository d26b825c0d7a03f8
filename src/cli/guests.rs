//! Which guests there are: looked up in the run-time directory, without waiting for any of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use serde::Deserialize;

use super::control::Control;
use super::{Context, Failure};
use crate::dirs::Dirs;
use crate::error::{ExitCode, Report, did_you_mean};
use crate::ids::GuestName;
use crate::ops::lock;

/// A guest that runs, or whose remains lie in the run-time directory.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) name: String,
    /// Its run-time directory.
    pub(super) run: PathBuf,
    pub(super) life: Life,
    pub(super) state: State,
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

/// What `state.json` says, as much of it as is shown.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct State {
    pub(super) profile: Option<String>,
    state: Option<String>,
    /// Seconds since 1970.
    pub(super) since: Option<u64>,
    pub(super) started: Option<u64>,
    pub(super) pid: Option<u32>,
    pub(super) supervisor: Option<u32>,
    pub(super) accel: Option<String>,
    pub(super) agent: Option<bool>,
    pub(super) message: Option<String>,
}

impl Seen {
    /// The state's name, as `mvm list` shows it.
    pub(super) fn state_name(&self) -> &str {
        match self.life {
            Life::Supervised => self.state.state.as_deref().unwrap_or("starting"),
            Life::Unsupervised => "unsupervised",
            Life::Gone => "crashed",
        }
    }

    /// QEMU's process, while there is one.
    pub(super) fn pid(&self) -> Option<u32> {
        self.state.pid.filter(|_| self.life != Life::Gone)
    }

    /// A conversation with its supervisor.
    pub(super) async fn control(&self) -> Result<Control, Failure> {
        Ok(Control::connect(&self.name, self.run.join("control.sock")).await?)
    }

    /// Looks at a guest's run-time directory; `None` where nothing of a guest is in it.
    fn at(name: &str, run: PathBuf) -> Option<Self> {
        let held = |file: &str| lock::is_held(&run.join(file)).unwrap_or(false);
        let text = fs::read_to_string(run.join("state.json"));
        let life = match (held("lock"), held("supervisor.lock")) {
            (_, true) => Life::Supervised,
            (true, false) => Life::Unsupervised,
            // Only a lock file that nobody holds: it stays on purpose.
            (false, false) if text.is_err() && !run.join("journal.jsonl").exists() => return None,
            (false, false) => Life::Gone,
        };
        let state = text
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        Some(Self {
            name: name.to_owned(),
            run,
            life,
            state,
        })
    }
}

/// Every guest of the run-time directory, by name, those that left only remains included.
pub(super) fn all(dirs: &Dirs) -> Result<Vec<Seen>, Failure> {
    let mut seen: Vec<Seen> = names_in(&dirs.runtime, "")?
        .into_iter()
        .filter_map(|name| Seen::at(&name, dirs.runtime.join(&name)))
        .collect();
    seen.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(seen)
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
    Ok(Seen::at(name.as_str(), dirs.guest_runtime(&name)))
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
    let report = if stopped || machines.iter().any(|machine| machine == name) {
        Report::new(ExitCode::NotRunning, format!("{name} is not running"))
            .hint(format!("`mvm start {name}` starts it"))
    } else {
        let report = Report::new(ExitCode::NotRunning, format!("there is no guest `{name}`"));
        let running: Vec<String> = all(dirs)?.into_iter().map(|seen| seen.name).collect();
        let known = running.iter().chain(&machines).map(String::as_str);
        match did_you_mean(name, known) {
            Some(near) => report.hint(format!("did you mean `{near}`?")),
            None => report.hint("`mvm list --all` shows the guests"),
        }
    };
    Ok(report.into())
}

/// The names of all machine files, each once, sorted. Only folders are read, no file.
pub(super) fn machines(dirs: &Dirs) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for folder in dirs.machines() {
        names.extend(names_in(&folder, ".toml")?);
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// The guest names among a folder's entries that end so.
fn names_in(folder: &Path, ending: &str) -> Result<Vec<String>, Failure> {
    let failed = |error: io::Error| {
        Failure::message(
            ExitCode::Failed,
            format!("cannot read {}: {error}", folder.display()),
        )
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?.file_name();
        let name = entry.to_str().and_then(|name| name.strip_suffix(ending));
        names.extend(
            name.filter(|name| GuestName::from_str(name).is_ok())
                .map(ToOwned::to_owned),
        );
    }
    Ok(names)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn world() -> (tempfile::TempDir, Dirs) {
        let root = tempfile::tempdir().unwrap();
        let base = root.path().to_owned();
        let dirs = Dirs::new(1000, &|name| match name {
            "MVM_CONFIG_DIR" => Some(base.join("config").into()),
            "MVM_STATE_DIR" => Some(base.join("state").into()),
            "MVM_RUNTIME_DIR" => Some(base.join("run").into()),
            "MVM_CACHE_DIR" => Some(base.join("cache").into()),
            _ => None,
        });
        fs::create_dir_all(dirs.machines()[0].as_path()).unwrap();
        (root, dirs)
    }

    #[test]
    fn the_locks_tell_who_lives() {
        let (_root, dirs) = world();
        let run = dirs.runtime.join("web");
        fs::create_dir_all(&run).unwrap();
        fs::write(
            run.join("state.json"),
            r#"{"state":"running","pid":7,"new":[]}"#,
        )
        .unwrap();
        let state = || all(&dirs).unwrap()[0].state_name().to_owned();
        assert_eq!(state(), "crashed");
        let qemu = lock::take(&run.join("lock")).unwrap();
        assert_eq!(state(), "unsupervised");
        let supervisor = lock::take(&run.join("supervisor.lock")).unwrap();
        assert_eq!(state(), "running");
        assert_eq!(find(&dirs, "web").unwrap().state.pid, Some(7));
        drop((qemu, supervisor));
        fs::remove_file(run.join("state.json")).unwrap();
        assert!(all(&dirs).unwrap().is_empty(), "a free lock is no guest");
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
