//! A device comes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mvm_qmp::{Qmp, QmpError};
use serde_json::{Value, json};

use super::super::state::{self, GuestState};
use super::super::{conflicts, devices};
use super::book::{Phase, Record};
use super::{Hotplug, HotplugError, Inner, blocking, qom};
use crate::ops::{self, Host};
use crate::plan::{Attachment, apply};
use crate::qemu::hot::{self, Call, Plug};

/// For QEMU to make one thing: a device of the host is reset, and all of the guest's memory is pinned for it.
const PLUG: Duration = Duration::from_secs(120);

impl Hotplug {
    /// Gives the guest a device. Done when QEMU has it at work; else all is as before.
    ///
    /// # Errors
    /// What stood in the way.
    pub(crate) async fn attach(
        self: Arc<Self>,
        attachment: Attachment,
    ) -> Result<Value, HotplugError> {
        let mut inner = self.inner().await?;
        self.attach_now(&mut inner, attachment).await
    }

    /// The same for who has the right to change things already.
    pub(super) async fn attach_now(
        self: &Arc<Self>,
        inner: &mut Inner,
        mut attachment: Attachment,
    ) -> Result<Value, HotplugError> {
        let qmp = self.qmp()?;
        let plan = self.plan()?;
        let mut record = Record::coming(&attachment);
        let machine = match inner.book.find(record.id.as_str()) {
            None => plan.machine.clone(),
            Some(parked) if parked.phase == Phase::Parked => {
                record.parks = true;
                plan.machine.without(&parked.addition)
            }
            Some(_) => return Err(HotplugError::Coming(record.id.to_string())),
        };
        let mut with = plan.clone();
        with.machine = machine.with(&attachment.addition)?;
        let ready = inner.ready.remove(&record.id).is_some();
        inner.put(&self.run, record.clone())?;
        let this = Arc::clone(self);
        let addition = attachment.addition.clone();
        let claimed = blocking(move || {
            let gate = conflicts::gate(&this.dirs)?;
            conflicts::check_addition(&this.dirs, &machine, &addition)?;
            // From here on others see that this guest has it.
            this.write_plan(&with)?;
            drop(gate);
            Ok(())
        });
        let brought = match claimed.await {
            Ok(()) => {
                let prepared = match ready {
                    true => Ok(()),
                    false => self.prepare(&mut attachment, &plan.command.program).await,
                };
                match prepared {
                    Ok(()) => self.bring(&qmp, &attachment).await,
                    Err(error) => Err(error),
                }
            }
            Err(error) => {
                if record.parks {
                    let parked = Record {
                        phase: Phase::Parked,
                        ..record
                    };
                    inner.put(&self.run, parked)?;
                } else {
                    inner.remove(&self.run, &record)?;
                }
                return Err(error);
            }
        };
        match brought {
            Ok(ports) => {
                tracing::info!("`{}` is attached", record.id);
                if record.addition != attachment.addition {
                    let mut plan = self.plan()?;
                    plan.machine = plan.machine.without(&record.addition);
                    plan.machine = plan.machine.with(&attachment.addition)?;
                    self.write_plan(&plan)?;
                }
                inner.put(
                    &self.run,
                    Record {
                        phase: Phase::There,
                        parks: false,
                        addition: attachment.addition,
                        ..record.clone()
                    },
                )?;
                self.changed();
                let devices: Vec<&str> = record.devices().collect();
                Ok(json!({ "id": record.id, "devices": devices, "ports": ports }))
            }
            Err(error) => match self
                .take_back_new(inner, &qmp, record, &attachment.plug)
                .await
            {
                Ok(()) => Err(error),
                Err(left) => Err(HotplugError::Left {
                    error: Box::new(error),
                    left: left.to_string(),
                }),
            },
        }
    }

    async fn take_back_new(
        &self,
        inner: &mut Inner,
        qmp: &Qmp,
        record: Record,
        plug: &Plug,
    ) -> Result<(), HotplugError> {
        for fd in &plug.fds {
            let name = json!({ "fdname": fd_name(&fd.name) });
            // Most were used, and are gone with what used them.
            let _ = qmp.call("closefd", Some(name)).await;
        }
        self.take_out(inner, qmp, record).await
    }

