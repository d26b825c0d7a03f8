//! `mvm ip`

use std::path::Path;

use clap::Args;
use serde_json::json;

use super::guests::{self, Life, Seen};
use super::inside::AgentLink;
use super::output::{self, Format, FormatArg, Table};
use super::{Context, Failure, block_on, show};
use crate::error::{ExitCode, Report};
use crate::guest::inside::net::{self, Address, Interface};
use crate::host::neighbours::{self, Sighting};
use crate::machine::{Nic, NicBackend};
use crate::units::Span;

/// Print a guest's addresses
///
/// Its agent knows them all. Where that does not answer, they are what this host knows of the guest's MACs:
/// from its neighbour table, and from the leases of dnsmasq on it (libvirt's and NetworkManager's among them).
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm ip web
  ssh root@$(mvm ip web --format json | jq -r '[.interfaces[].addresses[].address][0]')")]
pub(super) struct IpArgs {
    /// The guest
    name: String,
    /// How long the agent may take to answer
    #[arg(long, default_value = "5s", value_name = "SPAN")]
    timeout: Span,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) fn run(args: &IpArgs, context: &Context) -> Result<(), Failure> {
    let seen = guests::find(&context.dirs, &args.name)?;
    let nics = nics(&seen);
    let told = block_on(by_agent(&seen, args))?;
    let silent = told.is_none();
    let interfaces = told.unwrap_or_else(|| by_host(&nics, &neighbours::sightings(Path::new("/"))));
    if silent && interfaces.is_empty() {
        return Err(unknown(&seen, &nics).into());
    }
    match args.format.format {
        Format::Json => output::print_json(&json!({
            "name": args.name,
            "interfaces": interfaces,
        }))?,
        Format::Table => table(&interfaces).print()?,
    }
    Ok(())
}

/// What the agent says, if it does. Loopback is nobody's address.
async fn by_agent(seen: &Seen, args: &IpArgs) -> Result<Option<Vec<Interface>>, Failure> {
    let answers = seen.state.as_ref().is_some_and(|state| state.agent);
    if seen.life != Life::Supervised || !answers {
        return Ok(None);
    }
    let mut link = AgentLink::to(seen.clone());
    match net::interfaces(&mut link, args.timeout.duration()).await {
        Ok(mut interfaces) => {
            interfaces.retain(|interface| !interface.is_loopback());
            Ok(Some(interfaces))
        }
        Err(error) => {
            tracing::info!(%error, "the agent tells no addresses");
            Ok(None)
        }
    }
}

fn nics(seen: &Seen) -> Vec<Nic> {
    show::plan(seen).map_or_else(Vec::new, |plan| plan.machine.nics)
}

/// What the host knows of the MACs.
fn by_host(nics: &[Nic], seen: &[Sighting]) -> Vec<Interface> {
    let mut interfaces = Vec::new();
    for nic in nics {
        let mac = nic.mac.to_string().to_ascii_lowercase();
        let of_it = seen.iter().filter(|sighting| sighting.mac == mac);
        let addresses: Vec<Address> = of_it
            .map(|sighting| Address {
                address: sighting.address.clone(),
                prefix: None,
                from: sighting.from.as_str(),
            })
            .collect();
        if !addresses.is_empty() {
            interfaces.push(Interface {
                name: nic.id.to_string(),
                mac: Some(mac),
                addresses,
            });
        }
    }
    interfaces
}

fn table(interfaces: &[Interface]) -> Table {
    let mut table = Table::new(&["INTERFACE", "ADDRESS", "MAC", "FROM"]);
    for interface in interfaces {
        let mac = interface.mac.clone().unwrap_or_default();
        if interface.addresses.is_empty() {
            table.row([interface.name.as_str(), "-", mac.as_str(), "agent"]);
        }
        for address in &interface.addresses {
            let prefix = address.prefix.map(|prefix| format!("/{prefix}"));
            let shown = format!("{}{}", address.address, prefix.unwrap_or_default());
            table.row([&interface.name, &shown, &mac, address.from]);
        }
    }
    table
}

fn unknown(seen: &Seen, nics: &[Nic]) -> Report {
    let name = &seen.name;
    let macs: Vec<String> = nics.iter().map(|nic| nic.mac.to_string()).collect();
    let macs = match macs.as_slice() {
        [] => "no network card".to_owned(),
        macs => format!("MAC {}", macs.join(", ")),
    };
    let report = Report::new(
        ExitCode::Failed,
        format!("nothing is known of the addresses of {name} ({macs}): its agent does not answer, and this host has not met it"),
    )
    .hint(format!("`mvm wait {name} --for agent` waits for the agent"));
    if nics
        .iter()
        .any(|nic| matches!(nic.backend, NicBackend::User { .. }))
    {
        return report.hint(format!(
            "behind QEMU's own NAT a guest is reached through its forwards only: `mvm show {name}`"
        ));
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::neighbours::Origin;
    use crate::profile::schema::NicModel;

    #[test]
    fn what_the_host_knows_is_put_to_the_cards() {
        let nic = |id: &str, mac: &str| Nic {
            id: id.parse().expect("an id"),
            model: NicModel::Virtio,
            mac: mac.parse().expect("a MAC"),
            backend: NicBackend::User {
                forwards: Vec::new(),
                restrict: false,
                addresses: crate::machine::net::Addresses::default(),
            },
            options: crate::machine::NicOptions::default(),
        };
        let nics = [
            nic("lan", "52:54:00:00:00:01"),
            nic("wan", "52:54:00:00:00:02"),
        ];
        let seen = [("01", "10.0.0.5"), ("01", "10.0.0.6"), ("09", "10.0.0.7")];
        let seen = seen.map(|(mac, address)| Sighting {
            mac: format!("52:54:00:00:00:{mac}"),
            address: address.to_owned(),
            from: Origin::Lease,
        });
        assert_eq!(
            table(&by_host(&nics, &seen)).render(),
            "INTERFACE  ADDRESS   MAC                FROM\n\
             lan        10.0.0.5  52:54:00:00:00:01  lease\n\
             lan        10.0.0.6  52:54:00:00:00:01  lease\n"
        );
    }
}
