//! `mvm disk info`

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{place, qemu_img};
use crate::cli::output::{self, Format, FormatArg, Table};
use crate::cli::{Context, Failure};
use crate::settings::Settings;

/// Show what an image is
///
/// Works while a guest has it open, too.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm disk info ubuntu.qcow2
  mvm disk info ./old.vmdk --format json")]
pub(in crate::cli) struct InfoArgs {
    /// The image
    name: PathBuf,
    #[command(flatten)]
    format: FormatArg,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Shown {
    path: PathBuf,
    format: String,
    /// Bytes, as the guest sees them.
    virtual_size: u64,
    /// Bytes on the host's disk.
    disk_size: Option<u64>,
    backing: Option<String>,
}

pub(in crate::cli) async fn run(args: InfoArgs, context: &Context) -> Result<(), Failure> {
    let path = place::of_old(&args.name, context, &Settings::load(&context.dirs)?)?;
    let info = qemu_img::info(&path, None).await?;
    let shown = Shown {
        path,
        format: info.format,
        virtual_size: info.virtual_size,
        disk_size: info.actual_size,
        backing: info.full_backing_filename.or(info.backing_filename),
    };
    if args.format.format == Format::Json {
        output::print_json(&shown)?;
        return Ok(());
    }
    let mut table = Table::bare();
    table.row(["path", &shown.path.display().to_string()]);
    table.row(["format", &shown.format]);
    table.row(["size", &output::human_bytes(shown.virtual_size)]);
    if let Some(bytes) = shown.disk_size {
        table.row(["on disk", &output::human_bytes(bytes)]);
    }
    if let Some(backing) = &shown.backing {
        table.row(["backing", backing]);
    }
    table.print()?;
    Ok(())
}
