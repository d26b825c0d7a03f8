//! Devices that come to a running guest and leave it.
//!
//! ```text
//! attach: plan.json says so ─► steps, journalled with the device's name ─► back ends ─► device ─► seen
//! detach: the guest is asked ─► DEVICE_DELETED ─► back ends go ─► the steps are taken back ─► plan.json
//! ```
//!
//! One change at a time, and none is broken off halfway: whoever asked may go away, the change goes on. A
//! guest takes its time to let a device go, and nobody waits for it here: what comes after is done when
//! QEMU tells that it is gone, whether anybody asked or the guest did it by itself. `devices.json` says how
//! far each is, so that the next supervisor can finish what this one began.

mod arrive;
mod book;
mod error;
mod leave;
mod park;
mod qom;
mod reconcile;
mod uevents;
mod usb;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mvm_qmp::{Events, Qmp};
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::time::timeout;

use super::control::Links;
use super::{RunDir, state};
use crate::dirs::Dirs;
use crate::ids::Id;
use crate::plan::{Attachment, Plan};
use book::{Book, Record};
pub(crate) use error::HotplugError;

/// For a change under way when the guest has ended: its steps have limits of their own.
const CLOSE: Duration = Duration::from_secs(120);

/// The guest's devices, as far as they come and go.
pub(crate) struct Hotplug {
    dirs: Dirs,
    run: RunDir,
    links: Arc<OnceLock<Links>>,
    inner: Mutex<Inner>,
    /// Counts what has changed.
    changes: watch::Sender<u64>,
}

struct Inner {
    book: Book,
    /// Devices that the guest did not let go when it was asked last.
    refused: BTreeSet<String>,
    /// What is wrong with those that are stuck.
    stuck: Vec<(String, String)>,
    /// Devices that are parked and ready on the host for the guest to have again.
    ready: BTreeMap<Id, Attachment>,
    closed: bool,
}

impl Hotplug {
    /// The devices of that guest.
    pub(crate) fn new(dirs: &Dirs, run: &RunDir, links: &Arc<OnceLock<Links>>) -> Arc<Self> {
        let book = Book::read(&run.devices()).unwrap_or_else(|error| {
            tracing::warn!(%error, "devices.json is damaged");
            Book::default()
        });
        Arc::new(Self {
            dirs: dirs.clone(),
            run: run.clone(),
            links: Arc::clone(links),
            inner: Mutex::new(Inner {
                book,
                refused: BTreeSet::new(),
                stuck: Vec::new(),
                ready: BTreeMap::new(),
                closed: false,
            }),
            changes: watch::Sender::new(0),
        })
    }

    /// Follows what QEMU tells about devices, to its end. Where another supervisor died, what it left half
    /// done is finished first, and then `after` is begun.
    pub(crate) async fn watch(
        self: Arc<Self>,
        qmp: Qmp,
        mut events: Events,
        adopted: Option<impl Future<Output = ()> + Send + 'static>,
    ) {
        if let Some(after) = adopted {
            self.reconcile(&qmp).await;
            tokio::spawn(after);
        }
        while let Some(event) = events.next().await {
            let Some(device) = event.data["device"].as_str() else {
                continue;
            };
            match event.name.as_str() {
                "DEVICE_DELETED" => self.left(&qmp, device).await,
                "DEVICE_UNPLUG_GUEST_ERROR" => {
                    self.inner.lock().await.refused.insert(device.to_owned());
                    self.changed();
                }
                _ => {}
            }
        }
    }

    /// Waits for a change that is under way, and lets no other begin: the guest has ended.
    pub(crate) async fn close(&self) {
        match timeout(CLOSE, self.inner.lock()).await {
            Ok(mut inner) => inner.closed = true,
            Err(_) => tracing::warn!("a device is still on its way in or out"),
        }
        self.changed();
    }

    async fn inner(&self) -> Result<MutexGuard<'_, Inner>, HotplugError> {
        let inner = self.inner.lock().await;
        if inner.closed {
            return Err(self.ended());
        }
        Ok(inner)
    }

    fn ended(&self) -> HotplugError {
        HotplugError::Ended(self.run.name().to_string())
    }

    /// The guest's paths.
    pub(crate) fn run(&self) -> &RunDir {
        &self.run
    }

    fn qmp(&self) -> Result<Qmp, HotplugError> {
        let links = self.links.get().ok_or_else(|| self.ended())?;
        Ok(links.qmp.clone())
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn plan(&self) -> Result<Plan, HotplugError> {
        let plan = state::read(&self.run.plan())?;
        plan.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound).into())
    }

    fn write_plan(&self, plan: &Plan) -> Result<(), HotplugError> {
        Ok(state::write(&self.run.plan(), plan)?)
    }
}

impl Inner {
    /// Writes it down before anything is done about it.
    fn put(&mut self, run: &RunDir, record: Record) -> Result<(), HotplugError> {
        self.book.put(record);
        Ok(state::write(&run.devices(), &self.book)?)
    }

    fn remove(&mut self, run: &RunDir, record: &Record) -> Result<(), HotplugError> {
        self.book.remove(&record.id);
        self.stuck.retain(|(id, _)| record.id.as_str() != id);
        Ok(state::write(&run.devices(), &self.book)?)
    }
}

/// Work that waits for the host, off the supervisor's thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HotplugError> + Send + 'static,
) -> Result<T, HotplugError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(std::io::Error::other(error).into()),
    }
}
