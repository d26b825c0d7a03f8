//! Carries a plan out: the inverse of each step is on disk before the step is run.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::journal::{self, Entry, Journal, JournalError};
use super::step::Step;
use crate::error::{ExitCode, Hint};
use crate::ids::Id;
use crate::ops::{Ops, OpsError};

/// A plan carried out: what QEMU and the supervisor get.
#[derive(Debug)]
pub struct Prepared {
    /// The listening sockets, by path.
    pub listeners: BTreeMap<PathBuf, OwnedFd>,
    /// The guest's lock.
    pub lock: OwnedFd,
    /// The inverses, oldest first, as in the journal.
    pub undo: Vec<Entry>,
}

/// A plan that could not be carried out. What had been done is taken back already.
#[derive(Debug, thiserror::Error)]
#[error("{}", step_text(step))]
pub struct ApplyError {
    /// The step.
    pub step: Box<Step>,
    /// Why it failed.
    #[source]
    pub why: Box<Why>,
    /// What could not be taken back; the journal is still there then.
    pub left: Vec<OpsError>,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// The host refused.
    #[error(transparent)]
    Ops(#[from] OpsError),
    /// Its inverse could not be written down, so it was not run.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A step before the lock would change something that another process may own.
    #[error("it comes before the guest's lock is taken")]
    BeforeLock,
    /// The plan takes no lock.
    #[error("the plan takes no lock")]
    NoLock,
}

impl ApplyError {
    /// Whether another guest was faster in taking a device.
    pub fn is_lost_race(&self) -> bool {
        let lost =
            |why: &Why| matches!(why, Why::Ops(OpsError::Device(error)) if error.is_lost_race());
        self.left.is_empty() && lost(&self.why)
    }
}

impl Hint for ApplyError {
    fn hints(&self) -> Vec<String> {
        let mut hints = match &*self.why {
            Why::Ops(error) => error.hints(),
            Why::Journal(error) => error.hints(),
            Why::BeforeLock | Why::NoLock => Vec::new(),
        };
        hints.extend(self.left.iter().map(|error| {
            let why = journal::in_words(error);
            format!("not taken back: {why}; `mvm recover` tries again")
        }));
        hints
    }

