//! The questions to QEMU, asked once for each binary.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::ask::{ProbeError, ask, listed_by_help};
use super::caps::{
    CpuModel, MachineType, PROBED_DEVICES, PROBED_MACHINES, Properties, PropertyKind, QemuCaps,
    Version,
};
use super::modules;
use super::names::Names;
use super::schema::Schema;
use crate::ids::Arch;

/// How many types may kill QEMU by being looked into before mvm gives up on it.
const MOST_CRASHES: u32 = 5;

/// Asks everything.
pub(super) fn probe(binary: &Path, arch: Arch, extra: &[String]) -> Result<QemuCaps, ProbeError> {
    let types = |of: &str| json!({ "implements": of, "abstract": false });
    let mut replies = ask(
        binary,
        &[
            ("machines", "query-machines", Value::Null),
            ("cpus", "query-cpu-definitions", Value::Null),
            ("devices", "qom-list-types", types("device")),
            ("objects", "qom-list-types", types("user-creatable")),
            ("accels", "qom-list-types", types("accel")),
            ("chardevs", "qom-list-types", types("chardev")),
            ("schema", "query-qmp-schema", Value::Null),
            ("options", "query-command-line-options", Value::Null),
        ],
    )?;
    let greeting: Greeting = replies.take("QMP", "the greeting")?;
    let version = greeting.version.qemu;
    let version = Version(version.major, version.minor, version.micro);
    // 6.2 has JSON for `-device`; before it nothing here was ever tried.
    if version < Version(6, 2, 0) {
        return Err(ProbeError::Old(version));
    }
    let schema = Schema::parse(replies.take("schema", "query-qmp-schema")?).map_err(|source| {
        ProbeError::Answer {
            command: "query-qmp-schema",
            source,
        }
    })?;
    let options: Vec<OptionInfo> = replies.take("options", "query-command-line-options")?;
    let types = |list: Vec<TypeInfo>, suffix: &str, prefix: &str| -> Names {
        list.into_iter()
            .filter_map(|t| {
                let name = t.name.strip_suffix(suffix)?.strip_prefix(prefix)?;
                Some(name.to_owned())
            })
            .collect()
    };
    let mut caps = QemuCaps {
        binary: binary.to_owned(),
        arch,
        version,
        package: greeting.version.package,
        machines: machines(replies.take("machines", "query-machines")?),
        cpus: cpus(replies.take("cpus", "query-cpu-definitions")?),
        devices: types(replies.take("devices", "qom-list-types")?, "", ""),
        objects: types(replies.take("objects", "qom-list-types")?, "", ""),
        accels: types(replies.take("accels", "qom-list-types")?, "-accel", ""),
        chardevs: types(replies.take("chardevs", "qom-list-types")?, "", "chardev-"),
        properties: BTreeMap::new(),
        netdevs: schema.argument_kinds("netdev_add"),
        netdev_options: schema.argument_options("netdev_add"),
        displays: listed_by_help(binary, "-display")?,
        display_options: schema.result_options("query-display-options"),
        audiodevs: listed_by_help(binary, "-audiodev")?,
        blockdevs: schema.argument_kinds("blockdev-add"),
        aio: schema.argument_values("blockdev-add", "file", "aio"),
        options: options
            .into_iter()
            .map(|o| {
                let names = o.parameters.into_iter().map(|p| p.name).collect();
                (o.option, names)
            })
            .collect(),
        commands: schema.commands(),
        json_device: schema.has_feature("device_add", "json-cli-hotplug"),
        unloadable: BTreeMap::new(),
    };
    let mut built_audio = schema.result_kinds("query-audiodevs");
    if built_audio.is_empty() {
        // Before 8.0 the schema does not say.
        built_audio = ["alsa", "jack", "oss", "pa", "sdl", "spice"]
            .into_iter()
            .collect();
    }
    caps.unloadable = modules::unloadable(
        &caps,
        &modules::directories(binary),
        &schema.result_kinds("query-display-options"),
        &built_audio,
    );
    let wanted = PROBED_DEVICES.iter().copied();
    let wanted: Vec<&str> = wanted.chain(extra.iter().map(String::as_str)).collect();
    add_properties(&mut caps, &wanted, PROBED_MACHINES)?;
    Ok(caps)
}

