//! All that giving a running guest a device will do, as data.

use serde::{Deserialize, Serialize};

use super::build::{self, devices};
use super::step::Step;
use crate::host::links::LinkFacts;
use crate::ids::Id;
use crate::machine::{Addition, Machine};
use crate::qemu::hot::{self, Plug};

/// A device on its way to a guest that runs. `mvm attach --dry-run` prints it, the supervisor does it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The name of it all: that of the first device.
    pub id: Id,
    /// The devices.
    pub addition: Addition,
    /// The changes to the host.
    pub steps: Vec<Step>,
    /// What QEMU is told.
    pub plug: Plug,
}

impl Attachment {
    /// How `running` gets that; `None` where it is nothing. A tap that is among the host's `links` is used
    /// and left as it is.
    pub fn new(addition: Addition, running: &Machine, links: &LinkFacts) -> Option<Self> {
        let id = addition.ids().next()?.clone();
        let alone = addition.alone(running);
        Some(Self {
            id,
            steps: steps(&alone, links),
            plug: hot::plug(&alone),
            addition,
        })
    }
}

/// What the host needs for devices that come later, or for a device that was there from the start.
fn steps(alone: &Machine, links: &LinkFacts) -> Vec<Step> {
    let mut steps = devices::steps(&devices::Wanted::of(alone), &devices::user(alone));
    steps.extend(build::devices(alone, links));
    steps
}

/// Whether an inverse takes back what was done for these devices of `machine`, by what it does: a start's
/// journal does not say for which device each step was.
pub fn is_for(undo: &Step, addition: &Addition, machine: &Machine) -> bool {
    let lease = undo.lease();
    steps(&addition.alone(machine), &LinkFacts::default())
        .iter()
        .any(|step| {
            step.inverse().as_ref() == Some(undo) || (lease.is_some() && step.lease() == lease)
        })
}
