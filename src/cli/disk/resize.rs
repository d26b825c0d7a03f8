//! `mvm disk resize`

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::create::ImageType;
use super::{place, qemu_img};
use crate::cli::{Context, Failure, output};
use crate::error::{ExitCode, Report};
use crate::settings::Settings;
use crate::units::Size;

/// Grow a disk image
///
/// No image is ever shrunk. The partition and the file system inside are grown by the guest.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm disk resize ubuntu.qcow2 40G
  mvm disk resize ubuntu.qcow2 +10G")]
pub(in crate::cli) struct ResizeArgs {
    /// The image
    name: PathBuf,
    /// The new size, as in `40G`, or what is added, as in `+10G`
    size: String,
    /// Its format; by default qcow2 where the file's header says so, else raw
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    image_type: Option<ImageType>,
}

pub(in crate::cli) async fn run(args: ResizeArgs, context: &Context) -> Result<(), Failure> {
    let (added, size) = match args.size.strip_prefix('+') {
        Some(rest) => (true, rest.parse::<Size>()?.as_bytes()),
        None => (false, args.size.parse::<Size>()?.as_bytes()),
    };
    let path = place::of_old(&args.name, context, &Settings::load(&context.dirs)?)?;
    let format = match args.image_type {
        Some(image_type) => image_type.format(),
        None => qemu_img::format_of(&path).map_err(|error| {
            Failure::message(
                ExitCode::Failed,
                format!("cannot read {}: {error}", path.display()),
            )
        })?,
    };
    let before = qemu_img::info(&path, Some(format)).await?.virtual_size;
    let wanted = if added {
        before.checked_add(size).ok_or_else(|| {
            Failure::message(ExitCode::Usage, format!("`{}` is too much", args.size))
        })?
    } else {
        size
    };
    if wanted < before {
        return Err(Report::new(
            ExitCode::Failed,
            format!(
                "{} is less than the {} of {}: mvm shrinks no image",
                Size::bytes(wanted),
                Size::bytes(before),
                path.display()
            ),
        )
        .hint("the data at its end would be lost; make a smaller image and copy inside a guest")
        .into());
    }
    if wanted > before {
        let words: [OsString; 6] = [
            "resize".into(),
            "-q".into(),
            "-f".into(),
            format.as_str().into(),
            path.clone().into(),
            wanted.to_string().into(),
        ];
        qemu_img::run(&words, qemu_img::QUICK, false).await?;
    }
    let after = qemu_img::info(&path, Some(format)).await?.virtual_size;
    if after < wanted {
        return Err(Failure::message(
            ExitCode::Failed,
            format!("{} still has {}", path.display(), Size::bytes(after)),
        ));
    }
    output::note(&format!("{} has {}", path.display(), Size::bytes(after)));
    Ok(())
}
