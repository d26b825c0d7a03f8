//! `mvm profile`: what there is to run, and what it says.

mod check;
mod list;
mod schema;
mod show;

use clap::Subcommand;

use super::{Context, Failure};

/// List, show and check profiles
#[derive(Debug, Subcommand)]
pub(super) enum ProfileCommand {
    List(list::ListArgs),
    Show(Box<show::ShowArgs>),
    Check(check::CheckArgs),
    Schema(schema::SchemaArgs),
}

pub(super) fn run(command: &ProfileCommand, context: &Context) -> Result<(), Failure> {
    match command {
        ProfileCommand::List(args) => list::run(args, context),
        ProfileCommand::Show(args) => show::run(args, context),
        ProfileCommand::Check(args) => check::run(args, context),
        ProfileCommand::Schema(_) => schema::run(),
    }
}