    fn exit_code(&self) -> ExitCode {
        match &*self.why {
            Why::Ops(error) => error.exit_code(),
            _ => ExitCode::Failed,
        }
    }
}

fn step_text(step: &Step) -> String {
    match step {
        Step::MakeDir { path, .. } => format!("cannot prepare the directory {}", path.display()),
        Step::Lock { .. } => "cannot take the guest's lock".to_owned(),
        Step::CopyFile { to, .. } => format!("cannot make {}", to.display()),
        Step::CreateOverlay { path, .. } => format!("cannot make the overlay {}", path.display()),
        Step::CreateTap { name, .. } => format!("cannot make the tap `{name}`"),
        Step::Listen { path } => format!("cannot make the socket {}", path.display()),
        Step::RemoveFile { path } | Step::RemoveDir { path } => {
            format!("cannot remove {}", path.display())
        }
        Step::DeleteTap { name } => format!("cannot remove the tap `{name}`"),
        Step::TakeLease { device, .. } => format!("cannot take {device}"),
        Step::ReleaseLease { key, .. } => format!("cannot release the lease {key}"),
        Step::MakeVfs { pf, .. } => format!("cannot make the virtual functions of {pf}"),
        Step::DropVfs { pf, .. } | Step::RestoreVfs { pf, .. } => {
            format!("cannot put {pf} back as it was without its virtual functions")
        }
        Step::SetVfNet { pf, index, .. } => {
            format!("cannot set address and VLAN of virtual function {index} of {pf}")
        }
        Step::MakeMdev { type_id, .. } => {
            format!("cannot make a mediated device of type {type_id}")
        }
        Step::RemoveMdev { uuid } => format!("cannot remove the mediated device {uuid}"),
        Step::DetachConsole { console, .. } => {
            format!("cannot take the host's console {console} away")
        }
        Step::AttachConsole { console, .. } => {
            format!("cannot bring the host's console {console} back")
        }
        Step::BindDriver { device, driver, .. } => format!("cannot give {device} to {driver}"),
        Step::GiveBack { device, .. } => format!("cannot give {device} back"),
        Step::TakeUsb { port, .. } => format!("cannot take the USB device at {port}"),
        Step::GiveBackUsb { port, .. } => format!("cannot give the USB device at {port} back"),
        Step::OpenDir { path, .. } | Step::GiveFile { path, .. } => {
            format!("cannot let QEMU's user at {}", path.display())
        }
        Step::GiveNode { node, .. } => format!("cannot give {node} to QEMU's user"),
        Step::TakeNodeBack { node, .. } => format!("cannot put the owner of {node} back"),
        Step::ConfirmVfio { .. } => "the devices cannot be opened through VFIO".to_owned(),
    }
}

fn failed(step: &Step, why: impl Into<Why>, left: Vec<OpsError>) -> ApplyError {
    ApplyError {
        step: Box::new(step.clone()),
        why: Box::new(why.into()),
        left,
    }
}

/// Carries out the steps in order. Up to the lock they only make directories; the journal begins
/// with the lock, for before it another process may own what is there.
///
/// # Errors
/// The first step that failed. It and those before it are taken back, newest first.
pub fn apply(ops: &dyn Ops, steps: &[Step], journal: &Path) -> Result<Prepared, ApplyError> {
    let Some(at) = steps
        .iter()
        .position(|step| matches!(step, Step::Lock { .. }))
    else {
        let none = Step::Lock {
            path: PathBuf::new(),
        };
        let first = steps.first().unwrap_or(&none);
        return Err(failed(first, Why::NoLock, Vec::new()));
    };
    let mut prepared = lock(ops, &steps[..at], &steps[at])?;
    let begun = begin(journal, steps, at, &mut prepared.undo);
    let mut book = match begun {
        Ok(book) => book,
        Err(error) => {
            let left = journal::roll_back(ops, &prepared.undo, None);
            return Err(failed(&steps[at], error, left));
        }
    };
    let mut index = at + 1;
    while index < steps.len() {
        let together = together(&steps[index..]);
        let group = &steps[index..index + together];
        if let Err(stop) = one_group(ops, group, index, None, &mut book, &mut prepared) {
            let (step, why) = *stop;
            drop(book);
            let left = journal::roll_back(ops, &prepared.undo, Some(journal));
            return Err(failed(&step, why, left));
        }
        index += together;
    }
    Ok(prepared)
}

/// Carries out steps for one device of a guest that runs, in its journal; [`journal::take_back_device`]
/// takes them back.
///
/// # Errors
/// The first step that failed. It and those before it are taken back, newest first.
pub fn attach(
    ops: &dyn Ops,
    steps: &[Step],
    device: &Id,
    journal: &Path,
) -> Result<(), ApplyError> {
    let Some(first) = steps.first() else {
        return Ok(());
    };
    let refused = |error: JournalError| failed(first, error, Vec::new());
    let before = journal::read(journal).map_err(refused)?;
    let mut book = Journal::open(journal).map_err(refused)?;
    let next = before.iter().map(|entry| entry.step + 1).max().unwrap_or(0);
    let mut made = Made;
    let known = |step: &Step| {
        let undo = step.inverse();
        let known = before
            .iter()
            .any(|entry| Some(&entry.undo) == undo.as_ref());
        known && matches!(step, Step::TakeLease { .. })
    };
    for (index, step) in (next..).zip(steps) {
        let group = std::slice::from_ref(step);
        let done = if known(step) {
            // A device that the guest let go and that waits for its group: released twice, it would be
            // anybody's before it is given back.
            ops.run(step)
                .map(drop)
                .map_err(|error| stopped(step.clone(), error))
        } else {
            one_group(ops, group, index, Some(device), &mut book, &mut made)
        };
        if let Err(stop) = done {
            let (step, why) = *stop;
            drop(book);
            let left = journal::take_back_device(ops, journal, device).unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot take back");
                Vec::new()
            });
            return Err(failed(&step, why, left));
        }
    }
    Ok(())
}

/// Looks how things stand, writes the inverses down, and runs the steps.
fn one_group(
    ops: &dyn Ops,
    steps: &[Step],
    first: usize,
    device: Option<&Id>,
    book: &mut Journal,
    made: &mut impl Gather,
) -> Result<(), Box<(Step, Why)>> {
    let mut seen = Vec::with_capacity(steps.len());
    for step in steps {
        seen.push(
            ops.observe(step)
                .map_err(|error| (step.clone(), error.into()))?,
        );
    }
    let entries =
        write_down(&seen, first, device, book).map_err(|error| stopped(steps[0].clone(), error))?;
    made.undo(entries);
    for step in seen {
        match ops.run(&step) {
            Ok(fd) => made.fd(&step, fd),
            Err(error) => return Err(stopped(step, error)),
        }
    }
    Ok(())
}

