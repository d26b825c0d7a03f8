//! `mvm info`

use clap::Args;
use serde_json::Value;

use super::inside::AgentLink;
use super::output::{self, Format, FormatArg, Table, human_bytes};
use super::{Context, Failure, block_on};
use crate::guest::inside::clock;
use crate::guest::inside::os::{self, Info};
use crate::units::Span;

/// Show what a guest says of itself: operating system, name, clock, users, file systems
///
/// Its agent tells it; `mvm show` tells what mvm knows of the guest.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm info web
  mvm info web --format json | jq -r .os.id")]
pub(super) struct InfoArgs {
    /// The guest
    name: String,
    /// How long the agent may take for each answer
    #[arg(long, default_value = "10s", value_name = "SPAN")]
    timeout: Span,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) fn run(args: &InfoArgs, context: &Context) -> Result<(), Failure> {
    let info = block_on(async {
        let mut link = AgentLink::find(context, &args.name)?;
        Ok(os::info(&mut link, args.timeout.duration()).await?)
    })?;
    match args.format.format {
        Format::Json => output::print_json(&info)?,
        Format::Table => table(&info, clock::now()).print()?,
    }
    Ok(())
}

/// A line for each thing that is known.
fn table(info: &Info, now: i64) -> Table {
    let mut table = Table::bare();
    let mut line = |label: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            table.row([label, &value]);
        }
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    line("name", Some(info.name.clone()));
    line("hostname", text(&info.hostname));
    line(
        "system",
        text(&info.os["pretty-name"]).or(text(&info.os["name"])),
    );
    let kernel = [&info.os["kernel-release"], &info.os["machine"]];
    let kernel: Vec<&str> = kernel.iter().filter_map(|part| part.as_str()).collect();
    line("kernel", Some(kernel.join(" ")));
    line(
        "time",
        info.time_ns.as_i64().map(|time| time_of(info, time, now)),
    );
    if let (Some(online), Some(all)) = (info.cpus["online"].as_u64(), info.cpus["all"].as_u64()) {
        line("processors", Some(format!("{online} of {all} online")));
    }
    for user in info.users.as_array().into_iter().flatten() {
        let since = user["login-time"].as_f64().map(|seconds| {
            let nanos = (seconds * 1e9) as i64;
            format!(" since {}", clock::write(nanos))
        });
        let name = user["user"].as_str().unwrap_or_default();
        line("user", Some(format!("{name}{}", since.unwrap_or_default())));
    }
    for fs in info.file_systems.as_array().into_iter().flatten() {
        line("file system", Some(file_system(fs)));
    }
    line(
        "agent",
        text(&info.agent).map(|version| format!("qemu-ga {version}")),
    );
    table
}

/// The guest's clock, and how far it is from this host's where that is worth a word.
fn time_of(info: &Info, time: i64, now: i64) -> String {
    let zone = info.timezone["zone"].as_str();
    let mut shown = clock::write(time);
    if let Some(zone) = zone {
        shown = format!("{shown}, zone {zone}");
    }
    let off = (time - now) / 1_000_000_000;
    match off {
        -4..=4 => shown,
        5.. => format!("{shown}, {off} s ahead of this host"),
        _ => format!("{shown}, {} s behind this host", -off),
    }
}

fn file_system(fs: &Value) -> String {
    let text = |key: &str| fs[key].as_str().unwrap_or("?");
    let mut shown = format!(
        "{} ({} on {})",
        text("mountpoint"),
        text("type"),
        text("name")
    );
    if let (Some(used), Some(total)) = (fs["used-bytes"].as_u64(), fs["total-bytes"].as_u64()) {
        shown = format!(
            "{shown}, {} of {} used",
            human_bytes(used),
            human_bytes(total)
        );
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_known_has_a_line() {
        let info = Info {
            name: "web".to_owned(),
            hostname: json!("web1"),
            os: json!({"pretty-name": "Debian 12", "kernel-release": "6.1", "machine": "x86_64"}),
            time_ns: json!(60_000_000_000_i64),
            timezone: json!({"zone": "UTC", "offset": 0}),
            users: json!([{"user": "root", "login-time": 1.5}]),
            file_systems: json!([
                {"mountpoint": "/", "type": "ext4", "name": "vda1", "used-bytes": 1024, "total-bytes": 4096}
            ]),
            cpus: json!({"online": 1, "all": 2}),
            agent: json!("7.2.0"),
        };
        assert_eq!(
            table(&info, 0).render(),
            "name         web\n\
             hostname     web1\n\
             system       Debian 12\n\
             kernel       6.1 x86_64\n\
             time         1970-01-01T00:01:00Z, zone UTC, 60 s ahead of this host\n\
             processors   1 of 2 online\n\
             user         root since 1970-01-01T00:00:01Z\n\
             file system  / (ext4 on vda1), 1K of 4K used\n\
             agent        qemu-ga 7.2.0\n"
        );
        let nothing = Info {
            hostname: Value::Null,
            os: Value::Null,
            time_ns: Value::Null,
            timezone: Value::Null,
            users: Value::Null,
            file_systems: Value::Null,
            cpus: Value::Null,
            agent: Value::Null,
            ..info
        };
        assert_eq!(table(&nothing, 0).render(), "name  web\n");
    }
}
