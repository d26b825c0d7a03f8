//! A device leaves: asked for, taken back after a failure, or because the guest let it go by itself.

use std::sync::Arc;
use std::time::Duration;

use mvm_qmp::{Qmp, QmpError};
use serde_json::{Value, json};
use tokio::sync::MutexGuard;
use tokio::time::{Instant, sleep, timeout_at};

use super::book::{Made, Phase, Record};
use super::{Hotplug, HotplugError, Inner, blocking, qom};
use crate::ids::{Id, PciRef};
use crate::machine::Addition;
use crate::ops::Host;
use crate::plan::is_for;
use crate::plan::journal::{self, Entry, Leases};
use crate::qemu::shared_limiter;

/// How often QEMU is asked again about what takes it a moment.
const EVERY: Duration = Duration::from_millis(100);
/// For QEMU to let go of a device's back ends.
const BACK_ENDS: Duration = Duration::from_secs(10);
/// For a device that was only just put in.
const NEW: Duration = Duration::from_secs(30);

impl Hotplug {
    /// Asks the guest for a device and waits until it is gone and given back.
    ///
    /// # Errors
    /// There is none of that name, the guest keeps it, or it cannot be given back.
    pub(crate) async fn detach(
        self: Arc<Self>,
        id: String,
        within: Duration,
    ) -> Result<Value, HotplugError> {
        let mut inner = self.inner().await?;
        let qmp = self.qmp()?;
        let record = self.known(&inner, &id)?;
        // Else the guest was started with it.
        let came = inner.book.find(&id).is_some();
        match record.phase {
            Phase::Coming => return Err(HotplugError::Coming(id)),
            Phase::Stuck | Phase::Away | Phase::Parked => {
                let leaves = Record {
                    parks: false,
                    ..record.clone()
                };
                self.finish(&mut inner, &qmp, leaves).await?;
                return Ok(json!({ "id": record.id }));
            }
            Phase::There | Phase::Leaving => {}
        }
        self.let_go(inner, record.clone(), came, within).await?;
        Ok(json!({ "id": record.id, "waits": self.waiting(&record) }))
    }

