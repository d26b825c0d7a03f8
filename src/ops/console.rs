//! The host's console on a screen: let go before its GPU is taken, brought back after the last guest
//! that needed it.

use std::path::{Path, PathBuf};

use super::device_error::DeviceError;
use super::hostdir::{HostLock, Last};
use super::sysfs::{Place, plain};
use crate::handover::ConsoleRef;
use crate::plan::step::{Step, User};

fn key(console: &ConsoleRef) -> String {
    format!("console-{}", console.name())
}

/// What stands for a console in sysfs.
fn dir_of(console: &ConsoleRef) -> PathBuf {
    match console {
        ConsoleRef::Vt(name) => Path::new("class/vtconsole").join(name),
        ConsoleRef::Platform { device, .. } => Path::new("bus/platform/devices").join(device),
    }
}

/// Whether it is at work; `None` where the host has no such console (any more).
fn is_attached(place: &Place, console: &ConsoleRef) -> Result<Option<bool>, DeviceError> {
    let dir = dir_of(console);
    Ok(match console {
        // Reading it waits for the kernel's lock of all consoles.
        ConsoleRef::Vt(_) => place
            .device(key(console))
            .read(dir.join("bind"))?
            .map(|bound| bound != "0"),
        ConsoleRef::Platform { driver, .. } => place
            .exists(&dir)
            .then(|| place.link_name(dir.join("driver")).as_ref() == Some(driver)),
    })
}

fn set(place: &Place, console: &ConsoleRef, attached: bool) -> Result<(), DeviceError> {
    match console {
        ConsoleRef::Vt(name) => plain(name)?,
        ConsoleRef::Platform { device, driver } => plain(device).and(plain(driver))?,
    }
    let at = place.device(key(console));
    // An mvm that died may have left a process behind that is still at it.
    at.wait_until_quiet()?;
    if is_attached(place, console)?.is_none_or(|now| now == attached) {
        return Ok(());
    }
    match console {
        ConsoleRef::Vt(name) => {
            let file = Path::new("class/vtconsole").join(name).join("bind");
            at.set(file, if attached { "1" } else { "0" }).map(drop)
        }
        ConsoleRef::Platform { device, driver } => {
            let file = if attached { "bind" } else { "unbind" };
            let file = Path::new("bus/platform/drivers").join(driver).join(file);
            let done = at.command(file, &format!("{device}\n"));
            match (done, is_attached(place, console)?) {
                // Gone, or taken over by the GPU's own driver, meanwhile.
                (Err(_), now) if now.is_none_or(|now| now == attached) => Ok(()),
                (done, _) => done,
            }
        }
    }
}

/// Takes it away, or joins those who need it away.
pub(crate) fn detach(
    place: &Place,
    lock: &HostLock,
    console: &ConsoleRef,
    user: &User,
) -> Result<(), DeviceError> {
    let key = key(console);
    let shared = place.host.shared_of(&key)?.is_some();
    if !shared && is_attached(place, console)? != Some(true) {
        // The host itself has none there: there is nothing to bring back.
        return Ok(());
    }
    place.host.share(lock, &key, user, || {
        Ok(vec![Step::AttachConsole {
            console: console.clone(),
            user: user.clone(),
        }])
    })?;
    set(place, console, false)
}

/// Brings it back once nobody needs it away.
pub(crate) fn attach(
    place: &Place,
    lock: &HostLock,
    console: &ConsoleRef,
    user: &User,
) -> Result<(), DeviceError> {
    let key = key(console);
    match place.host.unshare(lock, &key, user)? {
        Last::No => Ok(()),
        Last::Yes(_) => {
            set(place, console, true)?;
            place.host.forget_shared(lock, &key)
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::hosts;
    use crate::ops::standin;

    #[test]
    fn a_console_that_does_not_answer_is_not_waited_for_for_ever() {
        let tree = hosts::Host::new("intel-i915-7vf");
        let top = tempfile::tempdir().unwrap();
        let place = standin::slow(tree.root(), &top.path().join("host"), "bind");
        let user = User {
            guest: "g".to_owned(),
            run_dir: top.path().join("g"),
        };
        let console = ConsoleRef::Vt("vtcon1".to_owned());
        let lock = place.host.lock().unwrap();
        let error = detach(&place, &lock, &console, &user).unwrap_err();
        assert!(matches!(error, DeviceError::Stuck { .. }), "{error}");
        assert!(place.host.shared().unwrap().is_empty(), "nothing was done");
    }
}
