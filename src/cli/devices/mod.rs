//! `mvm devices`

mod detail;
mod json;
mod overview;
mod words;

use clap::{Args, ValueEnum};

use super::output::{self, Format, FormatArg};
use super::{Context, Failure};
use crate::host::devices::find;
use crate::host::{DeviceFacts, Roots};

/// Show the host's devices: what a guest can be given, who has what, and why not
///
/// The last column says `yes` where a guest can have the device as things are, and else what is in the
/// way: the host's own use, a guest, or others of its IOMMU group, which can only be given away together.
/// Bridges, hubs and virtual functions that nobody has are left out of the overview.
///
/// A device is named by its address (`0000:01:00.0`, USB port `1-3.2`), by its ids (`8086:15f3`), or by
/// words of its class, vendor and name (`wi-fi`, `network controller`), with `:2` for the second that
/// matches. It is shown in full then. The same names work where a guest is given a device.
///
/// Nothing is changed, and no rights are needed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm devices
  mvm devices gpu
  mvm devices pci network controller:2
  mvm devices usb storage
  mvm devices pci --format json | jq -r '.[] | select(.free) | .bdf'")]
pub(super) struct DevicesArgs {
    /// Which devices; all of these by default
    #[arg(value_enum, value_name = "KIND")]
    kind: Option<Kind>,
    /// One device: address, port, ids, or words
    #[arg(value_name = "DEVICE", requires = "kind")]
    which: Vec<String>,
    /// Bridges, hubs and every virtual function too
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    format: FormatArg,
}

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// PCI functions
    Pci,
    /// Graphics cards, with their virtual functions and mediated devices
    Gpu,
    /// USB devices
    Usb,
    /// Mediated devices, and what can make them
    Mdev,
}

pub(super) fn run(args: &DevicesArgs, context: &Context) -> Result<(), Failure> {
    let roots = Roots::host(Some(context.dirs.cache.clone()));
    let facts = DeviceFacts::read(&roots);
    let json = args.format.format == Format::Json;
    let which = args.which.join(" ");
    if !which.is_empty() {
        return one(&facts, args.kind, &which, json);
    }
    if json {
        return Ok(output::print_json(&json::all(&facts, args.kind))?);
    }
    output::print(&overview::render(&facts, args.kind, args.all))?;
    let pci = matches!(args.kind, None | Some(Kind::Pci | Kind::Gpu));
    if pci && !facts.iommu.on && !facts.pci.is_empty() {
        output::note(
            "\nthe host's IOMMU is off or missing: no PCI device can be given to a guest; `mvm doctor` says \
             more",
        );
    }
    Ok(())
}

/// One device in full.
fn one(facts: &DeviceFacts, kind: Option<Kind>, which: &str, json: bool) -> Result<(), Failure> {
    let (value, text) = match kind {
        Some(Kind::Usb) => {
            let device = find::usb(facts, which)?;
            (json::usb(facts, device), detail::usb(facts, device))
        }
        Some(Kind::Mdev) => {
            let mdev = find::mdev(facts, which)?;
            (json::mdev(facts, mdev), detail::mdev(facts, mdev))
        }
        Some(Kind::Gpu) => {
            let device = find::gpu(facts, which)?;
            (json::pci(facts, device), detail::pci(facts, device))
        }
        Some(Kind::Pci) | None => {
            let device = find::pci(facts, which)?;
            (json::pci(facts, device), detail::pci(facts, device))
        }
    };
    if json {
        output::print_json(&value)?;
    } else {
        output::print(&text)?;
    }
    Ok(())
}
