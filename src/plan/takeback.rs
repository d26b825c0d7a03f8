//! A roll-back: what the journal says is carried out, newest first, and struck out.

use std::path::{Path, PathBuf};

use super::journal::{self, Entry, Journal, JournalError};
use super::step::Step;
use crate::ids::{Bdf, Id, PciRef};
use crate::ops::{Ops, OpsError};

/// Takes back what the entries say, newest first, past errors. A directory is left alone once
/// anything inside it could not be taken back: the journal in it is needed again. So is the lease of a
/// device that could not be given back.
///
/// What was carried out is struck out of the journal, where there is one: its device is anybody's by the
/// time that the rest is tried again. A journal that cannot be written keeps nobody's device.
pub fn roll_back(ops: &dyn Ops, entries: &[Entry], journal: Option<&Path>) -> Vec<OpsError> {
    let mut back = TakingBack::new(entries, journal);
    if entries.is_empty() {
        return back.errors;
    }
    let mut book =
        journal
            .filter(|path| path.exists())
            .and_then(|path| match Journal::open(path) {
                Ok(book) => Some(book),
                Err(error) => {
                    tracing::warn!(%error, "what is taken back is not struck out");
                    None
                }
            });
    for entry in entries.iter().rev() {
        if !back.one(ops, entry) {
            continue;
        }
        if let Some(book) = &mut book {
            if let Err(error) = book.strike(&entry.undo) {
                tracing::warn!(%error, "not struck out");
            }
        }
    }
    back.errors
}

/// What came of taking back something of a guest that goes on running.
#[derive(Debug, Default)]
pub struct TakenBack {
    /// What the host refused.
    pub errors: Vec<OpsError>,
    /// Functions that the guest has let go and that cannot be the host's yet: it has others of their IOMMU
    /// groups.
    pub held: Vec<PciRef>,
}

/// Takes back what was done for one device of a guest that goes on running: each inverse that was
/// carried out is struck out.
///
/// # Errors
/// The journal cannot be read or written. What the host refused is in the list.
pub fn take_back_device(
    ops: &dyn Ops,
    journal: &Path,
    device: &Id,
) -> Result<Vec<OpsError>, JournalError> {
    let chosen = |entry: &Entry| entry.device.as_ref() == Some(device);
    Ok(take_back_entries(ops, journal, chosen, |_| true, Leases::Release)?.errors)
}

/// What becomes of the leases of devices that are given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leases {
    /// Others may have the devices.
    Release,
    /// The guest is going to have them again.
    Keep,
}

/// The same for the entries that are chosen; `keeps` says which functions the guest goes on having.
///
/// Functions of one IOMMU group are the guest's together: the kernel lets no other driver than VFIO's have
/// one as long as a process has the group open. What leaves while the guest keeps another of the group stays
/// bound and leased, and is given back with the last of them. Virtual functions stay as long as the guest
/// has another of them, whichever entry made them.
///
/// # Errors
/// As [`take_back_device`].
pub fn take_back_entries(
    ops: &dyn Ops,
    path: &Path,
    chosen: impl Fn(&Entry) -> bool,
    keeps: impl Fn(PciRef) -> bool,
    leases: Leases,
) -> Result<TakenBack, JournalError> {
    let entries = journal::read(path)?;
    let mut book = Journal::open(path)?;
    let groups = Groups::new(ops, &entries, &chosen, &keeps);
    let chosen = |entry: &Entry| chosen(entry) || groups.leave_with(entry);
    let mut back = TakingBack {
        taken: groups.held.iter().map(|function| function.key()).collect(),
        ..TakingBack::new(&entries, Some(path))
    };
    let of_pf = |entry: &Entry, pf: &Bdf| {
        let prefix = format!("pci-{pf}-vf");
        let lease = entry.undo.lease();
        lease.is_some_and(|key| key.starts_with(&prefix))
    };
    let wanted = |entry: &&Entry| match &entry.undo {
        Step::DropVfs { pf, .. } => {
            let mut leases = entries.iter().filter(|other| of_pf(other, pf));
            let touched = chosen(entry) || leases.clone().any(&chosen);
            touched && leases.all(&chosen)
        }
        Step::GiveBack { device, .. } if groups.held.contains(device) => false,
        Step::ReleaseLease { .. } if leases == Leases::Keep => false,
        _ => chosen(entry),
    };
    for entry in entries.iter().rev().filter(wanted) {
        if back.one(ops, entry) {
            book.strike(&entry.undo)?;
        }
    }
    Ok(TakenBack {
        errors: back.errors,
        held: groups.held,
    })
}

