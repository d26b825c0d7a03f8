//! `mvm insert`

use std::path::PathBuf;

use clap::Args;

use super::{Context, Failure, attach, block_on, disk, drive, guests};
use crate::units::Span;

/// Put a CD image into a guest's drive
///
/// A medium that is in it is ejected first. A relative name is looked up in the image folders, as in a
/// profile; `./here` is taken as it is.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm insert web debian-13.iso
  mvm insert web ./tools.iso --drive cd --force")]
pub(super) struct InsertArgs {
    /// The guest
    name: String,
    /// The image
    image: PathBuf,
    /// The drive's name in the profile; not needed where there is one only
    #[arg(long)]
    drive: Option<String>,
    /// Even though the guest has locked the drive
    #[arg(long)]
    force: bool,
    /// How long the guest may take to let the old medium go
    #[arg(long, default_value = "20s", value_name = "SPAN")]
    timeout: Span,
}

pub(super) fn run(args: &InsertArgs, context: &Context) -> Result<(), Failure> {
    let (path, format) = disk::existing(&args.image, context)?;
    let seen = guests::find(&context.dirs, &args.name)?;
    let running = attach::running(&seen.run)?.machine;
    running.expect_rights_to_read("medium", &path)?;
    block_on(async {
        let drive = drive::find(&args.name, args.drive.as_deref(), context).await?;
        drive.empty(args.force, args.timeout).await?;
        drive.fill(&path, format).await
    })
}