    /// The steps on the host.
    pub(super) async fn prepare(
        &self,
        attachment: &mut Attachment,
        program: &std::path::Path,
    ) -> Result<(), HotplugError> {
        let host = Host::sharing(self.run.host()).with_qemu(program);
        let (steps, id) = (attachment.steps.clone(), attachment.id.clone());
        let journal = self.run.journal();
        let machine = self.plan()?.machine;
        let mut alone = attachment.addition.alone(&machine);
        let qemu = state::read::<GuestState>(&self.run.state())?.and_then(|state| state.pid);
        let settled = blocking(move || {
            if let Some(pid) = qemu {
                devices::allow_memory_of(pid, &machine)?;
            }
            apply::attach(&host, &steps, &id, &journal)?;
            // Virtual functions that were made just now may be elsewhere than was thought.
            let differs = devices::settle_machine(&host, &mut alone);
            Ok(differs.then_some(alone))
        });
        if let Some(alone) = settled.await? {
            attachment.plug = hot::plug(&alone);
            attachment.addition.host.devices = alone.host_devices;
        }
        Ok(())
    }

    /// The descriptors, the back ends, the devices; and a look at them.
    async fn bring(
        &self,
        qmp: &Qmp,
        attachment: &Attachment,
    ) -> Result<BTreeMap<String, String>, HotplugError> {
        let mut there = qom::devices(qmp).await?;
        there.append(&mut qom::objects(qmp).await?);
        let calls = attachment.plug.calls.iter();
        let wanted: Vec<&Call> = calls
            .filter(|call| !call.makes.is_shared() || !there.contains(&call.id))
            .collect();
        self.hand_over(qmp, &attachment.plug, &wanted).await?;
        let ports = self.ports(qmp, &wanted).await?;
        for call in wanted {
            let port = call.port().and_then(|word| ports.get(word));
            let arguments = call.settled(port.map(String::as_str), fd_name);
            qmp.call_within(call.makes.command(), Some(arguments), PLUG)
                .await
                .map_err(|error| refused(&call.id, error))?;
            if call.makes.is_device() && !qom::is_realized(qmp, &call.id).await? {
                return Err(HotplugError::NotThere(call.id.clone()));
            }
        }
        Ok(ports)
    }

    /// QEMU gets the descriptors that the calls name.
    async fn hand_over(&self, qmp: &Qmp, plug: &Plug, calls: &[&Call]) -> Result<(), HotplugError> {
        for fd in &plug.fds {
            if !calls.iter().any(|call| call.uses_fd(&fd.name)) {
                continue;
            }
            let source = fd.source.clone();
            let Some(open) = blocking(move || Ok(ops::open_source(&source)?)).await? else {
                continue;
            };
            let name = json!({ "fdname": fd_name(&fd.name) });
            qmp.call_with_fds("getfd", Some(name), vec![open])
                .await
                .map_err(|error| refused(&fd.name, error))?;
        }
        Ok(())
    }

    /// A free port for each word.
    async fn ports(
        &self,
        qmp: &Qmp,
        calls: &[&Call],
    ) -> Result<BTreeMap<String, String>, HotplugError> {
        let mut ports = BTreeMap::new();
        let mut free = None;
        for word in calls.iter().filter_map(|call| call.port()) {
            if ports.contains_key(word) {
                continue;
            }
            let free = match &mut free {
                Some(free) => free,
                none => none.insert(qom::free_ports(qmp).await?.into_iter()),
            };
            let port = free
                .next()
                .ok_or_else(|| HotplugError::NoPort(self.run.name().to_string()))?;
            ports.insert(word.to_owned(), port);
        }
        Ok(ports)
    }
}

/// A descriptor's name at QEMU: a number would be taken for one of its own.
pub(super) fn fd_name(name: &str) -> String {
    format!("mvm-{name}")
}

fn refused(id: &str, error: QmpError) -> HotplugError {
    match error {
        QmpError::Command { desc, .. } => HotplugError::Refused {
            id: id.to_owned(),
            why: desc,
        },
        other => other.into(),
    }
}
