//! Steps that fail, at each place.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::ops::{Host, OpsError};
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
