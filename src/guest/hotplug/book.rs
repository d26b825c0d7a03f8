//! What came to a guest while it runs, on disk for whoever supervises it next: `devices.json`.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::inside::mounts::Mount;
use super::super::state;
use crate::ids::Id;
use crate::machine::{Addition, Machine};
use crate::plan::Attachment;
use crate::qemu::hot::{self, Call, Makes};

/// What is known of the devices that came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Book {
    /// They, oldest first.
    pub(crate) devices: Vec<Record>,
    /// What was mounted in the guest from devices that are parked.
    #[serde(default)]
    pub(crate) mounts: Vec<Mount>,
}

/// One attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Record {
    /// Its name.
    pub(crate) id: Id,
    /// How far it is.
    pub(crate) phase: Phase,
    /// What it is.
    pub(crate) addition: Addition,
    /// What was made for it at QEMU, in order.
    pub(crate) made: Vec<Made>,
    /// It leaves, or is away, until the guest has woken.
    #[serde(default)]
    pub(crate) parks: bool,
}

/// How far an attachment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Phase {
    /// On its way in.
    Coming,
    /// In the guest.
    There,
    /// The guest was asked to let it go.
    Leaving,
    /// A USB device that was pulled out: the guest's when it is plugged in again.
    Away,
    /// The host has it back while the guest sleeps; it stays the guest's.
    Parked,
    /// It left the guest, and could not be given back.
    Stuck,
}

/// Something made at QEMU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Made {
    /// What.
    pub(crate) makes: Makes,
    /// Its name.
    pub(crate) id: String,
}

impl From<&Call> for Made {
    fn from(call: &Call) -> Self {
        Self {
            makes: call.makes,
            id: call.id.clone(),
        }
    }
}

impl Record {
    /// A device on its way in. Everything counts as made: what is not there need not be taken back.
    pub(crate) fn coming(attachment: &Attachment) -> Self {
        Self {
            id: attachment.id.clone(),
            phase: Phase::Coming,
            addition: attachment.addition.clone(),
            made: made(&attachment.plug.calls),
            parks: false,
        }
    }

    /// A device that the guest was started with.
    pub(crate) fn of_start(id: &Id, machine: &Machine) -> Option<Self> {
        let addition = machine.part(id)?;
        let made = made(&hot::plug(&addition.alone(machine)).calls);
        Some(Self {
            id: id.clone(),
            phase: Phase::There,
            addition,
            made,
            parks: false,
        })
    }

    /// Its devices in the guest, the last one first. Controllers stay: others may use them.
    pub(crate) fn devices(&self) -> impl Iterator<Item = &str> {
        let made = self.made.iter().rev();
        made.filter(|made| made.makes == Makes::Device)
            .map(|made| made.id.as_str())
    }

    /// Whether it goes by that name, or one of its devices does.
    pub(crate) fn is(&self, id: &str) -> bool {
        self.id.as_str() == id
            || self.addition.ids().any(|other| other.as_str() == id)
            || self.devices().any(|device| device == id)
    }
}

fn made(calls: &[Call]) -> Vec<Made> {
    calls.iter().map(Made::from).collect()
}

impl Book {
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        Ok(state::read(path)?.unwrap_or_default())
    }

    pub(crate) fn find(&self, id: &str) -> Option<&Record> {
        self.devices.iter().find(|record| record.is(id))
    }

    /// Puts the record in, or in the place of the one of its name.
    pub(crate) fn put(&mut self, record: Record) {
        match self.devices.iter_mut().find(|old| old.id == record.id) {
            Some(old) => *old = record,
            None => self.devices.push(record),
        }
    }

    pub(crate) fn remove(&mut self, id: &Id) {
        self.devices.retain(|record| record.id != *id);
    }
}
