//! Devices that are out of the guest while it sleeps.
//!
//! A parked device is the host's again, its virtual functions gone, and stays the guest's for everybody else:
//! its lease is kept, and `devices.json` says that it comes back.

use std::sync::Arc;
use std::time::Duration;

use mvm_qmp::Qmp;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::super::inside::mounts::Mount;
use super::super::state;
use super::book::{Phase, Record};
use super::{Hotplug, HotplugError, Inner, blocking};
use crate::host::links::LinkFacts;
use crate::ids::Id;
use crate::ops::Host;
use crate::plan::Attachment;
use crate::plan::journal::{self, Entry, Leases};

impl Hotplug {
    /// The devices that leave before the guest sleeps, as far as they are in it.
    pub(crate) async fn to_park(&self) -> Result<Vec<Id>, HotplugError> {
        let inner = self.inner().await?;
        let machine = self.plan()?.machine;
        let marked = machine.host_devices.iter().filter(|device| device.park);
        Ok(marked
            .map(|device| device.id.clone())
            .filter(|id| {
                let known = inner.book.find(id.as_str());
                known.is_none_or(|record| record.phase != Phase::Parked)
            })
            .collect())
    }

    /// Whether anything is to come back to the guest.
    pub(crate) async fn has_parked(&self) -> bool {
        let Ok(inner) = self.inner().await else {
            return false;
        };
        let mut devices = inner.book.devices.iter();
        !inner.book.mounts.is_empty()
            || devices.any(|record| record.parks && record.phase != Phase::Leaving)
    }

    /// Takes a device out of the guest until it has woken.
    ///
    /// # Errors
    /// The guest keeps it, or the host does not get it back: then it is where it was, as far as possible.
    pub(crate) async fn park(
        self: Arc<Self>,
        id: &Id,
        within: Duration,
    ) -> Result<(), HotplugError> {
        let inner = self.inner().await?;
        let record = self.known(&inner, id.as_str())?;
        let came = inner.book.find(id.as_str()).is_some();
        match record.phase {
            Phase::There => {}
            Phase::Parked => return Ok(()),
            // It has left the guest, and the host did not get it back.
            Phase::Stuck if record.parks => {
                let mut inner = inner;
                return self.finish(&mut inner, &self.qmp()?, record).await;
            }
            _ => return Err(HotplugError::Coming(id.to_string())),
        }
        let whole = self.plan()?.machine.part_to_return(id);
        let parks = Record {
            parks: true,
            addition: whole.unwrap_or_else(|| record.addition.clone()),
            ..record
        };
        self.let_go(inner, parks, came, within).await
    }

    /// Waits until no device is on its way out to be parked, which another supervisor has asked for. One that the
    /// guest keeps so long stays in it, and is given back should it still leave.
    pub(crate) async fn parking_ends(&self, within: Duration) {
        let deadline = Instant::now() + within;
        let mut changes = self.changes.subscribe();
        loop {
            let Ok(mut inner) = self.inner().await else {
                return;
            };
            let leaves = |record: &&Record| record.parks && record.phase == Phase::Leaving;
            let late: Vec<Record> = inner.book.devices.iter().filter(leaves).cloned().collect();
            if late.is_empty() {
                return;
            }
            if Instant::now() >= deadline {
                for record in late {
                    let stays = Record {
                        phase: Phase::There,
                        parks: false,
                        ..record
                    };
                    if let Err(error) = inner.put(&self.run, stays) {
                        tracing::warn!(%error, "cannot write devices.json");
                    }
                }
                // What was mounted from it could go away under its file system.
                inner.book.mounts.clear();
                if let Err(error) = state::write(&self.run.devices(), &inner.book) {
                    tracing::warn!(%error, "cannot write devices.json");
                }
                return;
            }
            drop(inner);
            // What comes first ends the wait.
            let _ = timeout_at(deadline, changes.changed()).await;
        }
    }

    /// Notes what was mounted from devices that are about to be parked.
    pub(crate) async fn note_mounts(&self, mounts: Vec<Mount>) -> Result<(), HotplugError> {
        let mut inner = self.inner().await?;
        inner.book.mounts = mounts;
        Ok(state::write(&self.run.devices(), &inner.book)?)
    }

    /// What was mounted.
    pub(crate) async fn mounts(&self) -> Vec<Mount> {
        let inner = self.inner().await;
        inner.map_or_else(|_| Vec::new(), |inner| inner.book.mounts.clone())
    }

    /// Makes the host's side of parked devices as the guest needs it. What fails is told when it comes back.
    pub(crate) async fn ready_parked(&self) {
        let Ok(mut inner) = self.inner().await else {
            return;
        };
        let ids: Vec<Id> = parked(&inner).map(|record| record.id.clone()).collect();
        for id in ids {
            if inner.ready.contains_key(&id) {
                continue;
            }
            match self.ready_one(&inner, &id).await {
                Ok(Some(attachment)) => {
                    inner.ready.insert(id, attachment);
                }
                Ok(None) => {}
                Err(error) => tracing::info!(%error, "`{id}` is not ready for the guest"),
            }
        }
    }

    async fn ready_one(&self, inner: &Inner, id: &Id) -> Result<Option<Attachment>, HotplugError> {
        let Some(mut attachment) = self.again(inner, id)? else {
            return Ok(None);
        };
        self.undo_leftovers(inner, id).await?;
        let program = self.plan()?.command.program;
        self.prepare(&mut attachment, &program).await?;
        Ok(Some(attachment))
    }

