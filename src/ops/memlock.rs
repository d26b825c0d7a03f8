//! Memory that stays in place: a device writes into the guest's memory by itself, so none of it may be
//! moved or swapped out. The kernel counts it against the limit of whoever opens the device.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use super::device_error::DeviceError;

/// Raises this process's limit, which QEMU inherits, to that many bytes.
///
/// # Errors
/// The hard limit is lower and this user may not raise it. Root needs no limit: the kernel does not
/// count for who has `CAP_IPC_LOCK`.
pub fn allow(needed: u64) -> Result<(), DeviceError> {
    let root = nix::unistd::Uid::effective().is_root();
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
