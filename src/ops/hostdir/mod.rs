//! What all guests of a host share, whoever started them: who has which device, what was changed once
//! for several, and what is still under way. One directory, the same for root and users.
//!
//! | | |
//! |---|---|
//! | `lock` | held for one operation at a time by whoever changes what is below, or the sysfs state that guests share; its owner's alone |
//! | `leases/KEY` | a device that a guest has: [`Lease`] |
//! | `shared/KEY` | a change that several guests use: [`Shared`] |
//! | `pools/KEY` | huge pages that were added to a pool, and for whom: [`Pool`] |
//! | `bound/KEY` | a function that `mvm bind` took: [`ByHand`] |
//! | `busy/KEY` | locked by a helper process that is at work on a device |
//!
//! A record is replaced as a whole and synced before the change that it is about. Leases may be
//! anybody's, as that folder is open to all: what they say is only carried out where they belong to
//! root or to this user. All else is the directory's owner's, and is used only where that is root or this
//! user.

pub(crate) mod busy;
mod damaged;
mod lease;
mod pool;
mod safe;
mod shared;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::libc;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::device_error::DeviceError;
use super::{OpsError, lock, moment};
pub use damaged::Damaged;
pub use lease::{ByHand, Lease};
pub use pool::{Change, Claim, Pool};
pub use shared::{Last, Shared};

/// For others to be done with their operation: longer than the longest, which is a function that is given
/// back with each of its five writes, and the module's loading, all but too slow.
const LOCK_WAIT: Duration = Duration::from_secs(480);

/// The directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDir {
    path: PathBuf,
}

/// The right to change what guests share, until it is dropped.
#[derive(Debug)]
pub struct HostLock {
    /// None for an ordinary user in root's directory.
    lock: Option<File>,
}

/// Whether the guest of a run-time directory is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alive {
    /// Its lock is held, or may not be looked at.
    Yes,
    /// It is gone.
    No,
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<T> {
    /// The file's name.
    pub key: String,
    /// What it says.
    pub content: T,
    /// Whether it belongs to root or to this user.
    pub trusted: bool,
    /// The user whose file it is.
    pub uid: u32,
}

