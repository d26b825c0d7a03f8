//! Reading and writing the files of devices: each write is compared first and verified after, and what
//! can hang does so in a process of its own.

use std::fmt::Debug;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::causes;
use super::device_error::DeviceError;
use super::helper::{self, Access};
use super::hostdir::{BusyLock, HostDir, busy};
use super::moment;

/// For one write. Removing many virtual functions takes tens of seconds.
const WRITE: Duration = Duration::from_secs(60);
/// For one read.
const READ: Duration = Duration::from_secs(10);
/// For an operation that an earlier mvm left behind.
const BUSY: Duration = Duration::from_secs(30);

/// Who carries out accesses that can hang: the kernel, in a process of its own, or a stand-in.
pub trait Writer: Debug + Send + Sync {
    /// Writes all of it in one call. `busy` is a lock that is to be held as long as it is under way.
    ///
    /// # Errors
    /// What the kernel says; [`io::ErrorKind::TimedOut`] when it is still under way.
    fn write(
        &self,
        path: &Path,
        text: &[u8],
        busy: BorrowedFd<'_>,
        limit: Duration,
    ) -> io::Result<()>;

    /// Reads a small file.
    ///
    /// # Errors
    /// As for writing.
    fn read(&self, path: &Path, busy: BorrowedFd<'_>, limit: Duration) -> io::Result<Vec<u8>>;

    /// Sends a message to the kernel's routing netlink; the first datagram of its answer.
    ///
    /// # Errors
    /// As for writing.
    fn netlink(&self, message: &[u8], busy: BorrowedFd<'_>, limit: Duration)
    -> io::Result<Vec<u8>>;
}

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
struct Kernel;

impl Writer for Kernel {
    fn write(
        &self,
        path: &Path,
        text: &[u8],
        busy: BorrowedFd<'_>,
        limit: Duration,
    ) -> io::Result<()> {
        helper::run(path, Access::Write(text), busy, limit).map(drop)
    }

    fn read(&self, path: &Path, busy: BorrowedFd<'_>, limit: Duration) -> io::Result<Vec<u8>> {
        helper::run(path, Access::Read, busy, limit)
    }

    fn netlink(
        &self,
        message: &[u8],
        busy: BorrowedFd<'_>,
        limit: Duration,
    ) -> io::Result<Vec<u8>> {
        helper::run(Path::new(""), Access::Netlink(message), busy, limit)
    }
}

/// The places of a host: where its files are, and who writes to them.
#[derive(Debug, Clone)]
pub struct Place {
    /// What stands for `/sys`.
    pub sys: PathBuf,
    /// What stands for `/proc`.
    pub proc: PathBuf,
    /// What stands for `/dev`.
    pub dev: PathBuf,
    /// What guests share.
    pub host: HostDir,
    writer: Arc<dyn Writer>,
}

impl Place {
    /// This host; `MVM_SYSFS` puts a recorded tree in its place.
    pub fn new(host: &Path) -> Self {
        #[cfg(test)]
        if let Some(place) = super::standin::place(host) {
            return place;
        }
        let sys = std::env::var_os("MVM_SYSFS")
            .filter(|path| !path.is_empty())
            .map(PathBuf::from);
        Self {
            sys: sys.unwrap_or_else(|| PathBuf::from("/sys")),
            proc: PathBuf::from("/proc"),
            dev: PathBuf::from("/dev"),
            host: HostDir::new(host),
            writer: Arc::new(Kernel),
        }
    }

    /// A host that is a tree of files below `root`, with a stand-in for its kernel.
    pub fn stand_in(root: &Path, host: &Path, writer: Arc<dyn Writer>) -> Self {
        Self {
            sys: root.join("sys"),
            proc: root.join("proc"),
            dev: root.join("dev"),
            host: HostDir::new(host),
            writer,
        }
    }

    /// Whether this is the host that this process runs on.
    pub fn is_real(&self) -> bool {
        self.sys == Path::new("/sys")
    }

    /// The full path of one relative to `/sys`.
    pub fn path(&self, rel: impl AsRef<Path>) -> PathBuf {
        self.sys.join(rel)
    }

    /// Whether it is there; links are followed.
    pub fn exists(&self, rel: impl AsRef<Path>) -> bool {
        self.path(rel).exists()
    }

    /// The name of what a link points to: a device's driver, its group.
    pub fn link_name(&self, rel: impl AsRef<Path>) -> Option<String> {
        let target = std::fs::read_link(self.path(rel)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    /// The names in a directory, sorted; none where it is not there.
    pub fn list(&self, rel: impl AsRef<Path>) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(rel)).into_iter().flatten();
        let mut names: Vec<String> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// A file that the kernel reads without taking a device's lock, without the white space around it.
    pub fn read(&self, rel: impl AsRef<Path>) -> Option<String> {
        let text = std::fs::read_to_string(self.path(rel)).ok()?;
        Some(text.trim().to_owned())
    }

    /// A number in such a file.
    pub fn number<T: std::str::FromStr>(&self, rel: impl AsRef<Path>) -> Option<T> {
        self.read(rel)?.parse().ok()
    }

    /// A device that other guests or processes may be at.
    pub fn device(&self, key: impl Into<String>) -> Device<'_> {
        Device {
            place: self,
            key: key.into(),
        }
    }
}

/// A name that is to be a part of a path below `/sys`.
///
/// # Errors
/// It is none: it would lead elsewhere.
pub(crate) fn plain(name: &str) -> Result<(), DeviceError> {
    let bad = matches!(name, "" | "." | "..") || name.contains(['/', '\0', '\n']);
    if bad {
        return Err(DeviceError::BadName {
            name: name.to_owned(),
        });
    }
    Ok(())
}

/// One device, on which one operation is done at a time, whoever does it.
#[derive(Debug)]
pub struct Device<'a> {
    place: &'a Place,
    key: String,
}

impl Device<'_> {
    fn busy(&self, what: &str, limit: Duration) -> Result<BusyLock, DeviceError> {
        busy::take(&self.place.host, &self.key, what, limit)
    }

