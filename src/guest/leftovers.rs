//! What guests that are gone have left of the host's devices, whoever looks.
//!
//! A guest's own journal is the first source. Where it is gone with its directory, what the leases and the
//! records of shared changes say is carried out, as far as they are root's or this user's.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;

use super::RunDir;
use super::claim::{self, Claimed};
use crate::dirs::Dirs;
use crate::error::Report;
use crate::ids::GuestName;
use crate::ops::hostdir::{Alive, alive};
use crate::ops::{Host, Ops, OpsError, hugepages};
use crate::plan::step::{Step, User};
use crate::plan::{journal, render};

/// In the place of a guest's name, where a lease cannot be read.
const NOBODY: &str = "?";

/// A device, or a shared change, that a guest had left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leftover {
    /// The guest.
    pub guest: String,
    /// What it had: the lease's or the record's name.
    pub what: String,
    /// What was done, in words.
    pub done: Vec<String>,
    /// Why the rest could not be; none when all is back.
    pub left: Vec<String>,
}

/// The user of a guest whose run-time directory has no journal any more.
fn is_lost(user: &User) -> bool {
    alive(&user.run_dir) == Alive::No && !user.run_dir.join("journal.jsonl").exists()
}

/// Takes back what guests left behind whose own directory is gone. Errors are told with the device; the
/// rest is still done.
///
/// # Errors
/// The directory that guests share cannot be read.
pub fn take_back_lost(dirs: &Dirs) -> Result<Vec<Leftover>, OpsError> {
    let host = Host::new(dirs);
    let shared_dir = &host.place().host;
    let damaged = host.drop_strangers()?.into_iter().map(|gone| Leftover {
        guest: NOBODY.to_owned(),
        what: gone.key,
        done: vec![format!(
            "removed {}, which could not be read",
            gone.path.display()
        )],
        left: Vec::new(),
    });
    let mut found: Vec<Leftover> = damaged.collect();
    for lease in shared_dir.leases()? {
        let user = User {
            guest: lease.content.guest.clone(),
            run_dir: lease.content.run_dir.clone(),
        };
        if !lease.trusted || !is_lost(&user) {
            continue;
        }
        let mut steps = lease.take_back();
        steps.push(Step::ReleaseLease {
            key: lease.key.clone(),
            user: user.clone(),
        });
        found.push(carry_out(&host, &user, lease.content.device, &steps));
    }
    // Devices that could not be given back: what guests shared for their sake waits for them.
    let stuck = shared_dir.leases()?;
    for record in shared_dir.shared()? {
        let [first, ..] = record.content.users.as_slice() else {
            continue;
        };
        if !record.trusted || !record.content.users.iter().all(is_lost) {
            continue;
        }
        let steps: Vec<Step> = record
            .content
            .undo
            .iter()
            .filter_map(|undo| match undo {
                Step::RestoreVfs { pf, .. } => Some(Step::DropVfs {
                    pf: *pf,
                    user: first.clone(),
                }),
                Step::AttachConsole { console, .. } => Some(Step::AttachConsole {
                    console: console.clone(),
                    user: first.clone(),
                }),
                _ => None,
            })
            .filter(|step| {
                !stuck.iter().any(|lease| {
                    let mut users = record.content.users.iter();
                    lease.trusted
                        && users.any(|user| user.run_dir == lease.content.run_dir)
                        && journal::waits_for(step, &lease.key)
                })
            })
            .collect();
        if steps.is_empty() {
            continue;
        }
        found.push(carry_out(&host, first, record.key, &steps));
    }
    for record in shared_dir.pools()?.into_iter().filter(|one| one.trusted) {
        let Some((size, node)) = hugepages::pool_of(&record.key) else {
            continue;
        };
        for user in record.content.users.into_iter().map(|claim| claim.user) {
            if is_lost(&user) {
                let user = user.clone();
                let step = Step::ReturnHugepages {
                    size,
                    node,
                    user: user.clone(),
                };
                found.push(carry_out(&host, &user, record.key.clone(), &[step]));
            }
        }
    }
    shared_dir.tidy()?;
    Ok(found)
}

