//! What outlives a guest that hibernated or was saved: the mark in its state directory, which survives the host too.
//!
//! Its disks hold its memory, or a file beside the mark does. Until it goes on from there, nobody else may
//! change them, and no other machine than the one that it knows may be started on them.

mod compare;

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use super::RunDir;
use super::saved::{self, Saved};
use super::state::{self, Reason};
use crate::dirs::Dirs;
use crate::error::{ExitCode, Hint};
use crate::ids::GuestName;
use crate::machine::Machine;
use crate::plan::Plan;

/// How a guest sleeps that has no QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It wrote its memory to its disk.
    Hibernated,
    /// It was asked to, and shut itself down: its board does not tell whether it did.
    HibernationRequested,
    /// QEMU wrote it to a file.
    Saved,
    /// It has gone on from that file, or was about to, and was cut off: the file is of no use any more.
    UsedUp,
}

impl Kind {
    /// The word that lists show.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hibernated => "hibernated",
            Self::HibernationRequested => "stopped, hibernation requested",
            Self::Saved => "saved",
            Self::UsedUp => "stopped, saved state used up",
        }
    }

    /// How the guest is, for sentences.
    pub(crate) const fn in_words(self) -> &'static str {
        match self {
            Self::Hibernated => "is hibernated",
            Self::HibernationRequested => "was asked to hibernate when it ended",
            Self::Saved => "is saved",
            Self::UsedUp => "was cut off while it went on from its saved state",
        }
    }
}

/// The mark, `asleep.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Asleep {
    /// How it sleeps.
    pub kind: Kind,
    /// Since when, in seconds since 1970.
    pub at: u64,
    /// What it was.
    pub machine: Machine,
    /// What its image belongs to, where it was saved.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub saved: Option<Saved>,
}

impl Asleep {
    /// The command that lets it go on. A guest of a bare profile is known by that profile and its name.
    pub fn start_command(&self) -> String {
        let (name, profile) = (&self.machine.name, &self.machine.profile);
        if profile == name.as_str() {
            format!("mvm start {name}")
        } else {
            format!("mvm start {profile} --name {name}")
        }
    }

    /// What is told when it is started.
    pub fn note(&self) -> String {
        let name = &self.machine.name;
        match self.kind {
            Kind::Hibernated => format!("{name} is hibernated: it goes on where it was"),
            Kind::HibernationRequested => format!(
                "{name} was asked to hibernate when it ended: if it did, it goes on where it was"
            ),
            Kind::Saved if self.saved.as_ref().is_some_and(|saved| saved.paused) => format!(
                "{name} was paused when it was saved, and is so again: `mvm resume {name}` lets it go on"
            ),
            Kind::Saved => format!("{name} is saved: it goes on where it was"),
            Kind::UsedUp => format!("the saved state of {name} is used up"),
        }
    }
}

/// Why a guest that sleeps cannot be started so.
#[derive(Debug, thiserror::Error)]
pub enum AsleepError {
    /// It would wake in another machine.
    #[error(
        "guest `{guest}` {} and would wake in another machine: {}",
        kind.in_words(), differences.join("; ")
    )]
    Differs {
        /// The guest.
        guest: GuestName,
        /// How it sleeps.
        kind: Kind,
        /// What differs.
        differences: Vec<String>,
    },
    /// Its disks are not as it left them.
    #[error("guest `{guest}` is saved, and its disks have changed since: {}", changes.join("; "))]
    Moved {
        /// The guest.
        guest: GuestName,
        /// What changed.
        changes: Vec<String>,
    },
    /// A QEMU that cannot know how a newer one saves.
    #[error(
        "guest `{guest}` was saved by QEMU {was} and would be loaded by QEMU {is}, which is older"
    )]
    Older {
        /// The guest.
        guest: GuestName,
        /// The version that saved it.
        was: String,
        /// The version that is there.
        is: String,
    },
    /// The image is not what it was.
    #[error("the saved state of guest `{guest}`, {}, cannot be loaded: {why}", path.display())]
    NoImage {
        /// The guest.
        guest: GuestName,
        /// The image.
        path: std::path::PathBuf,
        /// Why not.
        why: String,
    },
    /// The image was loaded before.
    #[error(
        "guest `{guest}` was cut off while it went on from its saved state, and that is used up"
    )]
    UsedUp {
        /// The guest.
        guest: GuestName,
    },
    /// The mark cannot be read, removed or written.
    #[error("cannot {what} the mark of a guest that sleeps, {}", path.display())]
    Mark {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Hint for AsleepError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Differs { guest, .. } => vec![
                format!(
                    "start it as it was, and shut it down before it is changed: `mvm stop {guest}`"
                ),
                "or give up what it had open: `--discard-hibernation`".to_owned(),
            ],
            Self::Moved { .. } => vec![
                "what it has in its memory of them is wrong now, and going on would damage them: give up what it had open: `--discard-hibernation`".to_owned(),
            ],
            Self::Older { was, .. } => vec![
                format!("let it go on with QEMU {was} or newer (`qemu.binary`)"),
                "or give up what it had open: `--discard-hibernation`".to_owned(),
            ],
            Self::NoImage { .. } => {
                vec!["give up what it had open: `--discard-hibernation`".to_owned()]
            }
            Self::UsedUp { .. } => vec![
                "its disks may have moved on: start it anew, as after a power failure, with `--discard-hibernation`".to_owned(),
            ],
            Self::Mark { path, .. } => vec![format!(
                "if what the guest had open is not wanted any more, remove {}",
                path.display()
            )],
        }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Failed
    }
}

