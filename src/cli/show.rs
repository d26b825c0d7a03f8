//! `mvm show`

mod people;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::guests::{self, Life, Seen};
use super::output::{self, Format, FormatArg};
use super::{Context, Failure, machine_file};
use crate::guest::{RunDir, asleep};
use crate::ids::GuestName;
use crate::machine::{HostDevice, Machine};
use crate::plan::{Plan, render};

/// Show everything about a guest: state, devices, sockets, QEMU's command line
///
/// What a guest that runs is made of is what it was started with. Of one that does not run, how it ended
/// last is shown.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm show web
  mvm show web --format json | jq -r .sockets.qmp")]
pub(super) struct ShowArgs {
    /// The guest
    name: GuestName,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) fn run(args: &ShowArgs, context: &Context) -> Result<(), Failure> {
    let seen = guests::look(&context.dirs, args.name.as_str())?;
    let shown = match &seen {
        Some(seen) => of_seen(seen, context),
        None => of_stopped(&args.name, context)?,
    };
    match args.format.format {
        Format::Json => output::print_json(&shown)?,
        Format::Table => {
            let plan = seen.as_ref().and_then(plan);
            people::table(&shown, plan.as_ref().map(|plan| &plan.machine)).print()?;
            if let Some(plan) = plan {
                output::print(&format!("\n{}\n", render::command(&plan)))?;
            }
        }
    }
    Ok(())
}

/// A file of JSON, if it is there and right.
fn read(path: &Path) -> Option<Value> {
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

/// A device of the host that a guest has; a contract with scripts.
#[derive(Debug, Serialize)]
pub(super) struct OfHost {
    /// Its name, which `mvm detach` takes.
    id: String,
    /// Where it is on the host, as `mvm devices` says it: `vf:1@0000:00:02.0`, `usb 1-3`.
    device: String,
    /// What it is.
    text: String,
}

/// The devices of the host that a guest has.
pub(super) fn of_host(machine: &Machine) -> Vec<OfHost> {
    let devices = machine.host_devices.iter();
    let one = |device: &HostDevice| OfHost {
        id: device.id.to_string(),
        device: device.kind.to_string(),
        text: device.text.clone(),
    };
    devices.map(one).collect()
}

/// What the guest was started with, and what it got and gave since.
pub(super) fn plan(seen: &Seen) -> Option<Plan> {
    serde_json::from_str(&fs::read_to_string(seen.run.plan()).ok()?).ok()
}

fn of_seen(seen: &Seen, context: &Context) -> Value {
    let state = read(&seen.run.state()).unwrap_or_default();
    let field = |name: &str| state.get(name).cloned().unwrap_or_default();
    let mut shown = json!({
        "name": seen.name,
        "state": seen.state_name(),
        "pid": seen.pid(),
        "profile": field("profile"),
        "since": field("since"),
        "started": field("started"),
        "supervisor": (seen.life == Life::Supervised).then(|| field("supervisor")),
        "agent": field("agent"),
        "message": field("message"),
        "next-start": field("next-start"),
        "sockets": field("sockets"),
        "displays": field("displays"),
        "machine-file": machine_file::find(context, &seen.name),
        "logs": logs(&seen.run),
    });
    if let Some(plan) = plan(seen) {
        let whole = render::json(&plan);
        for key in ["accel", "program", "args", "env", "fds", "notes"] {
            shown[key] = whole[key].clone();
        }
        shown["devices"] = devices(&whole["machine"]);
        shown["devices"]["host"] = json!(of_host(&plan.machine));
        shown["machine"] = whole["machine"].clone();
    }
    shown
}

fn of_stopped(name: &GuestName, context: &Context) -> Result<Value, Failure> {
    let state_dir = context.dirs.guest_state(name);
    let machine = machine_file::find(context, name);
    let run = RunDir::new(&context.dirs, name);
    // One that cannot be read is told by whoever starts it.
    let asleep = asleep::read(&run).ok().flatten();
    if machine.is_none() && !state_dir.is_dir() {
        // It says what there is instead.
        guests::find(&context.dirs, name.as_str())?;
    }
    Ok(json!({
        "name": name,
        "state": asleep.as_ref().map_or("stopped", |asleep| asleep.kind.as_str()),
        "pid": null,
        "profile": match &asleep {
            Some(asleep) => json!(asleep.machine.profile),
            None => json!(machine.as_ref().map(|_| name)),
        },
        "since": asleep.as_ref().map(|asleep| asleep.at),
        "message": asleep.as_ref().map(|asleep| {
            format!("{}: `{}`", asleep.note(), asleep.start_command())
        }),
        "sockets": {},
        "devices": null,
        "machine-file": machine,
        "logs": logs(&run),
        "ended": read(&run.last()),
    }))
}

/// The logs that there are.
fn logs(run: &RunDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(run.log_dir()).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// The parts of a machine that are devices, by their kind.
fn devices(machine: &Value) -> Value {
    const KINDS: [&str; 12] = [
        "desktop", "disks", "nics", "consoles", "channels", "agent", "shares", "rng", "balloon",
        "watchdog", "vsock", "iommu",
    ];
    let there = |kind: &&str| machine.get(*kind).is_some();
    let devices: Map<String, Value> = KINDS
        .into_iter()
        .filter(there)
        .map(|kind| (kind.to_owned(), machine[kind].clone()))
        .collect();
    Value::Object(devices)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::host::{DeviceFacts, HostFacts, Roots, Sysfs};
    use crate::hosts::Host;
    use crate::machine::testing::{facts, machine_on};

    #[test]
    fn what_a_guest_has_of_the_host_is_told() {
        let host = Host::new("intel-i915-7vf");
        let devices = DeviceFacts::read(&Roots {
            sysfs: Sysfs::at(host.sys()),
            root: host.root().to_owned(),
            cache: None,
            user_config: None,
            around_devices: Some(host.root().to_owned()),
            leases: host.root().join("run/mvm-host"),
        });
        let facts = HostFacts { devices, ..facts() };
        let text = "[gpu]\nvf = 2\n[usb.stick]\nport = '1-5'";
        let machine = machine_on(text, &facts).unwrap();
        let told = serde_json::to_value(of_host(&machine)).unwrap();
        let pairs = [0, 1].map(|at| (told[at]["id"].clone(), told[at]["device"].clone()));
        let expected = [("gpu", "vf:2@0000:00:02.0"), ("stick", "usb 1-5")];
        assert_eq!(pairs, expected.map(|(id, at)| (json!(id), json!(at))));
        assert!(told[1]["text"].as_str().unwrap().contains("SanDisk"));
    }
}
