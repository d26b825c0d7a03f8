//! `mvm bind`

use clap::Args;

use super::{Context, Failure, output};
use crate::error::{ExitCode, Report};
use crate::host::devices::find::Asked;
use crate::host::devices::{HostUse, find};
use crate::host::{DeviceFacts, Roots, users};
use crate::ids::PciRef;
use crate::ops::{Host, byhand};

/// Give PCI functions to vfio-pci by hand
///
/// A guest takes the devices that it is given by itself, and gives them back. This is for who wants a
/// device to stay with vfio-pci between guests, or uses it with another program. How the device stood
/// before is written down; `mvm unbind` puts it back, and `mvm recover` leaves it alone. A restart of the
/// host forgets it.
///
/// A device is named as for `mvm devices pci`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm bind 03:00.0
  mvm bind wi-fi
  mvm bind 01:00.0 01:00.1
  mvm bind 04:00.0 --for ann
  mvm bind --driver mlx5_vfio_pci 0000:3b:00.2")]
pub(super) struct BindArgs {
    /// The functions: addresses, ids or words
    #[arg(required = true, value_name = "DEVICE")]
    devices: Vec<String>,
    /// The driver that they go to
    #[arg(long, default_value = "vfio-pci", value_name = "NAME")]
    driver: String,
    /// Who may open the device: that user's guests can have it then, without root
    #[arg(long = "for", value_name = "USER")]
    user: Option<String>,
    /// Even what the host itself uses: its disk, its network, its console
    #[arg(long)]
    take_from_host: bool,
}

pub(super) fn run(args: &BindArgs, context: &Context) -> Result<(), Failure> {
    let roots = Roots::host(Some(context.dirs.cache.clone()));
    let facts = DeviceFacts::read(&roots);
    let host = Host::new(&context.dirs);
    let uid = args.user.as_deref().map(uid).transpose()?;
    // All are looked at before the first is touched.
    let mut found = Vec::new();
    for text in &args.devices {
        found.push(allowed(&facts, text, args.take_from_host)?);
    }
    let mut failures = Vec::new();
    for (device, line) in found {
        match byhand::bind(host.place(), device, &args.driver, uid) {
            Ok(true) => output::progress(&format!("{} has {line}", args.driver)),
            Ok(false) => output::progress(&format!("{} had it already: {line}", args.driver)),
            Err(error) => failures.push(Report::from(error).into()),
        }
    }
    Failure::collect(failures)
}

/// The number of the user of that name.
fn uid(name: &str) -> Result<u32, Failure> {
    let asked = users::find(name);
    asked.map(|found| found.uid).ok_or_else(|| {
        Failure::message(ExitCode::Host, format!("this host knows no user `{name}`"))
    })
}

/// The function that is meant, if it may be taken from the host.
fn allowed(
    facts: &DeviceFacts,
    text: &str,
    take_from_host: bool,
) -> Result<(PciRef, String), Failure> {
    let device = find::pci(facts, text)?;
    let line = find::pci_line(device);
    if !matches!(Asked::pci(text), Asked::Address(_)) {
        output::note(&format!("note: {text} → {line}"));
    }
    if device.bridge {
        let text = format!("{} is a bridge of the host", device.bdf);
        return Err(Report::new(ExitCode::Host, text).into());
    }
    let live = |used: &&HostUse| !take_from_host || matches!(used, HostUse::LiveVfs { .. });
    if let Some(used) = device.used_by_host.iter().find(live) {
        let report = Report::new(ExitCode::Failed, format!("{}: {used}", device.bdf));
        return Err(match used {
            HostUse::LiveVfs { .. } => report.hint("bind its virtual functions instead"),
            _ => report.hint("`--take-from-host` takes it all the same"),
        }
        .into());
    }
    Ok((device.reference(), line))
}
