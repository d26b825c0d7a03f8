//! The machine files of guests: where they are, and whether what is in one can be run.

use std::path::{Path, PathBuf};

use super::{Context, Failure, output};
use crate::error::{ExitCode, Report};
use crate::host::{HostFacts, Needs, QemuFacts, Roots};
use crate::ids::{Arch, GuestName};
use crate::machine;
use crate::machine::board::default_type;
use crate::profile::schema::Layer;
use crate::profile::{self, Choices};
use crate::settings::Settings;

/// Where this user's machine file of that name belongs.
pub(super) fn path(context: &Context, name: &GuestName) -> PathBuf {
    context
        .dirs
        .config
        .join("machines")
        .join(format!("{name}.toml"))
}

/// The machine file of that name, this user's or the system's.
pub(super) fn find(context: &Context, name: &GuestName) -> Option<PathBuf> {
    let folders = context.dirs.machines().into_iter();
    folders
        .map(|folder| folder.join(format!("{name}.toml")))
        .find(|path| path.symlink_metadata().is_ok())
}

/// Everything that is wrong with the file.
pub(super) fn check(context: &Context, path: &Path) -> Result<(), Failure> {
    // A text with a slash is a path; the folders that files are in are absolute.
    let problems = profile::check(&context.dirs, &path.to_string_lossy())?;
    Failure::collect(problems.into_iter().map(|problem| {
        Report {
            chain: vec![problem.message],
            hints: problem.hints,
            code: ExitCode::Profile,
        }
        .into()
    }))
}

/// A machine file that says what the choices say, over that profile. Where the profile names a machine type without
/// its version, the file has that of this host's QEMU: the guest keeps its hardware when QEMU becomes a newer one.
pub(super) fn text(
    context: &Context,
    name: &GuestName,
    base: &str,
    choices: &Choices,
) -> Result<String, Failure> {
    let path = path(context, name);
    let (mut said, layer) = profile::machine_text(&context.dirs, &path, base, choices)?;
    let mut pinned = String::new();
    if let Some((short, version)) = machine_version(context, &layer)? {
        let mut choices = choices.clone();
        choices.set.push(format!("machine.type={version}"));
        (said, _) = profile::machine_text(&context.dirs, &path, base, &choices)?;
        pinned = format!(
            "#\n\
             # `machine.type` is what `{short}` stood for when this file was made: the guest's hardware stays the same,\n\
             # whatever QEMU is installed later.\n"
        );
    }
    Ok(format!(
        "# The guest `{name}`: what stands here lies over the profile {base}.\n\
         #\n\
         #   mvm edit {name}            change this file, with a check afterwards\n\
         #   mvm profile show {name}    everything it comes to, and where each value is from\n\
         #   mvm start {name}\n{pinned}\n\
         {said}"
    ))
}

/// The machine type's short name, and the name with its version that this host's QEMU means by it; nothing where the
/// profile has a version, or there is no QEMU to ask.
fn machine_version(context: &Context, layer: &Layer) -> Result<Option<(String, String)>, Failure> {
    let settings = Settings::load(&context.dirs)?;
    let arch = machine::arch(layer, Arch::host());
    let table = layer.machine.as_ref();
    let short = table.and_then(|table| table.r#type.as_deref());
    let short = short.unwrap_or_else(|| default_type(arch));
    let own = layer.qemu.as_ref().and_then(|table| table.binary.as_ref());
    let needs = Needs {
        qemu: vec![arch],
        qemu_binary: settings.qemu,
        profile_binary: own.map(|path| (arch, path.into())).into_iter().collect(),
        ..Needs::default()
    };
    let facts = HostFacts::read(&Roots::host(Some(context.dirs.cache.clone())), &needs);
    let Some(QemuFacts::Found(caps)) = facts.qemu.get(&arch) else {
        let which = own.map_or_else(String::new, |path| format!(" ({path})"));
        output::note(&format!(
            "note: there is no working QEMU for {arch} here{which}: the file names no version of the machine type. \
             `machine.type` there can, once there is one: `{short}` may mean newer hardware after an upgrade of QEMU"
        ));
        return Ok(None);
    };
    let real = caps.machine(short).map(|(real, _)| real);
    let real = real.filter(|real| *real != short);
    Ok(real.map(|real| (short.to_owned(), real.to_owned())))
}
