#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

//! A directory that stands for a host in the tests of this room.

use std::fs;
use std::path::Path;

use super::facts::Roots;
use super::sysfs::Sysfs;

/// Writes a file of that host.
pub(crate) fn put(dir: &Path, file: &str, text: &str) {
    let path = dir.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// That host, with nothing cached.
pub(crate) fn roots(dir: &Path) -> Roots {
    Roots {
        sysfs: Sysfs::at(dir.join("sys")),
        root: dir.to_owned(),
        cache: None,
        user_config: None,
        around_devices: Some(dir.to_owned()),
        leases: dir.join("run/mvm-host"),
    }
}
