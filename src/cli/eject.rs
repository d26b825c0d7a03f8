//! `mvm eject`

use clap::Args;

use super::{Context, Failure, block_on, drive};
use crate::units::Span;

/// Take the medium out of a guest's CD-ROM drive
///
/// A guest that has locked the drive is asked to let it go.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm eject web
  mvm eject web cd --force")]
pub(super) struct EjectArgs {
    /// The guest
    name: String,
    /// The drive's name in the profile; not needed where there is one only
    drive: Option<String>,
    /// Take it out even though the guest has locked the drive
    #[arg(long)]
    force: bool,
    /// How long the guest may take to let it go
    #[arg(long, default_value = "20s", value_name = "SPAN")]
    timeout: Span,
}

pub(super) fn run(args: &EjectArgs, context: &Context) -> Result<(), Failure> {
    block_on(async {
        let drive = drive::find(&args.name, args.drive.as_deref(), context).await?;
        drive.empty(args.force, args.timeout).await
    })
}
