//! The stand-in kernel: what a write to sysfs does, done to a tree of files.
//!
//! Its whole state is in the tree (`/.standin` beside `/sys`), so that one process may write, die, and another
//! go on. It follows `drivers/base/{bus,dd,driver}.c`, `drivers/pci/{pci-sysfs,pci-driver,iov}.c`,
//! `drivers/vfio`, `drivers/usb/core` and `drivers/tty/vt` of Linux 6.1 to 6.8; `replay.rs` compares it with
//! what a real kernel did.
//!
//! `/dev` is not its business but for `/dev/vfio`.

mod console;
mod device;
mod mdev;
mod memory;
mod park;
mod sriov;
mod usb;
mod vfio;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// The kernel of the host whose files are below a directory.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    root: PathBuf,
}

/// What a write ends in: nothing, or the error number that the writer sees.
pub(super) type Done = Result<(), Errno>;

impl Kernel {
    /// The kernel of the host at `root`: the directory that holds `sys`.
    pub(crate) fn at(root: &Path) -> Self {
        // Links are resolved below, and compared with this.
        Self {
            root: root.canonicalize().unwrap(),
        }
    }

    /// Writes `data` to the file at `path` (a real path, below the root) in one write, as the kernel takes it.
    ///
    /// # Errors
    /// The error number the kernel would give, as [`io::Error::raw_os_error`]. A file of which this does not
    /// know what a write does is an error without a number.
    pub(crate) fn write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        let standin = self.root.join(".standin");
        fs::create_dir_all(&standin).unwrap();
        let lock = fs::File::create(standin.join("lock")).unwrap();
        let _lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();