/// The function that an entry gives back.
const fn function(entry: &Entry) -> Option<PciRef> {
    match entry.undo {
        Step::GiveBack { device, .. } => Some(device),
        _ => None,
    }
}

/// Which functions wait for others of their groups, and which have waited long enough.
#[derive(Default)]
struct Groups {
    /// Chosen, but the guest keeps another of the group.
    held: Vec<PciRef>,
    /// Of groups of which the guest keeps nothing.
    leave: Vec<PciRef>,
    /// What was done for devices of which all functions leave.
    devices: Vec<Id>,
}

impl Groups {
    fn new(
        ops: &dyn Ops,
        entries: &[Entry],
        chosen: &impl Fn(&Entry) -> bool,
        keeps: &impl Fn(PciRef) -> bool,
    ) -> Self {
        struct Member<'a> {
            function: PciRef,
            group: u32,
            entry: &'a Entry,
            leaves: bool,
        }
        let member = |entry| {
            let function = function(entry)?;
            Some(Member {
                function,
                group: ops.group_of(function)?,
                entry,
                leaves: chosen(entry),
            })
        };
        let members: Vec<Member<'_>> = entries.iter().filter_map(member).collect();
        let mut found = Self::default();
        for one in members.iter().filter(|one| one.leaves) {
            let group = || members.iter().filter(|other| other.group == one.group);
            let leaves = |function| group().any(|one| one.leaves && one.function == function);
            let stays = |other: &Member<'_>| !leaves(other.function) && keeps(other.function);
            if group().any(stays) {
                found.held.push(one.function);
            } else {
                found.leave.extend(group().map(|other| other.function));
            }
        }
        for functions in [&mut found.held, &mut found.leave] {
            functions.sort_unstable();
            functions.dedup();
        }
        let leaves = |one: &Member<'_>| found.leave.contains(&one.function);
        let whole = |id: &&Id| {
            let mut own = members
                .iter()
                .filter(|one| one.entry.device.as_ref() == Some(*id));
            own.all(leaves)
        };
        let ids = members.iter().filter(|one| leaves(one));
        let ids = ids.filter_map(|one| one.entry.device.as_ref());
        found.devices = ids.filter(whole).cloned().collect();
        found
    }

    /// Whether an entry is about something whose group leaves.
    fn leave_with(&self, entry: &Entry) -> bool {
        match entry.undo.lease() {
            Some(key) => self.leave.iter().any(|function| function.key() == key),
            None => entry
                .device
                .as_ref()
                .is_some_and(|id| self.devices.contains(id)),
        }
    }
}