/// Reads the properties of those device types that this QEMU has, and of these machine types.
pub(super) fn add_properties(
    caps: &mut QemuCaps,
    devices: &[&str],
    machines: &[&str],
) -> Result<(), ProbeError> {
    let devices = devices.iter().copied().filter(|d| caps.has_device(d));
    let machines = machines
        .iter()
        .filter_map(|m| caps.machine(m).map(|(real, _)| real.to_owned()));
    let machines: Vec<String> = machines.collect();
    let mut questions: Vec<(&str, &str, Value)> = devices
        .map(|d| (d, "device-list-properties", json!({ "typename": d })))
        .collect();
    questions.extend(machines.iter().map(|m| {
        let typename = json!({ "typename": format!("{m}-machine") });
        (m.as_str(), "qom-list-properties", typename)
    }));
    let mut rest = questions.as_slice();
    let mut crashes = 0;
    while !rest.is_empty() {
        // A pipe's worth at a time; see `bounded::talk`.
        let part = &rest[..rest.len().min(300)];
        let mut replies = ask(&caps.binary, part)?;
        let mut answered = 0;
        for (name, command, _) in part {
            match replies.take::<Vec<TypeInfo>>(name, command) {
                Ok(list) => {
                    let known = properties(list);
                    caps.properties.insert((*name).to_owned(), known);
                }
                // To look into a type QEMU makes one of it, and there are types that kill it (microvm's
                // machine in 7.2 does): this one's properties stay unknown, the others are asked again.
                Err(error @ ProbeError::Ended { .. }) => {
                    crashes += 1;
                    if crashes > MOST_CRASHES {
                        return Err(error);
                    }
                    tracing::debug!("QEMU does not survive a look at {name}: {error}");
                    answered += 1;
                    break;
                }
                // A type that cannot be looked into has no known properties; QEMU itself will say.
                Err(_) => {}
            }
            answered += 1;
        }
        rest = &rest[answered..];
    }
    Ok(())
}

/// Reads the properties of those device types that this QEMU has and whose properties are not known
/// yet; `false` where there was none to ask for.
pub(super) fn add_missing(caps: &mut QemuCaps, devices: &[&str]) -> Result<bool, ProbeError> {
    let missing = devices
        .iter()
        .copied()
        .filter(|d| caps.has_device(d) && !caps.properties_known(d));
    let missing: Vec<&str> = missing.collect();
    if missing.is_empty() {
        return Ok(false);
    }
    add_properties(caps, &missing, &[])?;
    Ok(true)
}

fn properties(list: Vec<TypeInfo>) -> Properties {
    let mut kinds: BTreeMap<PropertyKind, Vec<String>> = BTreeMap::new();
    for property in list {
        // `type` is what every object has, and is read only.
        if property.name == "type" {
            continue;
        }
        // Before 10.0 a PCI address says that it is a number, and takes one for the packed form of slot
        // and function; as text it is what people write, `06.0`.
        let kind = match property.name.as_str() {
            "addr" => Some(PropertyKind::Text),
            _ => PropertyKind::of_type(&property.type_),
        };
        if let Some(kind) = kind {
            kinds.entry(kind).or_default().push(property.name);
        }
    }
    let kinds = kinds.into_iter().map(|(k, n)| (k, n.into_iter().collect()));
    Properties(kinds.collect())
}

#[derive(Deserialize)]
struct Greeting {
    version: VersionInfo,
}

#[derive(Deserialize)]
struct VersionInfo {
    qemu: VersionTriple,
    #[serde(default)]
    package: String,
}

#[derive(Deserialize)]
struct VersionTriple {
    major: u32,
    minor: u32,
    micro: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MachineInfo {
    name: String,
    alias: Option<String>,
    #[serde(default)]
    cpu_max: u32,
    #[serde(default)]
    deprecated: bool,
    default_cpu_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct CpuInfo {
    name: String,
    #[serde(default)]
    unavailable_features: Vec<String>,
    #[serde(default)]
    deprecated: bool,
}

/// A type or a property.
#[derive(Deserialize)]
struct TypeInfo {
    name: String,
    #[serde(default, rename = "type")]
    type_: String,
}

#[derive(Deserialize)]
struct OptionInfo {
    option: String,
    #[serde(default)]
    parameters: Vec<TypeInfo>,
}

fn machines(list: Vec<MachineInfo>) -> BTreeMap<String, MachineType> {
    let mut all = BTreeMap::new();
    for machine in list {
        // `qemu64-x86_64-cpu` is the model `qemu64`.
        let default_cpu = machine.default_cpu_type.map(|t| {
            let end = ["-x86_64-cpu", "-i386-cpu", "-arm-cpu"];
            let model = end.iter().find_map(|e| t.strip_suffix(e));
            model.map_or(t.clone(), str::to_owned)
        });
        if let Some(alias) = machine.alias {
            let entry = MachineType {
                alias_of: Some(machine.name.clone()),
                cpu_max: machine.cpu_max,
                ..MachineType::default()
            };
            all.insert(alias, entry);
        }
        let entry = MachineType {
            alias_of: None,
            cpu_max: machine.cpu_max,
            deprecated: machine.deprecated,
            default_cpu,
        };
        all.insert(machine.name, entry);
    }
    all
}

fn cpus(list: Vec<CpuInfo>) -> BTreeMap<String, CpuModel> {
    let model = |cpu: CpuInfo| {
        let needs_kvm = cpu.name == "host" || cpu.unavailable_features.iter().any(|f| f == "kvm");
        let deprecated = cpu.deprecated;
        (
            cpu.name,
            CpuModel {
                needs_kvm,
                deprecated,
            },
        )
    };
    list.into_iter().map(model).collect()
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
