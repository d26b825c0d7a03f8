//! `mvm profile list`

use clap::Args;

use crate::cli::output::{self, Format, FormatArg, Table};
use crate::cli::{Context, Failure};
use crate::profile;

/// List the profiles that a guest can be made from
///
/// The user's own come before the system's, and those before the built-in ones; the first of a name is
/// the one that counts.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm profile list
  mvm profile list --format json")]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    format: FormatArg,
}

pub(super) fn run(args: &ListArgs, context: &Context) -> Result<(), Failure> {
    let found = profile::list(&context.dirs)?;
    if args.format.format == Format::Json {
        output::print_json(&found)?;
        return Ok(());
    }
    let mut table = Table::new(&["NAME", "FROM", "SUMMARY"]);
    for listed in found {
        let from = match &listed.source {
            profile::Source::BuiltIn(_) => "built-in".to_owned(),
            file @ profile::Source::File(_) => file.to_string(),
        };
        let summary = match (listed.error, listed.summary) {
            (Some(error), _) => format!("cannot be read: {error}"),
            (None, summary) => summary.unwrap_or_default(),
        };
        table.row([listed.name, from, summary]);
    }
    table.print()?;
    Ok(())
}
