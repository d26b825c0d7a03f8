//! The guest's TPM.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NoDevice;

table! {
    /// `[tpm]`: exactly one of `emulator`, `passthrough` and `none`.
    TpmTable {
        /// A TPM in software: `emulator = {}`. mvm runs `swtpm` for it, and keeps what it holds with the guest's
        /// state.
        emulator: TpmEmulator,
        /// The host's own TPM, which nobody else may have open.
        passthrough: TpmPassthrough,
        /// No TPM: takes away one that a lower layer gave, as in `none = {}`.
        none: NoDevice,
        /// What the guest sees. By default `crb` for a TPM 2.0 on x86_64, else `tis`.
        model: TpmModel,
        /// The version of the emulated TPM. By default `2.0`.
        version: TpmVersion,
    }
}

table! {
    /// `tpm.emulator`
    TpmEmulator {}
}

table! {
    /// `tpm.passthrough`
    TpmPassthrough {
        /// The node. By default `/dev/tpm0`.
        path: String,
    }
}

words! {
    /// `tpm.model`
    TpmModel {
        /// The command response buffer, which is for TPM 2.0 on x86_64 alone.
        Crb = "crb",
        /// The TPM interface specification's registers.
        Tis = "tis",
    }
}

words! {
    /// `tpm.version`
    TpmVersion {
        /// TPM 1.2.
        V1 = "1.2",
        /// TPM 2.0.
        V2 = "2.0",
    }
}
