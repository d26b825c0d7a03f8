//! This process's own memory: what a supervisor needs for a moment and then for months does not.

use std::fs;
use std::io;

use nix::libc;

/// Unmaps the pages of this program's code that are mapped now; those still needed come back from the
/// page cache when they are run. A start runs most of the program, supervision a small part of it: what
/// stays mapped would count for every guest. Tells how many bytes were covered.
///
/// # Errors
/// `/proc/self/maps` cannot be read.
pub fn drop_code() -> io::Result<usize> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let mut covered = 0;
    for (start, length) in maps.lines().filter_map(code) {
        // SAFETY: the range is one mapping that the kernel just listed as private, executable and not
        // writable, with a file behind it: its pages are the file's own, nothing of ours is in them,
        // and the kernel maps them again when they are touched. Other threads may run in it.
        let done = unsafe {
            libc::madvise(
                std::ptr::without_provenance_mut(start),
                length,
                libc::MADV_DONTNEED,
            )
        };
        if done == 0 {
            covered += length;
        }
    }
    Ok(covered)
}

/// A line of `maps` as a range, if it is code from a file.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let code = fields.next()? == "r-xp";
    // Behind it come the offset, the device, the inode and the path.
    let from_file = fields.nth(3).is_some_and(|path| path.starts_with('/'));
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    (code && from_file).then_some((start, end.checked_sub(start)?))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_code_from_files_is_dropped_and_goes_on_running() {
        let line = "55ec36795000-55ec36cb2000 r-xp 0010d000 fe:00 5882459    /usr/bin/mvm";
        assert_eq!(code(line), Some((0x55ec_3679_5000, 0x51d000)));
        for other in [
            "55ec36cb2000-55ec36cca000 r--p 00629000 fe:00 5882459  /usr/bin/mvm",
            "55ec36cb2000-55ec36cca000 rwxp 00629000 fe:00 5882459  /usr/bin/mvm",
            "7ffe025c4000-7ffe025c6000 r-xp 00000000 00:00 0        [vdso]",
            "7ffe025c4000-7ffe025c6000 r-xp 00000000 00:00 0",
            "",
        ] {
            assert_eq!(code(other), None, "{other}");
        }
        assert!(drop_code().unwrap() > 100_000);
        assert!(drop_code().unwrap() > 100_000, "it still runs");
    }
}
