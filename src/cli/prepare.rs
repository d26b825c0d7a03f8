//! From a name on the command line to a plan: load, read the host, resolve, build. Nothing is changed.

use std::collections::BTreeMap;
use std::str::FromStr as _;

use super::{Context, Failure};
use crate::error::{ExitCode, Report};
use crate::guest::{self, Options, Presence, RunDir, asleep, saved};
use crate::host::{HostFacts, Needs, QemuCaps, QemuFacts, Roots, images};
use crate::ids::{Arch, GuestName};
use crate::machine::{self, Machine};
use crate::plan::{Plan, build};
use crate::profile::schema::{AccelWord, FirmwareWord, Layer};
use crate::profile::{self, Choices, Profile};
use crate::qemu;
use crate::settings::Settings;

/// A guest that is to be started.
#[derive(Debug)]
pub(super) struct Wanted {
    profile: Profile,
    name: Name,
    options: Options,
}

/// What the guest will be called.
#[derive(Debug)]
enum Name {
    /// This, and nothing else.
    Fixed(GuestName),
    /// This, or this with a number: instances of a profile run side by side.
    Free(GuestName),
}

impl Wanted {
    /// Loads what `what` names: a machine file, or else a profile.
    pub(super) fn load(
        context: &Context,
        what: &str,
        name: Option<&GuestName>,
        choices: &Choices,
    ) -> Result<Self, Failure> {
        let profile = profile::load(&context.dirs, what, choices).map_err(|error| {
            let report = Report::from(error);
            match sleeper(context, what) {
                Some(command) => report.hint(format!(
                    "the guest `{what}` was started from a profile, and sleeps: `{command}` lets it go on, with the flags that it had"
                )),
                None => report,
            }
        })?;
        let own = || {
            // A file named by its path gives the name that it has without folder and ending.
            let stem = match what.rsplit_once('/') {
                Some((_, file)) => file.strip_suffix(".toml").unwrap_or(file),
                None => what,
            };
            GuestName::from_str(stem).map_err(|error| {
                Report::from(error).hint("`--name NAME` gives the guest another name")
            })
        };
        let name = match name {
            Some(name) => Name::Fixed(name.clone()),
            None if profile.machine_file.is_some() => Name::Fixed(own()?),
            None => Name::Free(own()?),
        };
        Ok(Self {
            profile,
            name,
            options: Options::default(),
        })
    }

    /// The same, started in that way.
    pub(super) fn with(self, options: Options) -> Self {
        Self { options, ..self }
    }

    /// How it is started.
    pub(super) fn options(&self) -> Options {
        self.options
    }

    /// The name that is free now. One whose supervisor died is free: the guest is adopted.
    pub(super) fn name(&self, context: &Context) -> Result<GuestName, Failure> {
        let (Name::Fixed(first) | Name::Free(first)) = &self.name;
        let alive = |name: &GuestName| -> Result<bool, Failure> {
            let presence = guest::look(&context.dirs, name)?;
            Ok(matches!(presence, Presence::Supervised(_)))
        };
        if matches!(self.name, Name::Fixed(_)) || !alive(first)? {
            return Ok(first.clone());
        }
        for number in 2..10_000 {
            let Ok(name) = GuestName::from_str(&format!("{first}-{number}")) else {
                break;
            };
            if super::machine_file::find(context, &name).is_none() && !alive(&name)? {
                return Ok(name);
            }
        }
        Err(Report::new(
            ExitCode::Failed,
            format!("there is no free name of the form {first}-2 for another guest"),
        )
        .hint("`--name NAME` gives it one")
        .into())
    }

    /// Whether another name can be tried when this one was taken meanwhile.
    pub(super) fn has_other_names(&self) -> bool {
        matches!(self.name, Name::Free(_))
    }

    /// Whether it asks for devices of the host.
    pub(super) fn takes_devices(&self) -> bool {
        machine::host_devices::wants(&self.profile.layer)
    }