fn stopped(step: Step, why: impl Into<Why>) -> Box<(Step, Why)> {
    Box::new((step, why.into()))
}

/// Who keeps what comes of steps.
trait Gather {
    fn undo(&mut self, entries: Vec<Entry>);
    fn fd(&mut self, step: &Step, fd: Option<OwnedFd>);
}

impl Gather for Prepared {
    fn undo(&mut self, entries: Vec<Entry>) {
        self.undo.extend(entries);
    }

    fn fd(&mut self, step: &Step, fd: Option<OwnedFd>) {
        if let (Step::Listen { path }, Some(fd)) = (step, fd) {
            self.listeners.insert(path.clone(), fd);
        }
    }
}

/// Nothing comes of the steps of a device but entries in the journal.
struct Made;

impl Gather for Made {
    fn undo(&mut self, _: Vec<Entry>) {}
    fn fd(&mut self, _: &Step, _: Option<OwnedFd>) {}
}

/// The directories and the lock. When this fails, only empty directories are taken back: what is
/// in them may belong to whoever has the lock.
fn lock(ops: &dyn Ops, before: &[Step], lock: &Step) -> Result<Prepared, ApplyError> {
    let mut made = Vec::new();
    let mut try_all = || -> Result<OwnedFd, ApplyError> {
        for step in before {
            let Step::MakeDir { path, keep, .. } = step else {
                return Err(failed(step, Why::BeforeLock, Vec::new()));
            };
            if !keep && !path.exists() {
                made.push(path);
            }
            ops.run(step)
                .map_err(|error| failed(step, error, Vec::new()))?;
        }
        match ops.run(lock) {
            Ok(Some(fd)) => Ok(fd),
            Ok(None) => Err(failed(lock, Why::NoLock, Vec::new())),
            Err(error) => Err(failed(lock, error, Vec::new())),
        }
    };
    match try_all() {
        Ok(lock) => Ok(Prepared {
            listeners: BTreeMap::new(),
            lock,
            undo: Vec::new(),
        }),
        Err(error) => {
            for path in made.iter().rev() {
                // Not empty or gone: then it is somebody else's now.
                let _ = std::fs::remove_dir(path);
            }
            Err(error)
        }
    }
}

fn begin(
    path: &Path,
    steps: &[Step],
    at: usize,
    undo: &mut Vec<Entry>,
) -> Result<Journal, JournalError> {
    undo.extend(steps[..=at].iter().enumerate().filter_map(|(step, done)| {
        Some(Entry {
            step,
            undo: done.inverse()?,
            device: None,
        })
    }));
    let mut book = Journal::create(path)?;
    book.record(undo)?;
    Ok(book)
}

/// How many steps are written down with one sync. Sockets in the guest's own directory harm nobody
/// when they are taken back without having been made; of all else each has a sync of its own.
fn together(steps: &[Step]) -> usize {
    let sockets = steps
        .iter()
        .take_while(|step| matches!(step, Step::Listen { .. }));
    sockets.count().max(1)
}