    /// Asks the guest for a device that is in it, and waits until it is gone; `came`: it is in the book already.
    pub(super) async fn let_go(
        &self,
        mut inner: MutexGuard<'_, Inner>,
        record: Record,
        came: bool,
        within: Duration,
    ) -> Result<(), HotplugError> {
        let deadline = Instant::now() + within;
        let mut changes = self.changes.subscribe();
        let qmp = self.qmp()?;
        for device in record.devices() {
            inner.refused.remove(device);
        }
        let leaving = Record {
            phase: Phase::Leaving,
            ..record.clone()
        };
        inner.put(&self.run, leaving)?;
        drop(inner);
        let asked = self.ask(&qmp, &record, deadline).await;
        let gone = match asked {
            Ok(()) => {
                // Where it was gone already, no event will tell.
                self.left(&qmp, record.id.as_str()).await;
                self.gone(&record, &mut changes, deadline, within).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = gone {
            let mut inner = self.inner().await?;
            let still = inner.book.find(record.id.as_str());
            if still.is_some_and(|still| still.phase == Phase::Leaving) {
                if came {
                    let stays = Record {
                        parks: false,
                        ..record
                    };
                    inner.put(&self.run, stays)?;
                } else {
                    inner.remove(&self.run, &record)?;
                }
            }
            return Err(error);
        }
        Ok(())
    }

    /// The functions of a device that is gone which are not given back yet: the guest has others of their
    /// IOMMU groups.
    fn waiting(&self, record: &Record) -> Vec<PciRef> {
        let entries = journal::read(&self.run.journal()).unwrap_or_default();
        let theirs = record.addition.host.devices.iter();
        let functions = theirs.filter_map(|device| device.kind.function());
        functions
            .filter(|function| {
                let mut entries = entries.iter();
                entries.any(|entry| entry.undo.lease() == Some(function.key()))
            })
            .collect()
    }

    /// The record of that device, also of one that the guest was started with.
    pub(super) fn known(&self, inner: &Inner, id: &str) -> Result<Record, HotplugError> {
        if let Some(record) = inner.book.find(id) {
            return Ok(record.clone());
        }
        let plan = self.plan()?;
        let record = id
            .parse()
            .ok()
            .and_then(|id| Record::of_start(&id, &plan.machine));
        record.ok_or_else(|| HotplugError::Unknown {
            guest: self.run.name().to_string(),
            id: id.to_owned(),
            known: plan.machine.parts().map(ToString::to_string).collect(),
        })
    }

    /// Asks the guest to let the devices go.
    pub(super) async fn ask(
        &self,
        qmp: &Qmp,
        record: &Record,
        deadline: Instant,
    ) -> Result<(), HotplugError> {
        for device in record.devices() {
            while let Err(error) = qmp.call("device_del", Some(json!({ "id": device }))).await {
                match error {
                    QmpError::Command { class, .. } if class == "DeviceNotFound" => break,
                    QmpError::Command { desc, .. } if desc.contains("process of unplug") => break,
                    QmpError::Command { desc, .. } if desc.contains("guest is busy") => {
                        if Instant::now() >= deadline {
                            return Err(HotplugError::GuestRefused(device.to_owned()));
                        }
                        sleep(EVERY).await;
                    }
                    QmpError::Command { desc, .. } => {
                        return Err(HotplugError::Fixed {
                            id: device.to_owned(),
                            why: desc,
                        });
                    }
                    QmpError::Closed => return Err(self.ended()),
                    other => return Err(other.into()),
                }
            }
        }
        Ok(())
    }

    /// Waits until the record is gone.
    async fn gone(
        &self,
        record: &Record,
        changes: &mut tokio::sync::watch::Receiver<u64>,
        deadline: Instant,
        within: Duration,
    ) -> Result<(), HotplugError> {
        loop {
            let inner = self.inner().await?;
            let id = record.id.to_string();
            match inner.book.find(&id) {
                None => return Ok(()),
                Some(found) if found.phase == Phase::Parked => return Ok(()),
                Some(found) if found.phase == Phase::Stuck => {
                    let what = inner.stuck.iter().find(|(stuck, _)| *stuck == id);
                    return Err(HotplugError::NotGivenBack {
                        id,
                        what: what.map(|(_, what)| what.clone()).unwrap_or_default(),
                    });
                }
                Some(_) => {}
            }
            if record
                .devices()
                .any(|device| inner.refused.contains(device))
            {
                return Err(HotplugError::GuestRefused(id));
            }
            drop(inner);
            if timeout_at(deadline, changes.changed()).await.is_err() {
                return Err(HotplugError::Silent {
                    id,
                    within,
                    held: self.is_held().await,
                    guest: self.run.name().to_string(),
                });
            }
        }
    }

    async fn is_held(&self) -> bool {
        let Ok(qmp) = self.qmp() else {
            return false;
        };
        let status = qmp.call("query-status", None).await;
        status.is_ok_and(|status| status["running"] == false)
    }

    /// QEMU says that a device is gone.
    pub(super) async fn left(&self, qmp: &Qmp, device: &str) {
        let Ok(mut inner) = self.inner().await else {
            return;
        };
        let Ok(record) = self.known(&inner, device) else {
            return;
        };
        let there = match qom::devices(qmp).await {
            Ok(there) => there,
            Err(error) => {
                tracing::debug!(%error, "QEMU does not tell its devices");
                return;
            }
        };
        let stays = matches!(record.phase, Phase::Coming | Phase::Away | Phase::Parked);
        if stays || record.devices().any(|device| there.contains(device)) {
            return;
        }
        let id = record.id.clone();
        match self.finish(&mut inner, qmp, record).await {
            Ok(()) => tracing::info!("`{id}` is detached"),
            Err(error) => tracing::warn!(%error, "`{id}` is detached"),
        }
    }

    /// Takes out what was only just put in, as far as it came.
    pub(super) async fn take_out(
        &self,
        inner: &mut Inner,
        qmp: &Qmp,
        record: Record,
    ) -> Result<(), HotplugError> {
        let deadline = Instant::now() + NEW;
        let leaving = Record {
            phase: Phase::Leaving,
            ..record.clone()
        };
        if !qmp.is_closed() {
            self.ask(qmp, &record, deadline).await?;
            while Instant::now() < deadline {
                let there = qom::devices(qmp).await?;
                if !record.devices().any(|device| there.contains(device)) {
                    return self.finish(inner, qmp, leaving).await;
                }
                sleep(EVERY).await;
            }
            inner.put(&self.run, leaving)?;
            return Err(HotplugError::Silent {
                id: record.id.to_string(),
                within: NEW,
                held: self.is_held().await,
                guest: self.run.name().to_string(),
            });
        }
        self.finish(inner, qmp, leaving).await
    }

    /// The devices are gone: the back ends go, the host gets back what it gave, and others may have it.
    pub(super) async fn finish(
        &self,
        inner: &mut Inner,
        qmp: &Qmp,
        record: Record,
    ) -> Result<(), HotplugError> {
        let mut wrong = Vec::new();
        let back_ends = |made: &&Made| !made.makes.is_device() && !made.makes.is_shared();
        for made in record.made.iter().rev().filter(back_ends) {
            if let Err(error) = remove(qmp, made).await {
                wrong.push(error.to_string());
            }
        }
        // The limits of a group go with its last disk, or the next one would have those instead of its own. QEMU keeps
        // them as long as there is another.
        let disks = record.addition.disks.iter();
        for group in disks.filter_map(|disk| disk.options.throttle.as_ref()?.group.as_ref()) {
            let id = json!({ "id": shared_limiter(group) });
            if let Err(error) = qmp.call("object-del", Some(id)).await {
                tracing::debug!(%error, "the limits of `{group}` stay");
            }
        }
        let machine = self.plan()?.machine;
        // Nobody else is to have what is parked.
        let leases = match record.parks {
            true => Leases::Keep,
            false => Leases::Release,
        };
        let parked = inner.book.devices.iter();
        let parked = parked.filter(|other| leases == Leases::Keep && other.phase == Phase::Parked);
        let leaving: Vec<(Id, Addition)> = std::iter::once(&record)
            .chain(parked)
            .map(|record| (record.id.clone(), record.addition.clone()))
            .collect();
        for (id, _) in &leaving {
            // What was made ready is taken back with the rest.
            inner.ready.remove(id);
        }
        let additions = leaving.iter().map(|(_, addition)| addition);
        let kept = additions.fold(machine.clone(), |kept, addition| kept.without(addition));
        let journal = self.run.journal();
        let host = Host::sharing(self.run.host());
        let back = blocking(move || {
            let chosen = |entry: &Entry| {
                leaving.iter().any(|(id, addition)| match &entry.device {
                    Some(device) => device == id,
                    None => is_for(&entry.undo, addition, &machine),
                })
            };
            let keeps = |function| kept.functions().any(|one| one == function);
            Ok(journal::take_back_entries(
                &host, &journal, chosen, keeps, leases,
            )?)
        });
        match back.await {
            Ok(back) => {
                wrong.extend(back.errors.iter().map(journal::in_words));
                for function in back.held {
                    tracing::info!("{function} is given back with the last of its IOMMU group");
                }
            }
            Err(error) => wrong.push(error.to_string()),
        }
        let done = if wrong.is_empty() && record.parks {
            let parked = Record {
                phase: Phase::Parked,
                ..record
            };
            inner.put(&self.run, parked)
        } else if wrong.is_empty() {
            let mut plan = self.plan()?;
            plan.machine = plan.machine.without(&record.addition);
            self.write_plan(&plan)?;
            inner.remove(&self.run, &record)
        } else {
            let what = wrong.join("; ");
            let id = record.id.to_string();
            inner.stuck.retain(|(stuck, _)| *stuck != id);
            inner.stuck.push((id.clone(), what.clone()));
            let stuck = Record {
                phase: Phase::Stuck,
                ..record
            };
            inner
                .put(&self.run, stuck)
                .and(Err(HotplugError::NotGivenBack { id, what }))
        };
        self.changed();
        done
    }
}

/// Takes a back end away. The device's end of it may need a moment longer than the device.
async fn remove(qmp: &Qmp, made: &Made) -> Result<(), QmpError> {
    let deadline = Instant::now() + BACK_ENDS;
    let (command, key) = made.makes.undone_by();
    loop {
        match qmp.call(command, Some(json!({ key: made.id }))).await {
            Ok(_) => return Ok(()),
            Err(QmpError::Closed) => return Ok(()),
            Err(QmpError::Command { class, desc, .. })
                if class == "DeviceNotFound"
                    || desc.contains("Failed to find node")
                    || desc.contains("not found") =>
            {
                return Ok(());
            }
            Err(QmpError::Command { desc, .. })
                if desc.contains("in use") && Instant::now() < deadline => {}
            Err(error) => return Err(error),
        }
        sleep(EVERY).await;
    }
}
