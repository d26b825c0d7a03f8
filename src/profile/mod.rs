//! What the user writes: profiles in TOML, in layers.

pub mod schema;