fn carry_out(host: &Host, user: &User, what: String, steps: &[Step]) -> Leftover {
    let mut leftover = Leftover {
        guest: user.guest.clone(),
        what,
        done: Vec::new(),
        left: Vec::new(),
    };
    for step in steps {
        // A device that is not given back keeps its lease, and its settings.
        let waits = matches!(step, Step::ReleaseLease { .. } | Step::SetVfNet { .. });
        if waits && !leftover.left.is_empty() {
            continue;
        }
        match host.take_back(step, &user.run_dir) {
            Ok(()) => leftover.done.push(render::describe(step)),
            Err(error) => leftover.left.push(Report::from(error).chain.join(": ")),
        }
    }
    leftover
}

/// Before a start that takes devices: what guests that are gone left behind, this one's user's and what
/// nobody has a journal for, is taken back. What stays is told when a step meets it.
pub(crate) fn take_back_before(dirs: &Dirs, us: &Path, steps: &[Step]) {
    if !steps
        .iter()
        .any(|step| matches!(step, Step::TakeLease { .. } | Step::ClaimHugepages { .. }))
    {
        return;
    }
    take_back_dead(dirs, Some(us));
}

/// Before the host is looked at for a guest that takes devices: what any guest that is gone left behind, one of
/// this name too. What is planned with something of theirs in sight would not be true any more when they
/// have been taken back.
pub fn take_back_before_plan(dirs: &Dirs) {
    take_back_dead(dirs, None);
}

fn take_back_dead(dirs: &Dirs, but: Option<&Path>) {
    for guest in dead_guests(dirs, but) {
        let run = RunDir::new(dirs, &guest);
        match claim::take(&run) {
            Ok(Claimed::Free(claim)) => {
                tracing::info!(%guest, "took back what it had left behind");
                claim.abandon(&run);
            }
            Ok(Claimed::Orphan(_)) => {}
            Err(error) => tracing::warn!(%error, %guest, "cannot take back what it left behind"),
        }
    }
    match take_back_lost(dirs) {
        Ok(found) => {
            for leftover in found {
                if leftover.guest == NOBODY {
                    leftover
                        .done
                        .iter()
                        .for_each(|done| tracing::warn!("{done}"));
                }
                for error in leftover.left {
                    tracing::warn!(guest = %leftover.guest, "cannot take back: {error}");
                }
            }
        }
        Err(error) => tracing::warn!(%error, "cannot look at the leases"),
    }
}

/// This user's guests that have devices and are gone.
fn dead_guests(dirs: &Dirs, but: Option<&Path>) -> BTreeSet<GuestName> {
    let host = Host::new(dirs);
    let shared_dir = &host.place().host;
    let leases = shared_dir.leases().unwrap_or_default();
    let shared = shared_dir.shared().unwrap_or_default();
    let pools = shared_dir.pools().unwrap_or_default();
    let sharing = shared.into_iter().flat_map(|record| record.content.users);
    let claims = pools.into_iter().flat_map(|record| record.content.users);
    let users = sharing.chain(claims.map(|claim| claim.user));
    let dirs_of_users = leases
        .into_iter()
        .map(|lease| lease.content.run_dir)
        .chain(users.map(|user| user.run_dir));
    dirs_of_users
        .filter(|dir| but != Some(dir.as_path()) && dir.parent() == Some(&dirs.runtime))
        .filter(|dir| alive(dir) == Alive::No && dir.join("journal.jsonl").exists())
        .filter_map(|dir| dir.file_name()?.to_str()?.parse().ok())
        .collect()
}

