//! `mvm attach`

mod ask;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::output::{self, Format, FormatArg};
use super::{Context, Failure, block_on, choices, guests, import};
use crate::error::{ExitCode, Report};
use crate::guest::{RunDir, conflicts};
use crate::host::{HostFacts, Needs, Roots, images};
use crate::ids::Id;
use crate::machine;
use crate::plan::{Attachment, Plan, render};
use crate::profile::{self, Choices};
use crate::settings::Settings;

/// How long the changes to the host may take.
pub(super) const HOST: Duration = Duration::from_secs(240);

/// Give a guest that runs another device
///
/// It stays until `mvm detach`, or until the guest ends. On q35 and virt it takes a root port that is free:
/// `hotplug.ports` in the guest's profile says how many are kept.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm attach web --disk data.qcow2
  mvm attach web --disk ./backup.img,bus=usb,read-only --name backup
  mvm attach web --network user,forward=8080:80
  mvm attach web --network tap=tap7,bridge=br0
  mvm attach web --usb storage
  mvm attach web --pci vf:auto@x550 --dry-run
  mvm attach web --device ./second-card.toml")]
pub(super) struct AttachArgs {
    /// The guest
    name: String,
    #[command(flatten)]
    what: What,
    /// What it is called; by default a name made from what is asked for
    #[arg(long = "name", value_name = "ID")]
    id: Option<Id>,
    /// Take the device although the host itself uses it: its disk, its network, its screen
    #[arg(long)]
    take_from_host: bool,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    format: FormatArg,
}

/// The device.
#[derive(Debug, Args)]
#[command(about = None, long_about = None)]
#[group(required = true, multiple = false)]
struct What {
    /// A disk: an image, then as in a profile `bus=…` (virtio, scsi, nvme, usb), `media=cdrom`, `cache=…`,
    /// `aio=…`, `format=…`, `serial=…`, `read-only`, `discard`, `ephemeral`
    #[arg(long, value_name = "IMAGE[,KEY=VALUE]")]
    disk: Option<String>,
    /// A network card: `user` (with `forward=HOST:GUEST`, `restrict`) or `tap=NAME` (with `bridge=…`,
    /// `address=…`, `vhost=…`), and `mac=…`, `model=…`
    #[arg(long, value_name = "KIND[,KEY=VALUE]")]
    network: Option<String>,
    /// A PCI device: `0000:01:00.0`, `8086:15f3`, words of its name (`wi-fi`, `i225:2` for the second) or a
    /// virtual function (`vf:1@0000:01:00.0`, `vf:auto@x550`)
    #[arg(long, value_name = "DEVICE")]
    pci: Option<String>,
    /// A USB device: `046d:c52b`, `1-3.2` (a port), `serial:TEXT`, `keyboard` or other words
    #[arg(long, value_name = "DEVICE")]
    usb: Option<String>,
    /// A mediated device: the UUID of one, or `TYPE` or `TYPE@PARENT` for a new one
    #[arg(long, value_name = "DEVICE")]
    mdev: Option<String>,
    /// A file with tables of devices, as a profile has them
    #[arg(long, value_name = "FILE")]
    device: Option<PathBuf>,
    /// A file of libvirt's with a device, as `virsh attach-device` takes it
    #[arg(long, value_name = "FILE")]
    xml: Option<PathBuf>,
}

pub(super) fn run(args: &AttachArgs, context: &Context) -> Result<(), Failure> {
    let seen = guests::find_supervised(context, &args.name)?;
    let running = running(&seen.run)?;
    let (attachment, notes) = resolve(args, context, &running)?;
    for note in &notes {
        output::note(&format!("note: {note}"));
    }
    if args.dry_run {
        match args.format.format {
            Format::Table => output::print(&render::attachment(&attachment))?,
            Format::Json => output::print_json(&attachment)?,
        }
        let refused =
            conflicts::check_addition(&context.dirs, &running.machine, &attachment.addition);
        if let Err(error) = refused {
            let report = Report::from(error);
            let why = report.chain.join(": ");
            output::note(&format!("note: it would be refused now: {why}"));
        }
        return Ok(());
    }
    let request = json!({ "do": "attach", "attachment": attachment });
    block_on(async {
        let mut control = seen.control().await?;
        let done = control.ask(&request, HOST).await?;
        match args.format.format {
            Format::Json => output::print_json(&done)?,
            Format::Table => output::print(&format!("{}\n", attachment.id))?,
        }
        Ok(())
    })
}

/// What the guest is made of now.
pub(super) fn running(run: &RunDir) -> Result<Plan, Failure> {
    let path = run.plan();
    let read = std::fs::read_to_string(&path).map_err(|error| error.to_string());
    let plan = read.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()));
    plan.map_err(|error| {
        Failure::message(
            ExitCode::Failed,
            format!("cannot read {}: {error}", path.display()),
        )
    })
}

fn resolve(
    args: &AttachArgs,
    context: &Context,
    running: &Plan,
) -> Result<(Attachment, Vec<String>), Failure> {
    let machine = &running.machine;
    let layer = profile::flags_alone(&context.dirs, &choices(args)?)?;
    let layer = ask::named(layer, args.id.as_ref(), machine)?;
    let settings = Settings::load(&context.dirs)?;
    let facts = HostFacts::read(
        &Roots::host(Some(context.dirs.cache.clone())),
        &Needs {
            qemu: vec![machine.arch],
            profile_binary: [(machine.arch, machine.qemu.binary.clone())].into(),
            devices: layer.pci.is_some() || layer.usb.is_some() || layer.mdev.is_some(),
            ..Needs::default()
        },
    );
    let folders = settings.image_folders(&context.dirs);
    let images = images::look(machine::wanted(&layer), &folders);
    let (addition, notes) = machine::addition(
        &machine::Inputs {
            name: &machine.name,
            profile: &machine.profile,
            layer: &layer,
            facts: &facts,
            images: &images,
            dirs: &context.dirs,
            kept: &machine.positions,
        },
        machine,
    )?;
    machine.expect_rights_for(&addition)?;
    let attachment = Attachment::new(addition, machine, &facts.links)
        .ok_or_else(|| Failure::message(ExitCode::Usage, "nothing is asked for"))?;
    Ok((attachment, notes))
}

fn choices(args: &AttachArgs) -> Result<Choices, Failure> {
    let What {
        disk,
        network,
        pci,
        usb,
        mdev,
        device,
        xml,
    } = &args.what;
    let mut set = Vec::new();
    if let Some(disk) = disk {
        set.extend(ask::disk(disk)?);
    }
    if let Some(network) = network {
        set.extend(ask::network(network)?);
    }
    if let Some(xml) = xml {
        set.extend(import::devices(xml)?);
    }
    let device = device.iter().map(|path| choices::whole(path));
    Ok(Choices {
        pci: pci.iter().cloned().collect(),
        usb: usb.iter().cloned().collect(),
        mdev: mdev.iter().cloned().collect(),
        device: device.collect::<Result<_, _>>()?,
        take_from_host: args.take_from_host,
        set,
        ..Choices::default()
    })
}
