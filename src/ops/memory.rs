//! This process's own memory: what a supervisor needs for a moment and then for months does not.

use std::fs;
use std::io;

use nix::libc;

/// Unmaps the pages of this program's code and constants; those still needed come back from the page
/// cache when they are touched. A start touches most of the program, supervision a small part of it:
/// what stays mapped would count for every guest. Tells how many bytes were covered.
///
/// # Errors
/// `/proc/self/smaps` cannot be read.
pub fn drop_code() -> io::Result<usize> {
    let maps = fs::read_to_string("/proc/self/smaps")?;
    let mut covered = 0;
    for (start, length) in pure(&maps) {
        // SAFETY: the range is one mapping that the kernel just listed as private, not writable, backed
        // by a file and without a single page of its own (`Anonymous: 0`, which relocated data is not):
        // all its pages are the file's, and the kernel maps them again when they are touched. Nothing
        // makes such a mapping writable later but the dynamic loader, which is done by now.
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

/// What is mapped now, in bytes.
///
/// # Errors
/// `/proc/self/status` cannot be read.
pub fn resident() -> io::Result<usize> {
    let text = fs::read_to_string("/proc/self/status")?;
    let kilobytes = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))
        .and_then(|number| number.parse::<usize>().ok());
    kilobytes
        .and_then(|number| number.checked_mul(1024))
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The mappings of `smaps` that hold nothing but a file's pages.
fn pure(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        if let Some(kilobytes) = line.strip_prefix("Anonymous:") {
            let own = kilobytes.trim() != "0 kB";
            found.extend(current.take().filter(|_| !own));
        } else if let Some(range) = header(line) {
            current = range;
        }
    }
    found
}

/// A mapping's first line; `Some(None)` for one that is not constant or not a file's.
fn header(line: &str) -> Option<Option<(usize, usize)>> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    let constant = matches!(fields.next()?, "r-xp" | "r--p");
    // Behind it come the offset, the device, the inode and the path.
    let from_file = fields.nth(3).is_some_and(|path| path.starts_with('/'));
    Some(
        end.checked_sub(start)
            .filter(|_| constant && from_file)
            .map(|length| (start, length)),
    )
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_the_files_own_is_dropped() {
        let mapping = |first: &str, own: &str| {
            format!("{first}\nSize: 96 kB\nRss: 8 kB\nAnonymous:          {own} kB\nVmFlags: rd\n")
        };
        let smaps = [
            mapping("1000-2000 r--p 00000000 fe:00 58   /usr/bin/mvm", "0"),
            mapping("2000-4000 r-xp 00001000 fe:00 58   /usr/bin/mvm", "0"),
            // Relocated data, writable data, the heap and the kernel's page.
            mapping("4000-5000 r--p 00003000 fe:00 58   /usr/bin/mvm", "4"),
            mapping("5000-6000 rw-p 00004000 fe:00 58   /usr/bin/mvm", "0"),
            mapping("6000-7000 rw-p 00000000 00:00 0    [heap]", "0"),
            mapping("7000-8000 r-xp 00000000 00:00 0    [vdso]", "0"),
        ]
        .concat();
        assert_eq!(pure(&smaps), [(0x1000, 0x1000), (0x2000, 0x2000)]);
    }

    #[test]
    fn the_program_goes_on_running() {
        assert!(resident().unwrap() > 0);
        assert!(drop_code().unwrap() > 100_000);
        assert!(drop_code().unwrap() > 100_000);
    }
}
