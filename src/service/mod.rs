//! What an init system is told of a guest: the text of each file, and where it belongs. Pure: nothing is read
//! or written here.
//!
//! ```text
//! Kind (a guest, the host) + Around (init, program, environment) ──files──► Set of items ──ops──► the host
//! ```
//!
//! Every unit runs `mvm run NAME --unit INIT` in the foreground. How that ends tells the init what to do
//! ([`AGAIN`], [`rest`]), so a guest's restart policy stands in no unit. A
//! supervisor that dies by a signal is started anew by all of them, and adopts its QEMU.

mod busybox;
pub mod hostsleep;
mod openrc;
mod procd;
mod quote;
pub mod rest;
mod runit;
mod s6;
mod systemd;
mod sysv;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{ExitCode, Hint};
use crate::host::Init;
use crate::ids::GuestName;

/// The exit status of a supervisor that wants to be started anew (`EX_TEMPFAIL`).
pub const AGAIN: u8 = 75;

/// Seconds between the end of a supervisor and its next start, where the init can wait.
const DELAY: u32 = 2;
/// Starts within [`PERIOD`] after which an init that counts gives up.
const STARTS: u32 = 10;
/// In seconds.
const PERIOD: u32 = 600;
/// For a supervisor to say that its guest runs: devices may take long to be taken.
const START: Duration = Duration::from_secs(180);
/// For QEMU to write its images, and for the host to get back what the guest had, after the guest's own time.
const AFTER_STOP: Duration = Duration::from_secs(90);

/// What a unit is for.
#[derive(Debug, Clone, Copy)]
pub enum Kind<'a> {
    /// It runs one guest.
    Guest(&'a Guest),
    /// It starts guests with the host and stops all with it.
    Host(&'a Host),
}

/// A guest that gets a unit.
#[derive(Debug, Clone)]
pub struct Guest {
    /// What it is called.
    pub name: GuestName,
    /// How long it may take to shut down.
    pub stop: Duration,
    /// Whether it has devices that write to its memory, which must then stay in place.
    pub locks_memory: bool,
}

/// What starts guests with the host.
#[derive(Debug, Clone)]
pub struct Host {
    /// How long all guests together may take to shut down.
    pub stop: Duration,
}

/// What the unit is written for.
#[derive(Debug, Clone)]
pub struct Around {
    /// The init system.
    pub init: Init,
    /// The program `mvm`, from the root on.
    pub program: String,
    /// The variables that mvm was called with and a unit must say again, in their order.
    pub environment: Vec<(String, String)>,
    /// The directory of running guests: units of another one are other guests'.
    pub runtime: String,
    /// What must be mounted before a guest is started.
    pub state: String,
    /// The user's own units: the folder that they are in.
    pub user: Option<PathBuf>,
    /// The version of systemd.
    pub systemd: Option<u32>,
    /// Where runit looks for services.
    pub runit: String,
}

/// One change of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A file of our own.
    File {
        /// Where.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// What stands in it.
        text: String,
    },
    /// A symbolic link of our own.
    Link {
        /// Where.
        path: PathBuf,
        /// What it names.
        target: PathBuf,
    },
    /// Lines in a file of the host's.
    Lines {
        /// The file.
        path: PathBuf,
        /// What stands in it; the first line is the mark.
        text: String,
    },
}

impl Item {
    /// Where it is.
    pub fn path(&self) -> &PathBuf {
        match self {
            Self::File { path, .. } | Self::Link { path, .. } | Self::Lines { path, .. } => path,
        }
    }
}

/// All that belongs to one unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    /// In the order in which they are made.
    pub items: Vec<Item>,
    /// What people should know: how it is used, what this init cannot do.
    pub notes: Vec<String>,
}

/// A unit that cannot be written.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ServiceError {
    /// A path that the file's language cannot hold.
    #[error("`{}` cannot be written into a file of {init}: it holds {what}", text.escape_debug())]
    Unwritable {
        /// The path or value.
        text: String,
        /// Whose language it is.
        init: Init,
        /// What is in the way.
        what: &'static str,
    },
    /// Services of users exist for one init only.
    #[error("{init} has no services of ordinary users")]
    NoUserUnits {
        /// The init.
        init: Init,
    },
    /// The host's sleep is nothing that a user's services are asked about.
    #[error("what runs around the host's sleep belongs to the system, not to a user")]
    OfTheSystem,
}

impl Hint for ServiceError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Unwritable { .. } => {
                vec![
                    "use a path of ordinary characters for the program and the directories"
                        .to_owned(),
                ]
            }
            Self::OfTheSystem => vec!["run it as root: it is about root's guests".to_owned()],
            Self::NoUserUnits { .. } => vec![
                "as root it gets a unit of the system; its guest then runs as `security.user` says"
                    .to_owned(),
            ],
        }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Host
    }
}