    /// Waits until nothing is under way on it that an earlier mvm left behind.
    ///
    /// # Errors
    /// It is stuck.
    pub fn wait_until_quiet(&self) -> Result<(), DeviceError> {
        let lock = self.busy("look", BUSY)?;
        self.quiet(lock);
        Ok(())
    }

    /// Gives the lock up, its file first.
    fn quiet(&self, lock: BusyLock) {
        busy::done(&self.place.host, &self.key);
        drop(lock);
    }

    /// A file that the kernel may read under the device's lock; `None` where there is no such file.
    ///
    /// # Errors
    /// It cannot be read, or the device is stuck.
    pub fn read(&self, rel: impl AsRef<Path>) -> Result<Option<String>, DeviceError> {
        let path = self.place.path(rel);
        if !path.exists() {
            return Ok(None);
        }
        let lock = self.busy(&format!("reading {}", path.display()), BUSY)?;
        let done = self.place.writer.read(&path, lock.as_fd(), READ);
        match done {
            Ok(text) => {
                self.quiet(lock);
                Ok(Some(String::from_utf8_lossy(&text).trim().to_owned()))
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(DeviceError::Stuck {
                text: "nothing".to_owned(),
                path,
                seconds: READ.as_secs(),
            }),
            Err(error) => {
                self.quiet(lock);
                match error.kind() {
                    io::ErrorKind::NotFound => Ok(None),
                    _ => Err(DeviceError::read(&path)(error)),
                }
            }
        }
    }

    /// Writes a text, whatever is there: for files that are commands.
    ///
    /// # Errors
    /// The kernel refuses, with what that means; or it is not done in time.
    pub fn command(&self, rel: impl AsRef<Path>, text: &str) -> Result<(), DeviceError> {
        let path = self.place.path(rel);
        let shown = text.trim().to_owned();
        let lock = self.busy(&format!("writing `{shown}` to {}", path.display()), BUSY)?;
        moment::pass();
        let done = self
            .place
            .writer
            .write(&path, text.as_bytes(), lock.as_fd(), WRITE);
        moment::pass();
        match done {
            Ok(()) => {
                self.quiet(lock);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(DeviceError::Stuck {
                text: shown,
                path,
                seconds: WRITE.as_secs(),
            }),
            Err(source) => {
                self.quiet(lock);
                let (cause, hint) = causes::of_write(&path, &shown, &source);
                Err(DeviceError::Write {
                    text: shown,
                    path,
                    cause,
                    hint,
                    source,
                })
            }
        }
    }

    /// Asks the kernel's routing netlink something about the device, or tells it.
    ///
    /// # Errors
    /// It cannot be asked; what it answers is not looked at. Or it is not done in time.
    pub fn netlink(&self, what: &str, message: &[u8]) -> Result<Vec<u8>, DeviceError> {
        let lock = self.busy(what, BUSY)?;
        moment::pass();
        let done = self.place.writer.netlink(message, lock.as_fd(), WRITE);
        moment::pass();
        let path = PathBuf::from("netlink");
        match done {
            Ok(answer) => {
                self.quiet(lock);
                Ok(answer)
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(DeviceError::Stuck {
                text: what.to_owned(),
                path,
                seconds: WRITE.as_secs(),
            }),
            Err(source) => {
                self.quiet(lock);
                Err(DeviceError::Read { path, source })
            }
        }
    }

    /// Makes a file hold a text: compared before, verified after. Whether anything was written.
    ///
    /// # Errors
    /// As [`Self::command`], or it does not read back.
    pub fn set(&self, rel: impl AsRef<Path>, text: &str) -> Result<bool, DeviceError> {
        let rel = rel.as_ref();
        if self.read(rel)?.as_deref() == Some(text) {
            return Ok(false);
        }
        self.command(rel, &format!("{text}\n"))?;
        let now = self.read(rel)?;
        if now.as_deref() == Some(text) {
            return Ok(true);
        }
        let path = self.place.path(rel);
        Err(DeviceError::Write {
            text: text.to_owned(),
            cause: Some(format!(
                "it holds `{}` afterwards",
                now.as_deref().unwrap_or_default()
            )),
            hint: None,
            source: io::Error::other("the kernel took it without effect"),
            path,
        })
    }
}
