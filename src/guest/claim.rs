//! Who has a guest: taken before anything of it is looked at or touched.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::RunDir;
use super::error::StartError;
use super::recover;
use crate::dirs::Dirs;
use crate::ids::GuestName;
use crate::ops::{OpsError, dirs, lock};

/// From a supervisor's fork to its child's exec, on a busy host.
const FORKED: Duration = Duration::from_secs(2);
/// From QEMU's last words to its end: for the kernel to take apart its memory and its devices.
const ENDING: Duration = Duration::from_secs(60);

/// The right to start, supervise or recover a guest: its supervisor lock.
#[derive(Debug)]
pub(crate) struct Claim {
    lock: OwnedFd,
}

/// What was there when it was claimed.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// Nothing, or what was there is taken back.
    Free(Claim),
    /// A QEMU without supervisor.
    Orphan(Claim),
}

impl Claim {
    /// The same, where a start that failed has taken the directory away with the file that the claim is on.
    ///
    /// # Errors
    /// Somebody else has it by now.
    pub(crate) fn renew(self, run: &RunDir) -> Result<Self, StartError> {
        if lock::is_on(&self.lock, &run.supervisor_lock()) {
            return Ok(self);
        }
        match take(run)? {
            Claimed::Free(claim) => Ok(claim),
            Claimed::Orphan(_) => Err(StartError::stays(run)),
        }
    }

    /// Gives up a claim under which all is taken back, and what is left in the directory.
    ///
    /// # Errors
    /// Something that is not mvm's is in it.
    pub(crate) fn give_up(&self, run: &RunDir) -> Result<(), StartError> {
        if lock::is_on(&self.lock, &run.supervisor_lock()) {
            dirs::remove_dir(run.path())?;
        }
        Ok(())
    }

    /// Gives up a claim under which nothing was begun but, at the most, a plan made known.
    pub(crate) fn abandon(self, run: &RunDir) {
        // The directory that the claim is on may be gone, and another's be in its place.
        if !lock::is_on(&self.lock, &run.supervisor_lock()) {
            return;
        }
        let ours = [run.plan(), run.first_plan(), run.supervisor_lock()];
        let nothing_else = std::fs::read_dir(run.path()).is_ok_and(|mut entries| {
            entries.all(|entry| entry.is_ok_and(|entry| ours.contains(&entry.path())))
        });
        if nothing_else {
            // There need not be a plan. The claim goes last.
            for file in ours {
                let _ = std::fs::remove_file(file);
            }
            let _ = std::fs::remove_dir(run.path());
        }
    }
}

