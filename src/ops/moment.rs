//! The moments between two changes. Tests end the process at each of them; else nothing happens here.

/// A change of the host, or of what is written down about it, is about to happen, or has just happened.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn pass() {}

#[cfg(test)]
pub(crate) use tests::{die_after, pass, passed};

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    /// How many moments are still passed; below zero: all.
    static LEFT: AtomicI64 = AtomicI64::new(-1);
    /// How many were passed.
    static PASSED: AtomicI64 = AtomicI64::new(0);

    pub(crate) fn pass() {
        PASSED.fetch_add(1, Ordering::SeqCst);
        if LEFT.load(Ordering::SeqCst) >= 0 && LEFT.fetch_sub(1, Ordering::SeqCst) == 0 {
            // As by anybody's `kill -9`.
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
        }
    }

    /// From now on, `count` moments are passed, and the next one is the process's last.
    pub(crate) fn die_after(count: i64) {
        LEFT.store(count, Ordering::SeqCst);
    }

    pub(crate) fn passed() -> i64 {
        PASSED.load(Ordering::SeqCst)
    }
}
