//! What is known about a guest, on disk for everybody: `state.json` while it is there, `last.json`
//! afterwards.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ids::{Arch, GuestName};
use crate::machine::AccelKind;

/// What a guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// QEMU is being started.
    Starting,
    /// The guest's processors run.
    Running,
    /// They are held.
    Paused,
    /// The guest sleeps (S3).
    Suspended,
    /// It was asked to end.
    Stopping,
    /// It ended, and is about to be started anew.
    Restarting,
    /// It ended; only the supervisor's last answers say so.
    Stopped,
}

impl Condition {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Suspended => "suspended",
            Self::Stopping => "stopping",
            Self::Restarting => "restarting",
            Self::Stopped => "stopped",
        }
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `state.json`, and the answer to `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct GuestState {
    /// The guest.
    pub name: GuestName,
    /// The profile or machine file that it was made from.
    pub profile: String,
    /// What it does.
    pub state: Condition,
    /// Since when, in seconds since 1970.
    pub since: u64,
    /// When QEMU was started, in seconds since 1970.
    pub started: u64,
    /// The supervisor's process id.
    pub supervisor: u32,
    /// QEMU's process id.
    pub pid: Option<u32>,
    /// When QEMU's process began, in clock ticks since boot: tells it from a later one of that id.
    pub qemu_start_ticks: Option<u64>,
    /// The accelerator.
    pub accel: AccelKind,
    /// Whether the guest agent answers.
    pub agent: bool,
    /// The guest's architecture.
    pub arch: Arch,
    /// The sockets to connect to, by name: `qmp`, `control`, `console-main`, …
    pub sockets: BTreeMap<String, PathBuf>,
    /// Where its displays are, by kind, as QEMU said: a URI, or words where there is none.
    #[serde(default)]
    pub displays: BTreeMap<String, String>,
    /// What a user should know: why the guest is paused, that its end is overdue.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    /// The programs beside QEMU that have ended, and what the guest lacks for that.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub lost: Vec<String>,
    /// How often the guest woke from its sleep since its last reset.
    #[serde(default)]
    pub wakeups: u32,
    /// Whether it was asked to hibernate, and has not ended yet.
    #[serde(default)]
    pub hibernating: bool,
    /// Whether it is paused in place of a sleep: what puts guests to sleep did it, and what wakes them undoes it.
    #[serde(default)]
    pub held: bool,
    /// What it did when it was held to be saved, while that is under way.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub saving: Option<Condition>,
    /// Whether it was hibernated, or saved, when it was started.
    #[serde(default)]
    pub resumed: bool,
    /// When it is started anew, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_start: Option<u64>,
}

/// How a guest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The guest shut itself down, asked to or not.
    GuestShutdown,
    /// The guest wrote its memory to its disk and goes on from there at its next start.
    Hibernated,
    /// QEMU wrote the guest's state to a file, from where it goes on at its next start.
    Saved,
    /// It was asked to hibernate and shut itself down; its board does not tell the two apart.
    HibernationRequested,
    /// The guest reset itself, and `-no-reboot` made that the end.
    GuestReset,
    /// The guest's kernel panicked.
    GuestPanic,
    /// The watchdog bit.
    Watchdog,
    /// `mvm kill`, or a stop that was forced.
    Killed,
    /// A hook of the profile that must not fail has failed.
    HookFailed,
    /// A QMP client said `quit`.
    Quit,
    /// A signal told QEMU to end.
    HostSignal,
    /// QEMU failed.
    Crashed,
    /// QEMU did not start.
    StartFailed,
    /// Nobody saw it: QEMU was gone when mvm looked.
    Unknown,
}

impl Reason {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GuestShutdown => "guest-shutdown",
            Self::Hibernated => "hibernated",
            Self::Saved => "saved",
            Self::HibernationRequested => "hibernation-requested",
            Self::GuestReset => "guest-reset",
            Self::GuestPanic => "guest-panic",
            Self::Watchdog => "watchdog",
            Self::Killed => "killed",
            Self::HookFailed => "hook-failed",
            Self::Quit => "quit",
            Self::HostSignal => "host-signal",
            Self::Crashed => "crashed",
            Self::StartFailed => "start-failed",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the guest's end was a failure.
    pub const fn is_failure(self) -> bool {
        matches!(
            self,
            Self::GuestPanic | Self::HookFailed | Self::Crashed | Self::StartFailed | Self::Unknown
        )
    }
}

/// `last.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ended {
    /// When, in seconds since 1970.
    pub at: u64,
    /// How.
    pub reason: Reason,
    /// QEMU's exit status, where it was seen.
    pub exit_status: Option<i32>,
    /// The signal that ended QEMU.
    pub signal: Option<i32>,
    /// What happened, for people.
    pub message: Option<String>,
    /// The init system that started the supervisor is to start the guest anew.
    #[serde(skip)]
    pub again: bool,
}

impl Ended {
    /// Says more of it.
    pub(crate) fn add(&mut self, text: &str) {
        self.message = Some(match self.message.take() {
            Some(message) => format!("{message}; {text}"),
            None => text.to_owned(),
        });
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Replaces a file as a whole: a reader sees the old one or the new one.
///
/// # Errors
/// The directory is not there or not writable.
pub fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".mvm-new");
    let beside = path.with_file_name(name);
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(&text)?;
    fs::rename(&beside, path)
}

/// The same, and it is there after a power failure too.
///
/// # Errors
/// As [`write`], or the file system cannot promise it.
pub fn write_durably(path: &Path, value: &impl Serialize) -> io::Result<()> {
    write(path, value)?;
    fs::File::open(path)?.sync_all()?;
    sync_dir(path)
}

/// Removes such a file for good; one that is not there is removed.
///
/// # Errors
/// It cannot be removed.
pub fn remove_durably(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_dir(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) => fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// Reads such a file; `None` where there is none.
///
/// # Errors
/// It is not readable, or not what it should be.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("last.json");
        assert_eq!(read::<Ended>(&path).unwrap(), None);
        let ended = Ended {
            at: 7,
            reason: Reason::GuestShutdown,
            exit_status: Some(0),
            signal: None,
            message: None,
            again: false,
        };
        write(&path, &ended).unwrap();
        write(&path, &ended).unwrap();
        assert_eq!(read(&path).unwrap(), Some(ended));
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 1);
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.contains(r#""reason":"guest-shutdown","exit-status":0"#),
            "{text}"
        );
        fs::write(&path, "{").unwrap();
        assert!(read::<Ended>(&path).is_err());
    }

    #[test]
    fn words_are_the_same_everywhere() {
        for reason in [
            Reason::GuestShutdown,
            Reason::StartFailed,
            Reason::HookFailed,
            Reason::HostSignal,
        ] {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        for condition in [Condition::Running, Condition::Stopped] {
            assert_eq!(serde_json::to_value(condition).unwrap(), condition.as_str());
        }
    }
}