impl HostDir {
    /// The directory at that path. Nothing is made by naming it.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the lock, and makes the directory where it is missing. An ordinary user in root's directory
    /// gets none, as whoever can open a lock can keep root from it: what needs it he cannot change
    /// anyhow, and leases are made so that it does not count.
    ///
    /// # Errors
    /// It cannot be made or relied upon, or others take too long.
    pub fn lock(&self) -> Result<HostLock, DeviceError> {
        let ours = self.make()?;
        let path = self.path.join("lock");
        let end = Instant::now() + LOCK_WAIT;
        loop {
            let file = match open_or_create(&path, 0o600) {
                Err(error) if !ours && error.kind() == io::ErrorKind::PermissionDenied => {
                    return Ok(HostLock { lock: None });
                }
                opened => opened.map_err(DeviceError::host_dir(&path))?,
            };
            let meta = file.metadata().map_err(DeviceError::host_dir(&path))?;
            if ours && !(meta.is_file() && safe::is_ours(&meta)) {
                // Of a time when the directory was open to all.
                fs::remove_file(&path).map_err(DeviceError::host_dir(&path))?;
                continue;
            }
            if ours && meta.mode() & 0o077 != 0 {
                file.set_permissions(fs::Permissions::from_mode(0o600))
                    .map_err(DeviceError::host_dir(&path))?;
            }
            while !lock::try_file(&file).map_err(DeviceError::host_dir(&path))? {
                if Instant::now() >= end {
                    return Err(DeviceError::HostBusy {
                        pid: lock::holder(&path),
                        seconds: LOCK_WAIT.as_secs(),
                    });
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            // Somebody may have removed it, and others may lock a new one.
            if !lock::is_at(&file, &path) {
                continue;
            }
            // Who has it is told to those who wait in vain: not worth an error.
            let _ = note(&file, &format!("{}\n", std::process::id()));
            return Ok(HostLock { lock: Some(file) });
        }
    }

    /// Removes what processes that were killed left half written, and locks that nobody holds.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn tidy(&self) -> Result<(), DeviceError> {
        if !self.path.exists() {
            return Ok(());
        }
        // Whoever writes a record has this lock: a half written one is a dead process's.
        let lock = self.lock()?;
        for folder in ["leases", "shared", "bound", "pools"] {
            let entries = fs::read_dir(self.path.join(folder)).into_iter().flatten();
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                // Another user's stays: he may be writing it without the lock.
                let ours = |meta: fs::Metadata| meta.is_file() && safe::is_ours(&meta);
                let dead = lock.lock.is_some() || !is_running(&name);
                if name.starts_with('.') && dead && entry.metadata().is_ok_and(ours) {
                    // What cannot be removed harms nobody.
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
        busy::tidy(self);
        Ok(())
    }

    fn records<T: DeserializeOwned>(&self, folder: &str) -> Result<Vec<Record<T>>, DeviceError> {
        if !self.is_safe(folder)? {
            return Ok(Vec::new());
        }
        let dir = self.path.join(folder);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(DeviceError::host_dir(&dir)(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(DeviceError::host_dir(&dir))?;
            let Ok(key) = entry.file_name().into_string() else {
                tracing::warn!(path = %entry.path().display(), "left out: no name of a record");
                continue;
            };
            if key.starts_with('.') {
                continue;
            }
            match self.record(folder, &key) {
                Ok(record) => found.extend(record),
                // Anybody can put anything there. A damaged lease is told where somebody wants its device, by
                // `mvm devices`, and when it is removed.
                Err(error) if folder == lease::LEASES => tracing::debug!("left out: {error}"),
                Err(error) => {
                    let cause = std::error::Error::source(&error);
                    let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
                    tracing::warn!("left out: {error}{cause}");
                }
            }
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    fn record<T: DeserializeOwned>(
        &self,
        folder: &str,
        key: &str,
    ) -> Result<Option<Record<T>>, DeviceError> {
        if !self.is_safe(folder)? {
            return Ok(None);
        }
        let path = self.path.join(folder).join(key);
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path);
        let file = match file {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DeviceError::host_dir(&path)(error)),
        };
        let meta = file.metadata().map_err(DeviceError::host_dir(&path))?;
        if !meta.is_file() {
            let odd = io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file");
            return Err(DeviceError::host_dir(&path)(odd));
        }
        let text = io::read_to_string(io::Read::take(file, 1 << 20))
            .map_err(DeviceError::host_dir(&path))?;
        let content = serde_json::from_str(&text).map_err(|source| DeviceError::Damaged {
            path: path.clone(),
            source,
        })?;
        let us = nix::unistd::Uid::effective().as_raw();
        Ok(Some(Record {
            key: key.to_owned(),
            content,
            trusted: meta.uid() == us || meta.uid() == 0,
            uid: meta.uid(),
        }))
    }

    fn write(&self, folder: &str, key: &str, content: &impl Serialize) -> Result<(), DeviceError> {
        self.put(folder, key, content, |from, to| fs::rename(from, to))
    }

    /// Writes a record where there is none; whether it did.
    fn write_new(
        &self,
        folder: &str,
        key: &str,
        content: &impl Serialize,
    ) -> Result<bool, DeviceError> {
        let done = self.put(folder, key, content, |from, to| {
            let linked = fs::hard_link(from, to);
            fs::remove_file(from)?;
            linked
        });
        match done {
            Err(DeviceError::HostDir { source, .. })
                if source.kind() == io::ErrorKind::AlreadyExists =>
            {
                Ok(false)
            }
            done => done.map(|()| true),
        }
    }

    fn put(
        &self,
        folder: &str,
        key: &str,
        content: &impl Serialize,
        into_place: impl Fn(&Path, &Path) -> io::Result<()>,
    ) -> Result<(), DeviceError> {
        let dir = self.path.join(folder);
        let path = dir.join(key);
        let temporary = dir.join(format!(".{key}.{}", std::process::id()));
        let write = || -> io::Result<()> {
            let text = serde_json::to_vec(content)?;
            let make = || {
                let mut options = OpenOptions::new();
                options.write(true).create_new(true).mode(0o644);
                options.open(&temporary)
            };
            let mut file = match make() {
                // Of a process that had our number and died.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    fs::remove_file(&temporary)?;
                    make()?
                }
                made => made?,
            };
            give_mode(&file, 0o644)?;
            file.write_all(&text)?;
            file.sync_all()?;
            into_place(&temporary, &path)?;
            File::open(&dir)?.sync_all()
        };
        moment::pass();
        write().map_err(DeviceError::host_dir(&path))?;
        moment::pass();
        Ok(())
    }

    fn remove(&self, folder: &str, key: &str) -> Result<(), DeviceError> {
        let dir = self.path.join(folder);
        let path = dir.join(key);
        moment::pass();
        let removed = match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done.and_then(|()| File::open(&dir)?.sync_all()),
        };
        removed.map_err(DeviceError::host_dir(&path))?;
        moment::pass();
        Ok(())
    }
}

/// Whether the guest of that run-time directory is there: its `lock` is held as long as its supervisor
/// or its QEMU lives. One that we may not look at counts as there.
pub fn alive(run_dir: &Path) -> Alive {
    match lock::is_held(&run_dir.join("lock")) {
        Ok(false) => Alive::No,
        Ok(true) => Alive::Yes,
        Err(OpsError::Io { source, .. })
            if matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Alive::No
        }
        Err(_) => Alive::Yes,
    }
}

/// Opens a file to lock it. In a directory that is open to all, the kernel may refuse root to "make" a
/// file that is there and is somebody else's (`fs.protected_regular`), so it is opened first.
fn open_or_create(path: &Path, mode: u32) -> io::Result<File> {
    for _ in 0..8 {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => return done,
        }
        match options.create_new(true).mode(mode).open(path) {
            Ok(file) => {
                give_mode(&file, mode)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// A new file's mode, whatever the mask of modes took of it.
fn give_mode(file: &File, mode: u32) -> io::Result<()> {
    if file.metadata()?.mode() & 0o7777 == mode {
        return Ok(());
    }
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// What a lock's file is to say.
fn note(file: &File, text: &str) -> io::Result<()> {
    if file.metadata()?.len() > 0 {
        file.set_len(0)?;
    }
    let mut file = file;
    file.write_all(text.as_bytes())
}

/// Whether the process that a half written record's name names is there.
fn is_running(name: &str) -> bool {
    let pid = name.rsplit('.').next().unwrap_or_default();
    pid.parse::<u32>()
        .is_ok_and(|pid| Path::new("/proc").join(pid.to_string()).exists())
}

fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// Seconds since 1970.
fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The descriptor of the lock of whoever works on a device.
pub(crate) type BusyLock = OwnedFd;