    /// The plan that starts it under that name.
    pub(super) fn plan(&self, context: &Context, name: &GuestName) -> Result<Plan, Failure> {
        let settings = Settings::load(&context.dirs)?;
        let layer = &with_defaults(&self.profile.layer, &settings);
        let needs = needs(layer, &settings);
        let mut facts = HostFacts::read(&Roots::host(Some(context.dirs.cache.clone())), &needs);
        if needs.displays {
            facts
                .ports
                .extend(guest::conflicts::display_ports(&context.dirs, name));
        }
        let folders = settings.image_folders(&context.dirs);
        let images = images::look(machine::wanted(layer), &folders);
        let kept = machine::Positions::read(&context.dirs.guest_state(name))?;
        let mut machine = machine::resolve(&machine::Inputs {
            name,
            profile: &self.profile.name,
            layer,
            facts: &facts,
            images: &images,
            dirs: &context.dirs,
            kept: &kept,
        })?;
        machine.expect_rights()?;
        let asleep = asleep::read(&RunDir::new(&context.dirs, name));
        // One that cannot be read is told by whoever goes on.
        if let Ok(Some(asleep)) = asleep {
            if !self.options.discard_hibernation {
                saved::pin(&asleep, &mut machine);
            } else if asleep.saved.is_none() {
                do_not_resume(&mut machine);
            }
        }
        if !machine.overrides.is_empty() {
            let drivers = qemu::device_types(&qemu::command_line(&machine));
            let caps = properties_of(&drivers, machine.arch, layer, &settings, context);
            if let Some(caps) = caps {
                let settled = machine.settle_overrides(&drivers, &caps);
                settled.map_err(machine::ResolveError::from)?;
            }
        }
        let command = qemu::command_line(&machine);
        Ok(build::build(machine, command, &facts.links))
    }
}

/// How the guest of that name goes on, if it sleeps and was started from a profile.
fn sleeper(context: &Context, name: &str) -> Option<String> {
    let run = RunDir::new(&context.dirs, &GuestName::from_str(name).ok()?);
    let asleep = asleep::read(&run).ok()??;
    (asleep.machine.profile != name).then(|| asleep.start_command())
}

/// What QEMU says of the properties of these device types.
fn properties_of(
    drivers: &BTreeMap<String, String>,
    arch: Arch,
    layer: &Layer,
    settings: &Settings,
    context: &Context,
) -> Option<Box<QemuCaps>> {
    let of_profile = needs(layer, settings);
    let needs = Needs {
        qemu: of_profile.qemu,
        qemu_binary: of_profile.qemu_binary,
        profile_binary: of_profile.profile_binary,
        device_properties: drivers.values().cloned().collect(),
        ..Needs::default()
    };
    let facts = HostFacts::read(&Roots::host(Some(context.dirs.cache.clone())), &needs);
    match facts.qemu.into_iter().find(|(found, _)| *found == arch)?.1 {
        QemuFacts::Found(caps) => Some(caps),
        // It was there a moment ago: what starts it says so.
        QemuFacts::Missing { .. } | QemuFacts::Failed { .. } => None,
    }
}

/// Tells Linux to leave the memory alone that it wrote to its disk, where mvm has a word with it.
fn do_not_resume(machine: &mut Machine) {
    match &mut machine.kernel {
        Some(kernel) => kernel.append.push_str(" noresume"),
        None => machine.notes.push(
            "what it wrote to its disk when it hibernated is still there: add `noresume` to its kernel's command line in its boot menu, or it may go on from there"
                .to_owned(),
        ),
    }
}

/// The profile with what `mvm.toml` says where it says nothing.
fn with_defaults(layer: &Layer, settings: &Settings) -> Layer {
    let mut layer = layer.clone();
    // An ordinary user's QEMU is his own.
    if nix::unistd::Uid::effective().is_root() {
        let security = layer.security.get_or_insert_default();
        security.user = security
            .user
            .take()
            .or_else(|| settings.security.user.clone());
    }
    layer
}

/// What has to be known about the host for this profile. What is not needed is not looked at: it would
/// be time between the command and the guest.
fn needs(layer: &Layer, settings: &Settings) -> Needs {
    let host = Arch::host();
    let arch = machine::arch(layer, host);
    let accel = layer.machine.as_ref().and_then(|table| table.accel);
    let firmware = layer.firmware.as_ref().and_then(|table| table.r#type);
    let secure = layer.firmware.as_ref().and_then(|table| table.secure_boot);
    let own = layer.qemu.as_ref().and_then(|table| table.binary.as_ref());
    Needs {
        kvm: arch == host && accel != Some(AccelWord::Tcg),
        qemu: vec![arch],
        qemu_binary: settings.qemu.clone(),
        profile_binary: own.map(|path| (arch, path.into())).into_iter().collect(),
        firmware: firmware == Some(FirmwareWord::Uefi) || secure == Some(true),
        devices: machine::host_devices::wants(layer),
        dmi: layer.smbios.as_ref().and_then(|table| table.host) == Some(true),
        virtiofsd: machine::virtiofs::wanted(layer),
        tpm: machine::tpm::host_tpm(layer)
            .filter(|path| machine::tpm::is_tpm(path))
            .map(str::to_owned),
        displays: machine::desktop::wants_host(layer),
        user: machine::run_as::user(layer).map(str::to_owned),
        ..Needs::default()
    }
}
