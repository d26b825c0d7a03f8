//! `mvm profile show`

use clap::Args;
use serde_json::json;

use crate::cli::choices::ChoiceArgs;
use crate::cli::output::{self, Format, FormatArg};
use crate::cli::{Context, Failure};
use crate::profile;

/// Show what a profile comes to, and where each value was said
///
/// What is printed is a profile itself: all layers, the variants that are on, and the flags, laid
/// together.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm profile show ubuntu
  mvm profile show ubuntu --firmware bios --set memory.size=8G
  mvm profile show ./mine.toml --format json")]
pub(in crate::cli) struct ShowArgs {
    /// A profile, a machine file, or the path of a file (with a `/` in it)
    name: String,
    #[command(flatten)]
    format: FormatArg,
    #[command(flatten)]
    choices: ChoiceArgs,
}

pub(super) fn run(args: &ShowArgs, context: &Context) -> Result<(), Failure> {
    let found = profile::load(&context.dirs, &args.name, &args.choices.choices()?)?;
    match args.format.format {
        Format::Table => output::print(&profile::render(&found))?,
        Format::Json => output::print_json(&json!({
            "name": found.name,
            "machine-file": found.machine_file,
            "layers": found.layers,
            "variants": found.variants,
            "values": profile::values(&found),
        }))?,
    }
    Ok(())
}
