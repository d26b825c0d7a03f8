//! `mvm profile schema`

use clap::Args;

use crate::cli::{Failure, output};
use crate::profile;

/// Print the JSON schema of profiles, for editors
///
/// Editors with a TOML language server check a profile while it is written when its first line is
/// `#:schema FILE`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm profile schema > ~/.config/mvm/schema.json")]
pub(in crate::cli) struct SchemaArgs {}

pub(super) fn run() -> Result<(), Failure> {
    output::print(profile::schema_json())?;
    Ok(())
}
