//! What a dead supervisor left half done.

use mvm_qmp::Qmp;

use super::book::{Phase, Record};
use super::{Hotplug, HotplugError, Inner, qom};

impl Hotplug {
    /// Compares what is written down with what QEMU has, and finishes what was begun.
    pub(super) async fn reconcile(&self, qmp: &Qmp) {
        let Ok(mut inner) = self.inner().await else {
            return;
        };
        if let Err(error) = self.compare(&mut inner, qmp).await {
            tracing::warn!(%error, "the guest's devices may not be those that are written down");
        }
    }

    async fn compare(&self, inner: &mut Inner, qmp: &Qmp) -> Result<(), HotplugError> {
        let there = qom::devices(qmp).await?;
        let plan = self.plan()?;
        let start = plan
            .machine
            .parts()
            .filter(|id| inner.book.find(id.as_str()).is_none())
            .filter_map(|id| Record::of_start(id, &plan.machine));
        let records: Vec<Record> = inner.book.devices.iter().cloned().chain(start).collect();
        for record in records {
            let here = record.devices().filter(|id| there.contains(*id)).count();
            let all = record.devices().count();
            let id = record.id.clone();
            let settled = match record.phase {
                // All of it is in: what was still to be done was to say so.
                Phase::Coming if here == all => self.confirm(inner, record),
                Phase::Coming => self.take_out(inner, qmp, record).await,
                Phase::Away | Phase::Parked => Ok(()),
                _ if here == 0 => self.finish(inner, qmp, record).await,
                _ => Ok(()),
            };
            if let Err(error) = settled {
                tracing::warn!(%error, "`{id}` was on its way when the supervisor died");
            }
        }
        Ok(())
    }

    fn confirm(&self, inner: &mut Inner, record: Record) -> Result<(), HotplugError> {
        let mut plan = self.plan()?;
        if plan.machine.part(&record.id).is_none() {
            plan.machine = plan.machine.with(&record.addition)?;
            self.write_plan(&plan)?;
        }
        inner.put(
            &self.run,
            Record {
                phase: Phase::There,
                parks: false,
                ..record
            },
        )
    }
}