/// What a guest's journal has to say about devices, in words: what is given back when it is taken back.
pub(crate) fn devices_in_journal(run: &RunDir) -> Vec<String> {
    let entries = journal::read(&run.journal()).unwrap_or_default();
    let about_devices = |step: &&Step| {
        matches!(
            step,
            Step::DropVfs { .. }
                | Step::SetVfNet { .. }
                | Step::RemoveMdev { .. }
                | Step::ReturnHugepages { .. }
                | Step::AttachConsole { .. }
                | Step::GiveBack { .. }
                | Step::GiveBackUsb { .. }
        )
    };
    let undo = entries.iter().rev().map(|entry| &entry.undo);
    undo.filter(about_devices).map(render::describe).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::sweep_tests::{dirs, form, take};
    use super::*;
    use crate::hosts::{self, Kernel, difference, snapshot};
    use crate::ops::set_stand_in;

    #[test]
    fn the_console_waits_for_its_gpu() {
        let wanted = form("i915-whole");
        let tree = hosts::Host::new(wanted.host);
        let root = tree.root();
        let top = tempfile::tempdir().unwrap();
        let top = top.path();
        set_stand_in(Some(root));
        let before = snapshot(root);
        let (host, prepared) = take(top, "lost", &wanted);
        drop(prepared);
        let shared_dir = &host.place().host;
        // Its directory goes, as that of a login session does.
        std::fs::remove_dir_all(top.join("run/lost")).unwrap();
        let unbind = "/sys/bus/pci/drivers/vfio-pci/unbind";
        Kernel::at(root).fail_next(unbind, nix::libc::EBUSY);
        let found = take_back_lost(&dirs(top)).unwrap();
        assert!(found.iter().any(|leftover| !leftover.left.is_empty()));
        let console = root.join("sys/class/vtconsole/vtcon1/bind");
        let bound = || std::fs::read_to_string(&console).unwrap();
        assert_eq!(bound().trim(), "0", "{found:?}");
        assert_eq!(shared_dir.leases().unwrap().len(), 1);
        assert_eq!(shared_dir.shared().unwrap().len(), 1);
        let found = take_back_lost(&dirs(top)).unwrap();
        assert!(found.iter().all(|leftover| leftover.left.is_empty()));
        assert_eq!(bound().trim(), "1", "{found:?}");
        assert!(shared_dir.leases().unwrap().is_empty());
        assert_eq!(difference(&before, &snapshot(root)), [""; 0]);
        set_stand_in(None);
    }

    #[test]
    fn a_device_that_is_another_guests_by_now_is_left_to_him() {
        let wanted = form("sibling-vf");
        let tree = hosts::Host::new(wanted.host);
        let top = tempfile::tempdir().unwrap();
        let top = top.path();
        set_stand_in(Some(tree.root()));
        let untouched = snapshot(tree.root());
        let (host, first) = take(top, "first", &wanted);
        let run = RunDir::new(&dirs(top), &"first".parse().unwrap());
        let journal = std::fs::read(run.journal()).unwrap();
        let undo = journal::read(&run.journal()).unwrap();
        assert!(journal::roll_back(&host, &undo, Some(&run.journal())).is_empty());
        drop(first);
        let (_, second) = take(top, "second", &wanted);
        let before = snapshot(tree.root());
        let leases = || host.place().host.leases().unwrap();
        let theirs = leases();
        // What was struck out was lost: all of it is done once more.
        std::fs::create_dir_all(run.path()).unwrap();
        std::fs::write(run.journal(), journal).unwrap();
        let undo = journal::read(&run.journal()).unwrap();
        assert!(journal::roll_back(&host, &undo, Some(&run.journal())).is_empty());
        assert_eq!(difference(&before, &snapshot(tree.root())), [""; 0]);
        assert_eq!(leases(), theirs);
        assert!(journal::roll_back(&host, &second.undo, None).is_empty());
        assert_eq!(difference(&untouched, &snapshot(tree.root())), [""; 0]);
        set_stand_in(None);
    }
}
