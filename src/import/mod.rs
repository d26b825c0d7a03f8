//! Domains of libvirt's: their XML as a machine file.
//!
//! ```text
//! bytes ──text──► UTF-8 without DOCTYPE ──parse──► elements ──one file for each family──► Draft ──settle──► TOML
//!                                                     │                                               │
//!                                                     └── what nobody looked at ──► left <── what profiles do not take
//! ```
//!
//! Nothing is dropped in silence, and this does not depend on anybody's care: the reader remembers what it was
//! asked for, and everything else is told; each key is held against the schema, and what it does not take is told.

mod address;
mod boot;
mod channels;
mod clock;
mod commandline;
mod controllers;
mod cpu;
mod cpuset;
mod desk;
mod devices;
mod disk;
mod display;
mod domain;
mod draft;
mod error;
mod features;
mod firmware;
mod hostdev;
mod memory;
mod net;
mod reader;
mod report;
mod small;
mod source;
mod tuning;
mod units;
mod usb;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_firmware;
#[cfg(test)]
mod tests_values;

pub use draft::Told;
pub use error::ImportError;
pub use source::MAX_SIZE;

use std::path::PathBuf;

use crate::ids::GuestName;
use reader::{El, Seen};

/// The name space of what a domain says to QEMU past libvirt.
pub const QEMU_NAMESPACE: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

/// What became of a domain.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The domain's name; `None` for devices without a domain.
    pub name: Option<String>,
    /// The keys as TOML.
    pub toml: String,
    /// The same as `--set` takes them.
    pub sets: Vec<String>,
    /// What is not carried over, in the order of the file.
    pub left: Vec<Told>,
    /// What needs no key, in the order of the file.
    pub fine: Vec<Told>,
}

/// What the domain or the devices are for.
#[derive(Debug, Clone)]
pub struct Target {
    /// The guest's name, where it is another than the domain's.
    pub name: Option<GuestName>,
    /// What the names of devices begin with that come to a guest with others.
    pub prefix: String,
    /// The folder for files with passwords. None is written: the machine file names where they are to be.
    pub secrets: PathBuf,
}

/// Reads a domain, or devices of one: `<devices>`, or one or several like `<hostdev>`.
///
/// # Errors
/// [`ImportError`] where it is neither.
pub fn import(bytes: &[u8], target: &Target) -> Result<Imported, ImportError> {
    let text = source::text(bytes)?;
    let wrapped = source::wrapped(text);
    let document = source::parse(wrapped.as_deref().unwrap_or(text)).map_err(|error| {
        // What was wrong before a list of devices was made of it is what the file shows.
        source::parse(text).err().unwrap_or(error)
    })?;
    let seen = Seen::default();
    let root = El::root(&document, &seen);
    if let Some(namespace) = root.namespace() {
        return Err(ImportError::Namespace {
            root: reader::short(root.name()),
            namespace: reader::short(namespace),
        });
    }
    if wrapped.is_some() {
        devices::refuse_others(root)?;
    }
    let mut draft = draft::Draft::default();
    draft.guest.clone_from(&target.name);
    draft.secrets.clone_from(&target.secrets);
    let name = match root.name() {
        "domain" => Some(domain::domain(root, &mut draft)?),
        "devices" => {
            draft.prefix.clone_from(&target.prefix);
            devices::fragment(root, &mut draft);
            None
        }
        _ if devices::is_device(root) => {
            draft.prefix.clone_from(&target.prefix);
            devices::one(root, &mut draft);
            None
        }
        _ => return Err(domain::not_one(root)),
    };
    address::told(&mut draft);
    report::rest(root, &mut draft);
    draft.settle();
    let toml = draft.toml();
    if name.is_none() && toml.is_empty() && draft.left.is_empty() {
        return Err(ImportError::NoDevices);
    }
    draft.left.sort_by_key(|told| told.line);
    draft.fine.sort_by_key(|told| told.line);
    Ok(Imported {
        name,
        toml,
        sets: draft.sets(),
        left: draft.left,
        fine: draft.fine,
    })
}