        let name = path.file_name().unwrap_or_default().to_str().unwrap();
        let dir = path.parent().unwrap().canonicalize()?;
        let Ok(rel) = dir.strip_prefix(&self.root) else {
            panic!("{} is not a file of this host", path.display());
        };
        let dir = format!("/{}", rel.to_str().unwrap());
        let file = format!("{dir}/{name}");
        if !self.exists(&file) {
            return Err(Errno::ENOENT.into());
        }
        if self.real(&file).is_dir() {
            return Err(Errno::EISDIR.into());
        }
        if let Some(errno) = self.fault(&file) {
            return Err(io::Error::from_raw_os_error(errno));
        }
        // kernfs calls nobody for an empty write.
        if data.is_empty() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(data);
        let text = text.split('\0').next().unwrap();
        match self.store(&dir, name, text) {
            Some(done) => done.map_err(io::Error::from),
            None => Err(io::Error::other(format!(
                "the stand-in kernel does not know what a write to {file} does"
            ))),
        }
    }

    /// Makes the next write to `file` (from `/sys` on) fail.
    pub(crate) fn fail_next(&self, file: &str, errno: i32) {
        let faults = self.root.join(".standin/faults");
        fs::create_dir_all(&faults).unwrap();
        fs::write(faults.join(file.replace('/', "\\")), errno.to_string()).unwrap();
    }

    fn fault(&self, file: &str) -> Option<i32> {
        let fault = self
            .root
            .join(".standin/faults")
            .join(file.replace('/', "\\"));
        let errno = fs::read_to_string(&fault).ok()?;
        fs::remove_file(fault).unwrap();
        Some(errno.parse().unwrap())
    }

    /// Finds what is written to; `None` where this is not known.
    fn store(&self, dir: &str, name: &str, text: &str) -> Option<Done> {
        let parts: Vec<&str> = dir.trim_start_matches('/').split('/').collect();
        match (parts.as_slice(), name) {
            (["sys", "bus", bus, "drivers", driver], "bind") => Some(self.bind(bus, driver, text)),
            (["sys", "bus", bus, "drivers", driver], "unbind") => {
                Some(self.unbind(bus, driver, text))
            }
            (["sys", "bus", bus], "drivers_probe") => Some(self.drivers_probe(bus, text)),
            (["sys", "bus", _], "drivers_autoprobe") => Some(self.boolean(dir, name, text)),
            ([.., "vtconsole", console], "bind") => Some(self.console(dir, console, text)),
            (_, "driver_override") => Some(self.driver_override(dir, text)),
            (_, "sriov_numvfs") => Some(self.set_numvfs(dir, text)),
            (_, "sriov_drivers_autoprobe" | "d3cold_allowed") => {
                Some(self.boolean(dir, name, text))
            }
            (_, "reset") => {
                Some(number(text).and_then(|n| if n == 1 { Ok(()) } else { Err(Errno::EINVAL) }))
            }
            ([.., "power"], "control") => Some(match streq(text) {
                state @ ("on" | "auto") => {
                    self.put(&format!("{dir}/control"), state);
                    Ok(())
                }
                _ => Err(Errno::EINVAL),
            }),
            ([.., "mdev_supported_types", _], "create") => Some(self.make_mdev(dir, text)),
            (_, "remove") if self.subsystem(dir).as_deref() == Some("mdev") => {
                Some(self.remove_mdev(dir, text))
            }
            (_, "authorized") if self.subsystem(dir).as_deref() == Some("usb") => {
                Some(self.authorize_usb(dir, text))
            }
            (path, "nr_hugepages") if path.contains(&"hugepages") => {
                Some(self.set_hugepages(dir, text))
            }
            (path, _) if is_setting(path, name) => Some(self.setting(dir, name, text)),
            _ => None,
        }
    }

    /// A file that keeps a number that is written to it.
    fn setting(&self, dir: &str, name: &str, text: &str) -> Done {
        let value = number(text)?;
        self.put(&format!("{dir}/{name}"), value);
        Ok(())
    }

    fn boolean(&self, dir: &str, name: &str, text: &str) -> Done {
        // kstrtobool: the first letter decides, and "of" is neither.
        let value = match text.as_bytes() {
            [b'1' | b'y' | b'Y' | b't' | b'T', ..] => 1,
            [b'0' | b'n' | b'N' | b'f' | b'F', ..] => 0,
            [b'o' | b'O', b'n' | b'N', ..] => 1,
            [b'o' | b'O', b'f' | b'F', ..] => 0,
            _ => return Err(Errno::EINVAL),
        };
        self.put(&format!("{dir}/{name}"), value);
        Ok(())
    }

    // The tree, by paths from `/sys` on.

    fn real(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn exists(&self, path: &str) -> bool {
        self.real(path).symlink_metadata().is_ok()
    }

    /// The text of a file without its line end; nothing where there is none.
    fn get(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.real(path)).ok()?;
        Some(text.trim_end_matches('\n').to_owned())
    }

    /// Writes a line, if the file is there or `path` is the stand-in's own.
    fn put(&self, path: &str, value: impl std::fmt::Display) {
        let real = self.real(path);
        if path.starts_with("/.standin") {
            fs::create_dir_all(real.parent().unwrap()).unwrap();
        } else if !real.exists() {
            return;
        }
        fs::write(real, format!("{value}\n")).unwrap();
    }

    /// A fact that the tree notes for the stand-in: `/.standin/BUS/DEVICE/NAME`.
    fn note(&self, bus: &str, device: &str, name: &str) -> Option<String> {
        self.get(&format!("/.standin/{bus}/{device}/{name}"))
    }

    /// Makes a link to an absolute path of the tree.
    fn link(&self, at: &str, target: &str) {
        let real = self.real(at);
        fs::create_dir_all(real.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(super::tree::relative(at, target), &real)
            .unwrap_or_else(|e| panic!("{at}: {e}"));
    }

    fn unlink(&self, at: &str) {
        let _ = fs::remove_file(self.real(at));
    }

    /// Where a link leads, from the root on.
    fn target(&self, link: &str) -> Option<String> {
        let to = fs::read_link(self.real(link)).ok()?;
        let mut parts: Vec<&str> = link.trim_start_matches('/').split('/').collect();
        parts.pop();
        for part in to.to_str().unwrap().split('/') {
            match part {
                ".." => {
                    parts.pop();
                }
                "." => {}
                name => parts.push(name),
            }
        }
        Some(format!("/{}", parts.join("/")))
    }

    /// The name at the end of a link: a driver, a bus, a group.
    fn linked(&self, link: &str) -> Option<String> {
        let target = self.target(link)?;
        Some(target.rsplit('/').next().unwrap().to_owned())
    }

    fn subsystem(&self, dir: &str) -> Option<String> {
        self.linked(&format!("{dir}/subsystem"))
    }

    /// The names in a directory, sorted.
    fn list(&self, dir: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.real(dir)) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn remove_dir(&self, dir: &str) {
        let _ = fs::remove_dir_all(self.real(dir));
    }

    /// The directory of a device on a bus.
    fn device(&self, bus: &str, name: &str) -> Result<String, Errno> {
        self.target(&format!("/sys/bus/{bus}/devices/{name}"))
            .ok_or(Errno::ENODEV)
    }
}

/// `sysfs_streq`: one line end at the end does not count.
fn streq(text: &str) -> &str {
    text.strip_suffix('\n').unwrap_or(text)
}

/// `kstrtoull` with base 0.
fn number(text: &str) -> Result<u64, Errno> {
    let text = streq(text);
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    u64::from_str_radix(digits, radix).map_err(|_| Errno::EINVAL)
}

/// Attributes that only remember a number: the provisioning of VFs.
fn is_setting(path: &[&str], name: &str) -> bool {
    let provisioning = path
        .iter()
        .any(|p| matches!(*p, "prelim_iov" | "iov" | "sriov_admin"))
        || path.starts_with(&["sys", "kernel", "debug", "dri"]);
    const SETTINGS: [&str; 11] = [
        "auto_provisioning",
        "exec_quantum_ms",
        "preempt_timeout_us",
        "ggtt_quota",
        "contexts_quota",
        "doorbells_quota",
        "lmem_quota",
        "ggtt_spare",
        "contexts_spare",
        "doorbells_spare",
        "sched_if_idle",
    ];
    provisioning && SETTINGS.contains(&name)
}

#[cfg(test)]
mod tests;
