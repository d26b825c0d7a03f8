//! Memory that stays in place: a device writes into the guest's memory by itself, so none of it may be
//! moved or swapped out. The kernel counts it against the limit of whoever opens the device.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use super::device_error::DeviceError;

/// Raises the limit of a QEMU that runs.
///
/// # Errors
/// As [`allow`].
pub fn allow_process(pid: u32, needed: u64, as_other: bool) -> Result<(), DeviceError> {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let root = nix::unistd::Uid::effective().is_root() && !as_other;
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    // Without a limit: what is asked for stays.
    let same = |limit: Option<u64>| limit.map(|limit| limit.max(needed));
    let now = rustix::process::getrlimit(Resource::Memlock);
    let wanted = Rlimit {
        current: same(now.current),
        maximum: same(now.maximum),
    };
    match prlimit(Some(pid), Resource::Memlock, wanted) {
        Ok(_) => Ok(()),
        Err(error) if root => {
            tracing::debug!(%error, "the limit of locked memory stays");
            Ok(())
        }
        Err(_) if now.current.is_none_or(|limit| limit >= needed) => Ok(()),
        Err(_) => Err(DeviceError::LockedMemory {
            needed: needed.div_ceil(1 << 20),
            limit: now.maximum.unwrap_or(u64::MAX) >> 20,
        }),
    }
}

/// Raises this process's limit, which QEMU inherits, to that many bytes.
///
/// # Errors
/// The hard limit is lower and this user may not raise it. Root's own QEMU (`as_other` false) needs no
/// limit: the kernel does not count for who has `CAP_IPC_LOCK`.
pub fn allow(needed: u64, as_other: bool) -> Result<(), DeviceError> {
    let root = nix::unistd::Uid::effective().is_root() && !as_other;
    let (soft, hard) = match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok(limits) => limits,
        Err(error) => {
            tracing::debug!(%error, "the limit of locked memory is not known");
            return Ok(());
        }
    };
    if soft == RLIM_INFINITY || soft >= needed {
        return Ok(());
    }
    let wanted = (needed, hard.max(needed));
    match setrlimit(Resource::RLIMIT_MEMLOCK, wanted.0, wanted.1) {
        Ok(()) => Ok(()),
        Err(error) if root => {
            tracing::debug!(%error, "the limit of locked memory stays");
            Ok(())
        }
        Err(_) => Err(DeviceError::LockedMemory {
            needed: needed.div_ceil(1 << 20),
            limit: hard >> 20,
        }),
    }
}