    /// How a parked device comes to the guest.
    fn again(&self, inner: &Inner, id: &Id) -> Result<Option<Attachment>, HotplugError> {
        let Some(record) = inner.book.find(id.as_str()) else {
            return Ok(None);
        };
        let machine = self.plan()?.machine.without(&record.addition);
        // It has neither taps nor disks.
        Ok(Attachment::new(
            record.addition.clone(),
            &machine,
            &LinkFacts::default(),
        ))
    }

    /// What another supervisor made ready and did not come to use.
    async fn undo_leftovers(&self, inner: &Inner, id: &Id) -> Result<(), HotplugError> {
        let (journal, id) = (self.run.journal(), id.clone());
        let host = Host::sharing(self.run.host());
        // Others of an IOMMU group are the guest's all the while.
        let machine = self.plan()?.machine;
        let kept = parked(inner).fold(machine, |kept, record| kept.without(&record.addition));
        let back = blocking(move || {
            let chosen = |entry: &Entry| entry.device.as_ref() == Some(&id);
            let keeps = |function| kept.functions().any(|one| one == function);
            Ok(journal::take_back_entries(
                &host,
                &journal,
                chosen,
                keeps,
                Leases::Keep,
            )?)
        });
        for error in back.await?.errors {
            tracing::warn!(%error, "left from a supervisor that is gone");
        }
        Ok(())
    }

    /// Gives the guest its parked devices again. Whether any came, and what did not, and why: it stays parked.
    pub(crate) async fn unpark(self: &Arc<Self>) -> (bool, Vec<(Id, HotplugError)>) {
        self.ready_parked().await;
        let mut came = false;
        let Ok(mut inner) = self.inner().await else {
            return (came, Vec::new());
        };
        let mut failed = Vec::new();
        // What is neither here nor there is given back first.
        let halfway =
            |record: &&Record| record.parks && matches!(record.phase, Phase::Stuck | Phase::Coming);
        let halfway: Vec<Record> = inner.book.devices.iter().filter(halfway).cloned().collect();
        for record in halfway {
            let id = record.id.clone();
            let done = match self.qmp() {
                Ok(qmp) => self.take_out(&mut inner, &qmp, record).await,
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                failed.push((id, error));
            }
        }
        let ids: Vec<Id> = parked(&inner).map(|record| record.id.clone()).collect();
        for id in ids {
            let attachment = match inner.ready.get(&id) {
                Some(ready) => Ok(Some(ready.clone())),
                // It fails again, and this time says why.
                None => self.ready_one(&inner, &id).await,
            };
            let done = match attachment {
                Ok(Some(attachment)) => {
                    inner.ready.insert(id.clone(), attachment.clone());
                    self.attach_now(&mut inner, attachment).await.map(drop)
                }
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            match done {
                Ok(()) => {
                    came = true;
                    tracing::info!("`{id}` is back in the guest");
                }
                Err(error) => failed.push((id, error)),
            }
        }
        (came, failed)
    }

    /// Where devices are in the guest, as it knows them: their PCI addresses.
    pub(crate) async fn guest_addresses(&self, ids: &[Id]) -> Result<Vec<String>, HotplugError> {
        let inner = self.inner().await?;
        let mut wanted: Vec<String> = Vec::new();
        for id in ids {
            let record = self.known(&inner, id.as_str())?;
            wanted.extend(record.devices().map(ToOwned::to_owned));
        }
        drop(inner);
        let found = addresses(&self.qmp()?, &wanted).await?;
        if found.len() == wanted.len() {
            return Ok(found);
        }
        Err(HotplugError::NotThere(wanted.join("`, `")))
    }
}

fn parked(inner: &Inner) -> impl Iterator<Item = &Record> {
    let records = inner.book.devices.iter();
    records.filter(|record| record.phase == Phase::Parked)
}

/// The PCI addresses of devices in the guest, as it has numbered its buses.
async fn addresses(qmp: &Qmp, ids: &[String]) -> Result<Vec<String>, HotplugError> {
    let buses = qmp.call("query-pci", None).await?;
    let mut found = Vec::new();
    for bus in buses.as_array().into_iter().flatten() {
        on_bus(bus, ids, &mut found);
    }
    Ok(found)
}

fn on_bus(bus: &Value, ids: &[String], found: &mut Vec<String>) {
    for device in bus["devices"].as_array().into_iter().flatten() {
        let id = device["qdev_id"].as_str().unwrap_or_default();
        if ids.iter().any(|wanted| wanted == id) {
            let number = |key: &str| device[key].as_u64().unwrap_or_default();
            let (bus, slot, function) = (number("bus"), number("slot"), number("function"));
            found.push(format!("0000:{bus:02x}:{slot:02x}.{function:x}"));
        }
        on_bus(&device["pci_bridge"], ids, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_device_behind_a_port_is_found_where_the_guest_sees_it() {
        let device = |id: &str, bus: u8, slot: u8| json!({ "qdev_id": id, "bus": bus, "slot": slot, "function": 0 });
        let mut port = device("mvm-port-3", 0, 29);
        port["pci_bridge"] = json!({ "bus": {}, "devices": [device("vf", 3, 0)] });
        let bus = json!({ "bus": 0, "devices": [device("lan", 0, 12), port] });
        let mut found = Vec::new();
        on_bus(&bus, &["vf".to_owned()], &mut found);
        assert_eq!(found, ["0000:03:00.0"]);
    }
}