/// An error with its causes on one line.
pub fn in_words(error: &OpsError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Whether an inverse waits for the device of that lease, which could not be given back.
pub(crate) fn waits_for(undo: &Step, taken: &str) -> bool {
    match undo {
        // What the function is set to is for its user, and so is its node; its lease is the user's as well.
        Step::ReleaseLease { key, .. } => key == taken,
        Step::SetVfNet { .. } | Step::TakeNodeBack { .. } => undo.lease().as_deref() == Some(taken),
        // With a virtual function still in use, removing it would wait for its user.
        Step::DropVfs { pf, .. } => taken.starts_with(&format!("pci-{pf}-vf")),
        // It would be brought back to a GPU that is not the host's. A virtual function has no screen.
        Step::AttachConsole { .. } => taken.starts_with("pci-") && !taken.contains("-vf"),
        _ => false,
    }
}

/// A roll-back under way.
#[derive(Default)]
struct TakingBack {
    errors: Vec<OpsError>,
    /// The leases of devices that are still taken.
    taken: Vec<String>,
    /// The run-time directory of the guest whose journal it is.
    run_dir: Option<PathBuf>,
}

impl TakingBack {
    fn new(entries: &[Entry], journal: Option<&Path>) -> Self {
        // As its leases have it; the directory may have more than one path.
        let user = entries.iter().find_map(|entry| match &entry.undo {
            Step::ReleaseLease { user, .. }
            | Step::DropVfs { user, .. }
            | Step::ReturnHugepages { user, .. }
            | Step::AttachConsole { user, .. } => Some(user.run_dir.as_path()),
            _ => None,
        });
        let run_dir = user.or_else(|| journal.and_then(Path::parent));
        Self {
            run_dir: run_dir.map(Path::to_owned),
            ..Self::default()
        }
    }

    /// Whether the entry's inverse was carried out.
    fn one(&mut self, ops: &dyn Ops, entry: &Entry) -> bool {
        let needed = match &entry.undo {
            Step::RemoveDir { .. } => !self.errors.is_empty(),
            undo => self.taken.iter().any(|key| waits_for(undo, key)),
        };
        if needed {
            return false;
        }
        let done = match &self.run_dir {
            Some(run_dir) => ops.take_back(&entry.undo, run_dir),
            None => ops.run(&entry.undo).map(drop),
        };
        let Err(error) = done else {
            return true;
        };
        tracing::warn!(%error, step = entry.step, "cannot take back");
        self.taken.extend(entry.undo.lease());
        self.errors.push(error);
        false
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::cell::RefCell;
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::handover::ConsoleRef;
    use crate::ops::DeviceError;
    use crate::plan::step::{Bound, User, VfNetState};

    /// Says what it is asked to do, and cannot give one device back.
    struct Sticky {
        sticks: &'static str,
        ran: RefCell<Vec<Step>>,
    }

    impl Sticky {
        fn new(sticks: &'static str) -> Self {
            let ran = RefCell::default();
            Self { sticks, ran }
        }
    }

    impl Ops for Sticky {
        fn run(&self, step: &Step) -> Result<Option<OwnedFd>, OpsError> {
            let gives_back = matches!(step, Step::GiveBack { .. });
            if gives_back && step.lease().as_deref() == Some(self.sticks) {
                let device = self.sticks.to_owned();
                let by = "process 7 (x)".to_owned();
                return Err(DeviceError::InUse { device, by }.into());
            }
            self.ran.borrow_mut().push(step.clone());
            Ok(None)
        }
    }

    const GPU: &str = "0000:03:00.0";
    const VF: &str = "vf:1@0000:3b:00.0";

    fn entries(run: &Path) -> Vec<Entry> {
        let user = || User {
            guest: "a".to_owned(),
            run_dir: run.to_owned(),
        };
        let give_back = |device: &str| Step::GiveBack {
            device: device.parse().unwrap(),
            driver: "vfio-pci".to_owned(),
            from: Bound::default(),
        };
        let release = |key: &str| Step::ReleaseLease {
            key: key.to_owned(),
            user: user(),
        };
        let steps = [
            Step::RemoveDir {
                path: run.to_owned(),
            },
            release("pci-0000:03:00.0"),
            release("pci-0000:3b:00.0-vf1"),
            Step::AttachConsole {
                console: ConsoleRef::Vt("vtcon1".to_owned()),
                user: user(),
            },
            Step::SetVfNet {
                pf: "0000:3b:00.0".parse().unwrap(),
                index: 1,
                to: VfNetState::default(),
                from: VfNetState::default(),
            },
            give_back(GPU),
            give_back(VF),
        ];
        let entry = |(step, undo): (usize, &Step)| Entry {
            step,
            undo: undo.clone(),
            device: None,
        };
        steps.iter().enumerate().map(entry).collect()
    }

    /// What is left in the journal after a roll-back in which a device sticks, by step.
    fn left_after(sticks: &'static str) -> Vec<usize> {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("journal.jsonl");
        let entries = entries(top.path());
        Journal::create(&path).unwrap().record(&entries).unwrap();
        let ops = Sticky::new(sticks);
        assert_eq!(roll_back(&ops, &entries, Some(&path)).len(), 1);
        let left = journal::read(&path).unwrap();
        // The next try is at the rest alone.
        let again = Sticky::new("");
        assert!(roll_back(&again, &left, Some(&path)).is_empty());
        let expected: Vec<Step> = left.iter().rev().map(|entry| entry.undo.clone()).collect();
        assert_eq!(*again.ran.borrow(), expected);
        assert_eq!(journal::read(&path).unwrap(), []);
        left.into_iter().map(|entry| entry.step).collect()
    }

    #[test]
    fn what_was_given_back_is_not_given_back_again() {
        // The GPU's console waits for it; the virtual function is back.
        assert_eq!(left_after("pci-0000:03:00.0"), [0, 1, 3, 5]);
        // The function's settings wait for it; the GPU is back, and so is the console.
        assert_eq!(left_after("pci-0000:3b:00.0-vf1"), [0, 2, 4, 6]);
    }

    #[test]
    fn a_journal_that_cannot_be_written_keeps_nobodys_device() {
        let top = tempfile::tempdir().unwrap();
        let entries = entries(top.path());
        let ops = Sticky::new("");
        assert!(roll_back(&ops, &entries, Some(top.path())).is_empty());
        assert_eq!(ops.ran.borrow().len(), entries.len());
    }
}
