//! How a guest sleeps.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Span;

table! {
    /// `[power]`
    PowerTable {
        /// Whether the guest can sleep with its memory kept (ACPI S3). By default so on the boards that have it,
        /// q35 and pc; `false` hides it from the guest.
        s3: bool,
        /// Whether the guest can hibernate, its memory written to its own disk (ACPI S4). On by default; `false`
        /// hides it from the guest where the board has a switch for it, and `mvm hibernate` refuses.
        s4: bool,
        /// What `mvm suspend` does: the first of these that works. By default `ram`, on boards without S3
        /// `pause`.
        suspend: Vec<Sleep>,
        /// How long the guest may take to sleep. By default `120s`.
        suspend_timeout: Span,
        /// How long the guest may take to hibernate. By default `300s`.
        hibernate_timeout: Span,
    }
}

words! {
    /// One of `power.suspend`
    Sleep {
        /// The guest sleeps, its memory kept (S3).
        Ram = "ram",
        /// The guest writes its memory to its own disk and is gone until its next start (S4).
        Disk = "disk",
        /// Its processors are held. The guest knows nothing of it, and keeps its devices and its memory.
        Pause = "pause",
    }
}
