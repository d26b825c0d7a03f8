//! Functions of one IOMMU group that leave a running guest one after another.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::apply::{apply, attach};
use super::journal::{self, Entry, Journal, Leases, TakenBack, take_back_entries};
use super::step::{Bound, Step, User, VfioDevice};
use crate::hosts::{self, difference, snapshot};
use crate::ids::{Id, PciRef};
use crate::ops::{Host, Ops, OpsError, set_stand_in};

const SOUND: &str = "0000:00:1f.3";
const SMBUS: &str = "0000:00:1f.4";
const FLASH: &str = "0000:00:1f.5";

fn pci(text: &str) -> PciRef {
    text.parse().unwrap()
}

/// The steps that take functions, as a start has them.
fn take(run: &Path, functions: &[&str]) -> Vec<Step> {
    let user = User {
        guest: "g".to_owned(),
        run_dir: run.to_owned(),
    };
    let lease = |name: &&str| Step::TakeLease {
        key: pci(name).key(),
        device: (*name).to_owned(),
        part_of: None,
        user: user.clone(),
    };
    let bind = |name: &&str| Step::BindDriver {
        device: pci(name),
        driver: "vfio-pci".to_owned(),
        from: Bound::default(),
    };
    let mut steps: Vec<Step> = functions.iter().map(lease).collect();
    steps.extend(functions.iter().map(bind));
    steps
}

/// What is done when the guest has let functions go, and keeps others.
fn leaves(host: &dyn Ops, journal: &Path, gone: &[&str], kept: &[&str]) -> TakenBack {
    let gone: Vec<String> = gone.iter().map(|name| pci(name).key()).collect();
    let chosen = |entry: &Entry| entry.undo.lease().is_some_and(|key| gone.contains(&key));
    let keeps = |function| kept.iter().any(|name| pci(name) == function);
    let back = take_back_entries(host, journal, chosen, keeps, Leases::Release).unwrap();
    assert!(back.errors.is_empty(), "{:?}", back.errors);
    back
}

#[test]
fn what_leaves_a_group_waits_for_the_last_of_it() {
    let tree = hosts::Host::new("intel-i915-7vf");
    let top = tempfile::tempdir().unwrap();
    let run = top.path().join("g");
    let book = run.join("journal.jsonl");
    set_stand_in(Some(tree.root()));
    let host = Host::sharing(&top.path().join("host"));
    let before = snapshot(tree.root());
    let mut steps = vec![
        Step::MakeDir {
            path: run.clone(),
            mode: 0o700,
            keep: false,
        },
        Step::Lock {
            path: run.join("lock"),
        },
    ];
    // The guest has sound and bus; the flash is what goes along.
    steps.extend(take(&run, &[SOUND, SMBUS, FLASH]));
    let started = apply(&host, &steps, &book).unwrap();
    let driver = |name: &str| {
        let link = tree.root().join("sys/bus/pci/devices").join(name);
        std::fs::read_link(link.join("driver")).ok().map(|link| {
            let name = link.file_name().unwrap();
            name.to_string_lossy().into_owned()
        })
    };
    let leases = || host.place().host.leases().unwrap().len();

    // Its QEMU has the group open, and its lock.
    let fds = tree.root().join("proc/4242/fd");
    std::fs::create_dir_all(&fds).unwrap();
    symlink("/dev/vfio/11", fds.join("3")).unwrap();
    let lock = run.join("lock").canonicalize().unwrap();
    symlink(lock, fds.join("4")).unwrap();
    let taken = snapshot(tree.root());

    assert_eq!(leaves(&host, &book, &[SOUND], &[SMBUS]).held, [pci(SOUND)]);
    assert_eq!(difference(&taken, &snapshot(tree.root())), [""; 0]);
    assert_eq!(leases(), 3, "nobody else gets it meanwhile");

    // It comes again, and leaves again.
    let id: Id = "sound".parse().unwrap();
    let mut again = take(&run, &[SOUND]);
    again.push(Step::ConfirmVfio {
        devices: vec![VfioDevice::Pci(pci(SOUND))],
    });
    attach(&host, &again, &id, &book).unwrap();
    assert_eq!(leaves(&host, &book, &[SOUND], &[SMBUS]).held, [pci(SOUND)]);
    assert_eq!(difference(&taken, &snapshot(tree.root())), [""; 0]);

    // With the last of them all are the host's, as they were.
    std::fs::remove_dir_all(tree.root().join("proc/4242")).unwrap();
    assert_eq!(leaves(&host, &book, &[SMBUS], &[]).held, []);
    assert_eq!(driver(SOUND).as_deref(), Some("snd_hda_intel"));
    assert_eq!(difference(&before, &snapshot(tree.root())), [""; 0]);
    assert_eq!(leases(), 0);
    let left = journal::read(&book).unwrap();
    assert!(left.iter().all(|entry| entry.undo.lease().is_none()));
    drop(started);
    set_stand_in(None);
}

/// Says what it is asked to do; all functions are of one group.
#[derive(Default)]
struct OneGroup(RefCell<Vec<Step>>);

impl Ops for OneGroup {
    fn run(&self, step: &Step) -> Result<Option<OwnedFd>, OpsError> {
        self.0.borrow_mut().push(step.clone());
        Ok(None)
    }

    fn group_of(&self, _: PciRef) -> Option<u32> {
        Some(7)
    }
}

#[test]
fn virtual_functions_of_one_group_go_together() {
    let top = tempfile::tempdir().unwrap();
    let book = top.path().join("journal.jsonl");
    let (one, two) = ("vf:1@0000:3b:00.0", "vf:2@0000:3b:00.0");
    let mut steps = take(top.path(), &[one, two]);
    steps.insert(
        2,
        Step::MakeVfs {
            pf: "3b:00.0".parse().unwrap(),
            count: 2,
            user: User {
                guest: "g".to_owned(),
                run_dir: top.path().to_owned(),
            },
            keep: false,
            provision: None,
        },
    );
    let entry = |(step, done): (usize, &Step)| {
        let undo = done.inverse()?;
        let device = None;
        Some(Entry { step, undo, device })
    };
    let entries: Vec<Entry> = steps.iter().enumerate().filter_map(entry).collect();
    Journal::create(&book).unwrap().record(&entries).unwrap();
    let ops = OneGroup::default();
    assert_eq!(leaves(&ops, &book, &[one], &[two]).held, [pci(one)]);
    assert_eq!(*ops.0.borrow(), []);
    assert_eq!(leaves(&ops, &book, &[two], &[]).held, []);
    let undone: Vec<Step> = entries.iter().rev().map(|one| one.undo.clone()).collect();
    assert_eq!(*ops.0.borrow(), undone);
}