fn write_down(
    steps: &[Step],
    first: usize,
    device: Option<&Id>,
    book: &mut Journal,
) -> Result<Vec<Entry>, JournalError> {
    let entries: Vec<Entry> = (first..)
        .zip(steps)
        .filter_map(|(step, done)| {
            Some(Entry {
                step,
                undo: done.inverse()?,
                device: device.cloned(),
            })
        })
        .collect();
    book.record(&entries)?;
    Ok(entries)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::ops::Host;
    use proptest::prelude::*;
    use std::cell::Cell;

    /// The host, but one step fails: before it was done, or after.
    struct Faulty {
        steps_left: Cell<usize>,
        after: bool,
    }

    impl Ops for Faulty {
        fn run(&self, step: &Step) -> Result<Option<OwnedFd>, OpsError> {
            let undoing = matches!(step, Step::RemoveFile { .. } | Step::RemoveDir { .. });
            let left = self.steps_left.get();
            if !undoing {
                self.steps_left.set(left.wrapping_sub(1));
            }
            if undoing || left != 0 {
                return Host::default().run(step);
            }
            if self.after {
                Host::default().run(step)?;
            }
            Err(OpsError::NoEffect {
                what: "what the test wants to fail".to_owned(),
            })
        }
    }

    fn tree(top: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut open = vec![top.to_owned()];
        while let Some(dir) = open.pop() {
            for entry in std::fs::read_dir(&dir).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    open.push(entry.path());
                }
                found.push((
                    entry.path(),
                    std::fs::read(entry.path()).unwrap_or_default(),
                ));
            }
        }
        found.sort();
        found
    }

    fn plan(run: &Path, kinds: &[u8]) -> Vec<Step> {
        let mut steps = vec![
            Step::MakeDir {
                path: run.to_owned(),
                mode: 0o700,
                keep: false,
            },
            Step::Lock {
                path: run.join("lock"),
            },
        ];
        steps.extend(kinds.iter().enumerate().map(|(i, kind)| match kind {
            0 => Step::Listen {
                path: run.join(format!("channel-{i}.sock")),
            },
            1 => Step::CreateOverlay {
                path: run.join(format!("d{i}.overlay.qcow2")),
                backing: run.with_file_name("base"),
                backing_format: crate::profile::schema::DiskFormat::Raw,
            },
            _ => Step::MakeDir {
                path: run.with_file_name(format!("extra{i}")),
                mode: 0o700,
                keep: false,
            },
        }));
        steps
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
        #[test]
        fn a_failed_step_leaves_the_host_as_it_was(
            kinds in proptest::collection::vec(0u8..3, 0..4),
            after: bool,
        ) {
            let top = tempfile::tempdir().unwrap();
            std::fs::write(top.path().join("base"), vec![0; 4096]).unwrap();
            std::fs::write(top.path().join("bystander"), "x").unwrap();
            let run = top.path().join("guest");
            let steps = plan(&run, &kinds);
            let before = tree(top.path());
            for fail_at in 0..steps.len() {
                // A lock that fails after it was taken is another process's, so its file stays.
                if fail_at == 1 && after {
                    continue;
                }
                let ops = Faulty { steps_left: Cell::new(fail_at), after };
                let error = apply(&ops, &steps, &run.join("journal.jsonl")).unwrap_err();
                prop_assert_eq!(&*error.step, &steps[fail_at]);
                prop_assert!(error.left.is_empty(), "{:?}", error.left);
                prop_assert_eq!(tree(top.path()), before.clone(), "failed at {}", fail_at);
            }
            let done = apply(&Host::default(), &steps, &run.join("journal.jsonl")).unwrap();
            prop_assert_eq!(&journal::read(&run.join("journal.jsonl")).unwrap(), &done.undo);
            prop_assert!(journal::roll_back(&Host::default(), &done.undo, Some(&run.join("journal.jsonl"))).is_empty());
            prop_assert_eq!(tree(top.path()), before);
        }
    }

    #[test]
    fn a_held_lock_harms_nobody() {
        let top = tempfile::tempdir().unwrap();
        let run = top.path().join("guest");
        let steps = plan(&run, &[0]);
        let book = run.join("journal.jsonl");
        let first = apply(&Host::default(), &steps, &book).unwrap();
        let before = tree(top.path());
        let error = apply(&Host::default(), &steps, &book).unwrap_err();
        assert!(
            matches!(*error.why, Why::Ops(OpsError::Held { .. })),
            "{error:?}"
        );
        assert_eq!(tree(top.path()), before);
        drop(first);
    }

    #[test]
    fn what_cannot_be_taken_back_keeps_its_journal() {
        let top = tempfile::tempdir().unwrap();
        let run = top.path().join("guest");
        let book = run.join("journal.jsonl");
        let mut steps = plan(&run, &[0]);
        // A directory in the way of the socket: it can be neither bound nor removed.
        steps.push(Step::Listen {
            path: run.join("agent.sock"),
        });
        std::fs::create_dir_all(run.join("agent.sock")).unwrap();
        let error = apply(&Host::default(), &steps, &book).unwrap_err();
        assert_eq!(error.left.len(), 1, "{error:?}");
        // The directory and what sticks in it; the socket that was removed is struck out.
        assert_eq!(journal::read(&book).unwrap().len(), 2);
        assert!(
            !run.join("channel-0.sock").exists(),
            "it goes on past the error"
        );
    }

    #[test]
    fn nothing_but_directories_before_the_lock() {
        let top = tempfile::tempdir().unwrap();
        let mut steps = plan(&top.path().join("guest"), &[0]);
        steps.swap(1, 2);
        let error = apply(&Host::default(), &steps, &top.path().join("j")).unwrap_err();
        assert!(matches!(*error.why, Why::BeforeLock), "{error:?}");
        assert_eq!(tree(top.path()), []);
    }
}
