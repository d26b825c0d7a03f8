//! `mvm disk create`

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{place, qemu_img};
use crate::cli::{Context, Failure, output};
use crate::error::ExitCode;
use crate::profile::schema::DiskFormat;
use crate::settings::Settings;
use crate::units::Size;

/// Make an empty disk image
///
/// It takes space as the guest writes to it. An image that is there is never overwritten.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm disk create data.qcow2 --size 20G
  mvm disk create scratch.raw --size 1G --type raw
  mvm disk create test.qcow2 --backing ubuntu.qcow2")]
pub(in crate::cli) struct CreateArgs {
    /// The new image, in the image folder unless the path says where
    name: PathBuf,
    /// Its size, as in `20G`; with --backing that of the image below by default
    #[arg(long, required_unless_present = "backing")]
    size: Option<Size>,
    /// Its format
    #[arg(long = "type", value_enum, default_value_t = ImageType::Qcow2, value_name = "TYPE")]
    image_type: ImageType,
    /// The image below: the new one holds only what differs from it
    #[arg(long, value_name = "IMAGE")]
    backing: Option<PathBuf>,
}

/// The formats that mvm makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ImageType {
    /// Grows as it is written to, can lie over another image.
    Qcow2,
    /// The bytes as they are.
    Raw,
}

impl ImageType {
    pub(super) const fn format(self) -> DiskFormat {
        match self {
            Self::Qcow2 => DiskFormat::Qcow2,
            Self::Raw => DiskFormat::Raw,
        }
    }
}

pub(in crate::cli) async fn run(args: CreateArgs, context: &Context) -> Result<(), Failure> {
    if args.backing.is_some() && args.image_type == ImageType::Raw {
        return Err(Failure::message(
            ExitCode::Usage,
            "a raw image cannot lie over another one: leave `--type raw` out",
        ));
    }
    let path = place::of_new(&args.name, context)?;
    let mut words: Vec<OsString> = ["create", "-q", "-f", args.image_type.format().as_str()]
        .map(OsString::from)
        .to_vec();
    if let Some(backing) = &args.backing {
        let backing = place::of_old(backing, context, &Settings::load(&context.dirs)?)?;
        let format = qemu_img::format_of(&backing).map_err(|error| {
            Failure::message(
                ExitCode::Failed,
                format!("cannot read {}: {error}", backing.display()),
            )
        })?;
        let below = qemu_img::info(&backing, Some(format)).await?.virtual_size;
        if let Some(size) = args.size.filter(|size| size.as_bytes() < below) {
            return Err(Failure::message(
                ExitCode::Usage,
                format!(
                    "{size} is less than the {} of {}: its end would be cut off",
                    Size::bytes(below),
                    backing.display()
                ),
            ));
        }
        words.extend([
            "-F".into(),
            format.as_str().into(),
            "-b".into(),
            backing.into(),
        ]);
    }
    let draft = place::draft(&path, context)?;
    words.push(draft.path().into());
    words.extend(args.size.map(|size| size.as_bytes().to_string().into()));
    qemu_img::run(&words, qemu_img::QUICK, false).await?;
    place::finish(draft, &path)?;
    output::note(&format!("made {}", path.display()));
    Ok(())
}
