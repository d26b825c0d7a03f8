//! Carries a plan out: the inverse of each step is on disk before the step is run.

mod error;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::journal::{self, Entry, Journal, JournalError};
use super::step::Step;
use crate::ids::Id;
use crate::ops::Ops;
use error::failed;
pub use error::{ApplyError, Why};

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
            // A lease from before is the guest's whatever comes of this.
            let ours = |entry: &Entry| entry.device.as_ref() == Some(device) && entry.step >= next;
            let back =
                journal::take_back_entries(ops, journal, ours, |_| true, journal::Leases::Release);
            let left = back.map_or_else(
                |error| {
                    tracing::warn!(%error, "cannot take back");
                    Vec::new()
                },
                |back| back.errors,
            );
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
mod tests;