/// Claims a guest. What a dead one of that name left behind is taken back.
///
/// # Errors
/// Somebody has it ([`StartError::Busy`]), or what was left behind cannot be taken back.
pub(crate) fn take(run: &RunDir) -> Result<Claimed, StartError> {
    let end = Instant::now() + FORKED;
    let mut tries = 0;
    while tries < 3 {
        dirs::make(run.path(), 0o700, false)?;
        let claim = match lock::take(&run.supervisor_lock()) {
            Ok(lock) => Claim { lock },
            // A child of a supervisor that just died has its lock until it becomes QEMU.
            Err(OpsError::Held { pid: Some(pid), .. })
                if !is_alive(pid) && Instant::now() < end =>
            {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            Err(error @ OpsError::Held { .. }) => return Err(StartError::Busy(error)),
            // The directory was removed by its last owner between our two steps.
            Err(error) if error.os_error() == Some(nix::libc::ENOENT) && Instant::now() < end => {
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if lock::is_held(&run.lock())? {
            if !is_ending(run) {
                return Ok(Claimed::Orphan(claim));
            }
            has_ended(run)?;
        }
        if !recover::has_leftovers(run) {
            return Ok(Claimed::Free(claim));
        }
        tries += 1;
        // The directory goes with them, and with it the file that our claim is on.
        recover::take_back(run)?;
    }
    Err(StartError::Leftovers {
        guest: run.name().to_string(),
        what: format!("{} comes back again and again", run.path().display()),
    })
}

/// Whether its QEMU is about to be gone: it has removed its monitor, and with it nobody can adopt it. The
/// kernel may still have to take apart what it had, which takes long with much memory or many devices.
fn is_ending(run: &RunDir) -> bool {
    !run.monitor().exists()
}

/// Waits until nothing is left of a QEMU that is ending.
///
/// # Errors
/// It takes too long.
pub(crate) fn has_ended(run: &RunDir) -> Result<(), StartError> {
    let end = Instant::now() + ENDING;
    while lock::is_held(&run.lock())? {
        if Instant::now() >= end {
            return Err(StartError::Ending {
                guest: run.name().to_string(),
                pid: lock::holder(&run.lock()),
                seconds: ENDING.as_secs(),
            });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Does something that must not happen while the guest runs, with every start of it held off.
///
/// # Errors
/// It runs, or its directory cannot be used.
pub fn while_stopped<T>(
    dirs: &Dirs,
    name: &GuestName,
    work: impl FnOnce() -> T,
) -> Result<T, StartError> {
    let run = RunDir::new(dirs, name);
    match take(&run)? {
        Claimed::Free(claim) => {
            let done = work();
            claim.abandon(&run);
            Ok(done)
        }
        Claimed::Orphan(_) => Err(StartError::Busy(OpsError::Held {
            guest: name.to_string(),
            pid: lock::holder(&run.lock()),
        })),
    }
}

/// Whether a process of that id runs. One that is dead and not reaped does not.
fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| Some(stat.rsplit_once(") ")?.1.chars().next()))
        .flatten()
        .is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_plan_made_known_goes_with_its_claim_alone() {
        let top = tempfile::tempdir().unwrap();
        let mut dirs = Dirs::new(0, &|_| None);
        dirs.runtime = top.path().join("run");
        let run = RunDir::new(&dirs, &"g".parse().unwrap());
        let claim = || match take(&run).unwrap() {
            Claimed::Free(claim) => claim,
            Claimed::Orphan(_) => panic!("an orphan"),
        };
        let first = claim();
        std::fs::write(run.plan(), "{}").unwrap();
        first.abandon(&run);
        assert!(!run.path().exists());
        // A start that failed took its directory away, and the next start of that name is under way.
        let first = claim();
        dirs::remove_dir(run.path()).unwrap();
        let second = claim();
        std::fs::write(run.plan(), "{}").unwrap();
        first.abandon(&run);
        assert!(run.plan().exists() && run.supervisor_lock().exists());
        // What was begun is taken back by its journal.
        std::fs::write(run.journal(), "").unwrap();
        second.abandon(&run);
        assert!(run.plan().exists() && run.journal().exists());
    }

    #[test]
    fn a_qemu_without_monitor_is_waited_for() {
        let top = tempfile::tempdir().unwrap();
        let mut dirs = Dirs::new(0, &|_| None);
        dirs.runtime = top.path().join("run");
        let run = RunDir::new(&dirs, &"g".parse().unwrap());
        std::fs::create_dir_all(run.path()).unwrap();
        let qemu = lock::take(&run.lock()).unwrap();
        std::fs::write(run.monitor(), "").unwrap();
        assert!(matches!(take(&run), Ok(Claimed::Orphan(_))));
        std::fs::remove_file(run.monitor()).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(100));
                drop(qemu);
            });
            let claimed = take(&run);
            assert!(matches!(claimed, Ok(Claimed::Free(_))), "{claimed:?}");
        });
    }

    /// Whoever waits for a guest's name gets it when the one before is done, and never takes that one
    /// for a QEMU without supervisor, which would be ended.
    #[test]
    fn an_end_is_not_taken_for_an_orphan() {
        let top = tempfile::tempdir().unwrap();
        let mut dirs = Dirs::new(0, &|_| None);
        dirs.runtime = top.path().join("run");
        dirs.state = top.path().join("state");
        let run = RunDir::new(&dirs, &"g".parse().unwrap());
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut ends = 0;
                while ends < 1000 {
                    let Ok(Claimed::Free(claim)) = take(&run) else {
                        continue;
                    };
                    let lock = lock::take(&run.lock()).unwrap();
                    dirs::remove_dir(run.path()).unwrap();
                    drop(lock);
                    drop(claim);
                    ends += 1;
                }
                done.store(true, Ordering::Relaxed);
            });
            while !done.load(Ordering::Relaxed) {
                match take(&run) {
                    Ok(Claimed::Orphan(_)) => {
                        done.store(true, Ordering::Relaxed);
                        panic!("an end was taken for an orphan");
                    }
                    Ok(Claimed::Free(claim)) => claim.abandon(&run),
                    Err(_) => {}
                }
            }
        });
    }
}
