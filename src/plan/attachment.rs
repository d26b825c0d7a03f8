//! All that giving a running guest a device will do, as data.

use serde::{Deserialize, Serialize};

use super::build;
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
            steps: build::devices(&alone, links),
            plug: hot::plug(&alone),
            addition,
        })
    }
}
