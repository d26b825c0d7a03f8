//! What the user writes: profiles in TOML, in layers.
//!
//! ```text
//! search path ──find──► text ──parse──► tree with origins ─┐ for each profile in `extends`, lowest first
//!                                                          ├─lay─► variants ─► flags ─► Profile
//! --gpu, --pci, --set ─────────────────────────────────────┘
//! ```
//!
//! Every file is read against the typed [`schema`] first, so that errors have a line and a caret;
//! the layers are then merged as trees, in which each value remembers who said it.

mod check;
mod create;
mod device_flags;
mod display;
mod draft;
mod error;
mod fault;
mod load;
mod merge;
mod notes;
mod parse;
mod rules;
mod rules_devices;
pub mod schema;
mod scheme;
mod search;
mod set;
mod show;
mod tree;

pub use check::{Problem, check};
pub use create::machine_text;
pub use device_flags::name as device_name;
pub use draft::{Refused, refused};
pub use error::ProfileError;
pub use fault::Fault;
pub use load::{Choices, MAX_DEPTH, Origins, Profile, VariantState, flags_alone, load};
pub use notes::{WAKES_ONCE, notes};
pub use search::{MAX_SIZE, schema_json};
pub use show::{Listed, MachineFile, Shown, list, machines, render, values};
pub use tree::{Origin, Source};

#[cfg(test)]
mod reference;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_errors;
#[cfg(test)]
mod tests_random;
#[cfg(test)]
mod tests_show;
