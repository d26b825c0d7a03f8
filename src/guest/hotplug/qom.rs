//! What QEMU's object tree says about devices: it is right at once, whatever the guest makes of them.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use mvm_qmp::{Qmp, QmpError};
use serde_json::{Value, json};

use crate::machine::slots::is_free_port;

/// Where devices with names are.
const PERIPHERAL: &str = "/machine/peripheral";
/// Where objects are.
const OBJECTS: &str = "/objects";
/// How root ports are called (`machine::slots`).
const PORT: &str = "mvm-port-";

async fn list(qmp: &Qmp, path: &str) -> Result<Vec<String>, QmpError> {
    let found = qmp.call("qom-list", Some(json!({ "path": path }))).await?;
    let entries = found.as_array().into_iter().flatten();
    Ok(entries
        .filter_map(|entry| entry["name"].as_str().map(ToOwned::to_owned))
        .collect())
}

/// Every device with a name.
pub(super) async fn devices(qmp: &Qmp) -> Result<BTreeSet<String>, QmpError> {
    Ok(list(qmp, PERIPHERAL).await?.into_iter().collect())
}

/// Every object.
pub(super) async fn objects(qmp: &Qmp) -> Result<BTreeSet<String>, QmpError> {
    Ok(list(qmp, OBJECTS).await?.into_iter().collect())
}

/// The root ports that nothing is behind, by their numbers. A device that the guest has still to let go
/// holds its port.
pub(super) async fn free_ports(qmp: &Qmp) -> Result<Vec<String>, QmpError> {
    let number = |id: &str| id.strip_prefix(PORT)?.parse::<u32>().ok();
    let mut ports: Vec<(u32, String)> = Vec::new();
    for id in devices(qmp).await? {
        let Some(number) = number(&id) else {
            continue;
        };
        if !has_children(qmp, &format!("{id}/{id}")).await? {
            ports.push((number, id));
        }
    }
    // Those kept for this first: the ports of devices that have gone are left to the last, as they may want to come
    // back there.
    ports.sort_by_key(|(number, _)| (!is_free_port(*number), Reverse(*number)));
    Ok(ports.into_iter().map(|(_, id)| id).collect())
}

async fn has_children(qmp: &Qmp, bus: &str) -> Result<bool, QmpError> {
    let found = list(qmp, &format!("{PERIPHERAL}/{bus}")).await?;
    Ok(found.iter().any(|name| name.starts_with("child[")))
}

/// Whether a device is there and works, as far as QEMU goes.
pub(super) async fn is_realized(qmp: &Qmp, id: &str) -> Result<bool, QmpError> {
    let path = format!("{PERIPHERAL}/{id}");
    let asked = json!({ "path": path, "property": "realized" });
    Ok(qmp.call("qom-get", Some(asked)).await? == Value::Bool(true))
}
