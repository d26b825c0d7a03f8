//! `mvm disk`: images, made and changed by `qemu-img`.

mod create;
mod import;
mod info;
mod place;
mod qemu_img;
mod resize;

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::{Context, Failure, block_on};
use crate::error::ExitCode;
use crate::profile::schema::DiskFormat;
use crate::settings::Settings;

/// Create, import, resize and inspect disk images
///
/// A plain or relative name is a file of mvm's image folder, where a profile's `file = { path = … }` looks
/// first. `/absolute`, `./here` and `../there` are taken as they are.
#[derive(Debug, Subcommand)]
pub(super) enum DiskCommand {
    Create(create::CreateArgs),
    Import(import::ImportArgs),
    Resize(resize::ResizeArgs),
    Info(info::InfoArgs),
}

/// An image that is there, by its name, and its format.
pub(super) fn existing(name: &Path, context: &Context) -> Result<(PathBuf, DiskFormat), Failure> {
    let path = place::of_old(name, context, &Settings::load(&context.dirs)?)?;
    let format = qemu_img::format_of(&path).map_err(|error| {
        Failure::message(
            ExitCode::Failed,
            format!("cannot read {}: {error}", path.display()),
        )
    })?;
    Ok((path, format))
}

pub(super) fn run(command: DiskCommand, context: &Context) -> Result<(), Failure> {
    block_on(async {
        match command {
            DiskCommand::Create(args) => create::run(args, context).await,
            DiskCommand::Import(args) => import::run(args, context).await,
            DiskCommand::Resize(args) => resize::run(args, context).await,
            DiskCommand::Info(args) => info::run(args, context).await,
        }
    })
}