/// The guest's mark, if it sleeps.
///
/// # Errors
/// It cannot be read, or is damaged.
pub fn read(run: &RunDir) -> Result<Option<Asleep>, AsleepError> {
    state::read(&run.asleep()).map_err(|source| AsleepError::Mark {
        what: "read",
        path: run.asleep(),
        source,
    })
}

/// Whether the guest is saved, and nothing of it has run since.
pub(crate) fn is_saved(run: &RunDir) -> bool {
    matches!(read(run), Ok(Some(asleep)) if asleep.kind == Kind::Saved)
}

/// Every guest that sleeps, by name. A mark that cannot be read is told and left out.
pub fn list(dirs: &Dirs) -> Vec<(GuestName, Asleep)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(&dirs.state).into_iter().flatten().flatten() {
        let Some(Ok(name)) = entry.file_name().to_str().map(str::parse::<GuestName>) else {
            continue;
        };
        match read(&RunDir::new(dirs, &name)) {
            Ok(Some(asleep)) => found.push((name, asleep)),
            Ok(None) => {}
            Err(error) => tracing::warn!("{error}"),
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// Writes the mark of a guest that ended so, from the plan of what it was. It is on the disk when this
/// returns: what gives the guest's devices and disks to others comes later.
pub(crate) fn mark(run: &RunDir, reason: Reason) {
    let kind = match reason {
        Reason::Hibernated => Kind::Hibernated,
        Reason::HibernationRequested => Kind::HibernationRequested,
        _ => return,
    };
    let write = || -> io::Result<()> {
        let plan: Plan = state::read(&run.plan())?.ok_or(io::ErrorKind::NotFound)?;
        let asleep = Asleep {
            kind,
            at: state::now(),
            machine: plan.machine,
            saved: None,
        };
        state::write_durably(&run.asleep(), &asleep)
    };
    if let Err(error) = write() {
        tracing::error!(
            %error,
            "the guest hibernated, and that cannot be written down: start it as it was before anybody uses its disks"
        );
    }
}

/// Writes the mark of a guest that is saved, or says of it that its image is used up. It is on the disk when
/// this returns.
///
/// # Errors
/// It cannot be written.
pub(crate) fn write(run: &RunDir, asleep: &Asleep) -> Result<(), AsleepError> {
    state::write_durably(&run.asleep(), asleep).map_err(|source| AsleepError::Mark {
        what: "write",
        path: run.asleep(),
        source,
    })
}

/// Removes the mark, and the image that it spoke of.
///
/// # Errors
/// The mark cannot be removed.
pub(crate) fn forget(run: &RunDir) -> Result<(), AsleepError> {
    state::remove_durably(&run.asleep()).map_err(|source| AsleepError::Mark {
        what: "remove",
        path: run.asleep(),
        source,
    })?;
    saved::sweep(run);
    Ok(())
}

/// Whether the guest sleeps and may be started by this plan. Its mark, if it goes on from there.
///
/// # Errors
/// It would wake in another machine, or with other disks, or what was saved of it is gone.
pub fn check(run: &RunDir, plan: &Plan) -> Result<Option<Asleep>, AsleepError> {
    let Some(asleep) = read(run)? else {
        return Ok(None);
    };
    let guest = run.name().clone();
    if asleep.kind == Kind::UsedUp {
        return Err(AsleepError::UsedUp { guest });
    }
    let mut differences = compare::differences(&asleep.machine, &plan.machine);
    if asleep.kind == Kind::Saved {
        differences.extend(compare::unloadable(&asleep.machine, &plan.machine));
    }
    if !differences.is_empty() {
        return Err(AsleepError::Differs {
            guest,
            kind: asleep.kind,
            differences,
        });
    }
    if let Some(saved) = &asleep.saved {
        saved::check(run, &asleep, saved, plan)?;
    }
    Ok(Some(asleep))
}