/// What a unit comes to on that init.
///
/// # Errors
/// The init cannot have it.
pub fn files(kind: Kind<'_>, around: &Around) -> Result<Set, ServiceError> {
    let init = around.init;
    if around.user.is_some() && init != Init::Systemd {
        return Err(ServiceError::NoUserUnits { init });
    }
    let values = around.environment.iter().map(|(_, value)| value);
    for text in values.chain([&around.program, &around.runtime, &around.state]) {
        expect_writable(text, init)?;
    }
    Ok(match init {
        Init::Systemd => systemd::files(kind, around),
        Init::Openrc => openrc::files(kind, around),
        Init::Runit => runit::files(kind, around),
        Init::S6 => s6::files(kind, around),
        Init::Procd => procd::files(kind, around),
        Init::Busybox => busybox::files(kind, around),
        Init::Sysv => sysv::files(kind, around),
    })
}

fn expect_writable(text: &str, init: Init) -> Result<(), ServiceError> {
    let unwritable = |what| {
        Err(ServiceError::Unwritable {
            text: text.to_owned(),
            init,
            what,
        })
    };
    if text.chars().any(char::is_control) {
        return unwritable("a control character");
    }
    // A comment begins with it wherever it stands in a line.
    if init == Init::Busybox && text.contains('#') {
        return unwritable("`#`");
    }
    Ok(())
}

impl Kind<'_> {
    /// What it is, as the mark in its files says.
    fn what(self) -> String {
        match self {
            Self::Guest(guest) => format!("guest {}", guest.name),
            Self::Host(_) => "host".to_owned(),
        }
    }

    /// The words that take it away.
    fn words(self) -> String {
        match self {
            Self::Guest(guest) => format!("mvm unit {}", guest.name),
            Self::Host(_) => "mvm unit --autostart".to_owned(),
        }
    }

    /// The name of the service, where files are named after it.
    fn service(self) -> String {
        match self {
            Self::Guest(guest) => service(&guest.name),
            Self::Host(_) => HOST.to_owned(),
        }
    }

    /// One line for people.
    fn description(self) -> String {
        match self {
            Self::Guest(guest) => format!("mvm guest {}", guest.name),
            Self::Host(_) => "mvm guests that start and stop with the host".to_owned(),
        }
    }
}

/// The service that starts guests with the host.
const HOST: &str = "mvm";

/// The name of a guest's service.
fn service(name: &GuestName) -> String {
    format!("{HOST}-{name}")
}

/// What tells a file of ours: the line that all of them have.
pub fn mark(kind: Kind<'_>) -> String {
    format!("# mvm-unit: {}", kind.what())
}

/// The line that tells whose guests a unit's are.
pub fn runtime_line(runtime: &str) -> String {
    format!("# mvm-runtime: {runtime}")
}

/// The first lines of every file.
fn head(kind: Kind<'_>, around: &Around) -> String {
    let words = kind.words();
    format!(
        "{}\n{}\n# Written by `{words} --install`; `{words} --remove` takes it away.\n",
        mark(kind),
        runtime_line(&around.runtime)
    )
}

/// The words that run a guest in the foreground.
fn run_words(guest: &Guest, around: &Around) -> Vec<String> {
    let name = guest.name.to_string();
    let unit = around.init.to_string();
    words(
        &around.program,
        &[
            "run",
            &name,
            "--name",
            &name,
            "--no-console",
            "--unit",
            &unit,
        ],
    )
}

/// The words that clean up after a guest whose supervisor died with it.
fn recover_words(guest: &Guest, around: &Around) -> Vec<String> {
    words(
        &around.program,
        &["recover", guest.name.as_str(), "--no-adopt"],
    )
}

/// The words that start guests with the host.
fn autostart_words(around: &Around) -> Vec<String> {
    words(&around.program, &["autostart"])
}

/// The words that stop all guests with the host.
fn stop_all_words(host: &Host, around: &Around) -> Vec<String> {
    let within = format!("{}s", host.stop.as_secs());
    words(
        &around.program,
        &["stop", "--all", "--within", &within, "--force"],
    )
}

/// The words that stop one guest.
fn stop_words(guest: &Guest, around: &Around) -> Vec<String> {
    words(&around.program, &["stop", guest.name.as_str(), "--force"])
}

fn words(program: &str, rest: &[&str]) -> Vec<String> {
    let rest = rest.iter().map(|word| (*word).to_owned());
    std::iter::once(program.to_owned()).chain(rest).collect()
}

/// Seconds until a stop has failed for good.
fn stop_seconds(stop: Duration) -> u64 {
    stop.saturating_add(AFTER_STOP).as_secs()
}

/// `export` lines of a shell script.
fn exports(around: &Around) -> String {
    let lines = around.environment.iter();
    lines
        .map(|(name, value)| format!("export {name}={}\n", quote::shell(value)))
        .collect()
}
