//! Folders of the host.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SecurityModel;

table! {
    /// `[share.NAME]`: 9p, which QEMU serves itself, or virtiofs.
    ShareTable {
        /// The folder on the host.
        path: String,
        /// The tag that the guest mounts. By default the table's name.
        tag: String,
        /// The guest cannot write. With `virtiofs` this needs a virtiofsd that knows `--readonly`.
        read_only: bool,
        /// How owners and modes are kept (9p). By default `mapped-xattr`.
        security_model: SecurityModel,
        /// The mode of files that the guest makes, as in `0644`; with the security models `mapped-xattr` and
        /// `mapped-file`. By default `0600`.
        fmode: String,
        /// The mode of directories that the guest makes, likewise. By default `0700`.
        dmode: String,
        /// The share is virtiofs, not 9p: `virtiofs = {}`. mvm runs `virtiofsd` for it, and the guest's memory is
        /// shared with that.
        virtiofs: VirtiofsTable,
    }
}

table! {
    /// `share.NAME.virtiofs`
    VirtiofsTable {
        /// How long the guest believes what it knows. By default `auto`.
        cache: VirtiofsCache,
        /// Places in the queue of requests: a power of two from 2 to 1024. By default 128.
        queue_size: u32,
        /// The guest has the extended attributes of files. By default not.
        xattr: bool,
        /// What keeps virtiofsd to the folder. By default `namespace` for root, else `none`.
        sandbox: VirtiofsSandbox,
    }
}

words! {
    /// `share.NAME.virtiofs.cache`
    VirtiofsCache {
        /// For a second; contents until a file is opened again.
        Auto = "auto",
        /// For good: for folders that nobody else changes.
        Always = "always",
        /// Not at all: the guest asks each time.
        Never = "never",
    }
}

words! {
    /// `share.NAME.virtiofs.sandbox`
    VirtiofsSandbox {
        /// Namespaces of its own, in which the folder is all there is. For root.
        Namespace = "namespace",
        /// The folder is its root. For root, where namespaces cannot be had.
        Chroot = "chroot",
        /// Nothing but its user's rights: for ordinary users, with the virtiofsd written in Rust.
        None = "none",
    }
}
