//! Whether guests come, or get a supervisor: told by the kernel (inotify), and looked for once a second.

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::dirs::Dirs;
use crate::error::{ExitCode, Report};
use crate::ids::GuestName;

/// Between two looks where nobody tells: a QEMU without supervisor, a folder that is not there yet.
const TICK: Duration = Duration::from_secs(1);

/// What wakes those who look.
pub(super) struct News {
    /// Nothing where the kernel has no more of them: then the looks are all.
    kernel: Option<AsyncFd<OwnedFd>>,
    runtime: PathBuf,
    runtime_watched: bool,
    watched: BTreeSet<GuestName>,
    tick: tokio::time::Interval,
    wake: watch::Sender<u64>,
}

impl News {
    pub(super) fn new(dirs: &Dirs) -> Result<Self, Report> {
        let made = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC);
        let kernel = match made.map_err(std::io::Error::from).and_then(heard_of) {
            Ok(kernel) => Some(kernel),
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => None,
            Err(error) if error.raw_os_error() == Some(nix::libc::EMFILE) => {
                tracing::info!(%error, "no inotify: guests are looked for once a second");
                None
            }
            Err(error) => {
                return Err(Report::new(
                    ExitCode::Failed,
                    format!("cannot watch for guests: {error}"),
                ));
            }
        };
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut news = Self {
            kernel,
            runtime: dirs.runtime.clone(),
            runtime_watched: false,
            watched: BTreeSet::new(),
            tick,
            wake: watch::Sender::new(0),
        };
        news.watch_runtime();
        Ok(news)
    }

    /// For one who looks after one guest.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.wake.subscribe()
    }

    /// Tells of that guest's sockets, too.
    pub(super) fn watch(&mut self, name: &GuestName) {
        if !self.watched.contains(name) && self.add(self.runtime.join(name.as_str())) {
            self.watched.insert(name.clone());
        }
    }

    fn watch_runtime(&mut self) {
        if !self.runtime_watched {
            self.runtime_watched = self.add(self.runtime.clone());
        }
    }

    fn add(&self, path: PathBuf) -> bool {
        let Some(kernel) = &self.kernel else {
            return false;
        };
        let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        // What is not there, or cannot be watched, is looked at.
        inotify::add_watch(kernel.get_ref(), path, flags).is_ok()
    }

    /// Returns when it is worth looking.
    pub(super) async fn next(&mut self) {
        loop {
            let ticked = tokio::select! {
                _ = self.tick.tick() => true,
                worth = heard(self.kernel.as_ref()) => {
                    if !worth {
                        continue;
                    }
                    false
                }
            };
            if ticked {
                // A folder that went takes its watch along; the same name may come back.
                self.watched
                    .retain(|name| self.runtime.join(name.as_str()).exists());
                self.watch_runtime();
            }
            self.wake.send_modify(|count| *count += 1);
            return;
        }
    }
}

#[expect(
    deprecated,
    reason = "its replacement is unsafe for types that may close their descriptor early; OwnedFd does not"
)]
fn heard_of(kernel: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(kernel)
}

/// Whether something came that matters: a guest's folder, a supervisor's socket.
async fn heard(kernel: Option<&AsyncFd<OwnedFd>>) -> bool {
    let Some(kernel) = kernel else {
        return std::future::pending().await;
    };
    let Ok(mut ready) = kernel.readable().await else {
        return std::future::pending().await;
    };
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(kernel.get_ref(), &mut buffer);
    let mut worth = false;
    // Until there is nothing more for now.
    while let Ok(event) = reader.next() {
        let folder = event.events().contains(inotify::ReadFlags::ISDIR);
        let name = event.file_name().map(|name| name.to_bytes());
        // A queue that ran over says nothing of a file.
        worth |= folder || name.is_none_or(|name| name == b"control.sock");
    }
    ready.clear_ready();
    worth
}
