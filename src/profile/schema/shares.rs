//! Folders of the host.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SecurityModel;

table! {
    /// `[share.NAME]`: 9p.
    ShareTable {
        /// The folder on the host.
        path: String,
        /// The tag that the guest mounts. By default the table's name.
        tag: String,
        /// The guest cannot write.
        read_only: bool,
        /// How owners and modes are kept. By default `mapped-xattr`.
        security_model: SecurityModel,
        /// The mode of files that the guest makes, as in `0644`; with the security models `mapped-xattr` and
        /// `mapped-file`. By default `0600`.
        fmode: String,
        /// The mode of directories that the guest makes, likewise. By default `0700`.
        dmode: String,
    }
}
