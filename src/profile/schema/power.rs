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
        /// How long the guest may take to hibernate, and QEMU to save and to load it. By default `300s`.
        hibernate_timeout: Span,
        /// Whether the file of a saved guest is compressed (LZ4). By default it is not.
        compress: bool,
        /// What `mvm sleep pre` does with the guest before the host sleeps. By default `suspend` where it has a
        /// device of the host, else `none`: it stands still with the host.
        host_sleep: HostSleep,
        /// What becomes of the host's sleep where the guest does not do that. By default `stay-awake` where it has
        /// a device of the host, else `sleep`.
        host_sleep_failure: SleepFailure,
    }
}

words! {
    /// `power.host-sleep`
    HostSleep {
        /// Nothing.
        None = "none",
        /// As `mvm suspend`.
        Suspend = "suspend",
        /// As `mvm hibernate`. After the host's sleep the guest is started again where it has a machine file.
        Hibernate = "hibernate",
        /// What the host does: `suspend` or `hibernate`.
        Same = "same",
        /// As `mvm pause`.
        Pause = "pause",
        /// As `mvm stop`, within `lifecycle.stop-timeout`. It stays off.
        Shutdown = "shutdown",
    }
}

words! {
    /// `power.host-sleep-failure`
    SleepFailure {
        /// The host sleeps all the same.
        Sleep = "sleep",
        /// The host stays awake, and what slept already is woken.
        StayAwake = "stay-awake",
    }
}

words! {
    /// One of `power.suspend`
    Sleep {
        /// The guest sleeps, its memory kept (S3).
        Ram = "ram",
        /// The guest writes its memory to its own disk and is gone until its next start (S4).
        Disk = "disk",
        /// QEMU writes its state to a file, and it is gone until its next start (`mvm save`).
        Save = "save",
        /// Its processors are held. The guest knows nothing of it, and keeps its devices and its memory.
        Pause = "pause",
    }
}
