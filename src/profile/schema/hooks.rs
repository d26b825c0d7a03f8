//! Programs that run at points of a guest's life.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Span;

table! {
    /// `[hook.NAME]`: a program that mvm runs for the guest, without a shell. It is told `MVM_GUEST`, `MVM_HOOK`,
    /// `MVM_WHEN`, `MVM_UUID`, `MVM_RUN_DIR` and `MVM_STATE_DIR` in its environment.
    HookTable {
        /// When it runs.
        when: HookWhen,
        /// The program and its arguments: an absolute path, or a name that is looked up in PATH.
        command: Vec<String>,
        /// How long it may take; it is ended then, and has failed. By default `30s`, at most `10m`.
        timeout: Span,
        /// What becomes of the guest where it fails (`pre-start` and `started`). By default `fail` for `pre-start`, else
        /// `continue`.
        on_failure: HookFailure,
        /// `false` takes away one that a lower layer gave.
        enabled: bool,
    }
}

words! {
    /// `hook.NAME.when`
    HookWhen {
        /// Before anything is done for the guest, once nobody else can start it.
        PreStart = "pre-start",
        /// When the guest runs.
        Started = "started",
        /// When QEMU has ended, before anything is given back.
        Stopped = "stopped",
        /// When everything is given back: once for each time that `pre-start` was, whatever crashed.
        PostStop = "post-stop",
    }
}

words! {
    /// `hook.NAME.on-failure`
    HookFailure {
        /// The guest does not start, or is ended where it runs already.
        Fail = "fail",
        /// It is told, and that is all.
        Continue = "continue",
    }
}
