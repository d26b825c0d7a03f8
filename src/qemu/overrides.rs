//! Properties that the profile sets, folded into the devices: `-set` does not reach those in JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::command::{Arg, CommandLine};

/// The types of the devices of a command line, by id.
pub fn drivers(line: &CommandLine) -> BTreeMap<String, String> {
    let devices = line.args.iter().zip(line.args.iter().skip(1));
    let devices = devices.filter(|(switch, _)| is_device(switch));
    devices
        .filter_map(|(_, arg)| {
            let (Arg::Text(text) | Arg::Real(text) | Arg::Fd { real: text, .. }) = arg;
            let device: Value = serde_json::from_str(text).ok()?;
            let text = |key: &str| Some(device.get(key)?.as_str()?.to_owned());
            Some((text("id")?, text("driver")?))
        })
        .collect()
}

/// Sets the properties.
pub(super) fn apply(args: &mut [Arg], overrides: &BTreeMap<String, Map<String, Value>>) {
    if overrides.is_empty() {
        return;
    }
    for at in 1..args.len() {
        if !is_device(&args[at - 1]) {
            continue;
        }
        match &mut args[at] {
            Arg::Text(text) | Arg::Real(text) => set(text, overrides),
            Arg::Fd { real, shown } => {
                set(real, overrides);
                set(shown, overrides);
            }
        }
    }
}

fn is_device(switch: &Arg) -> bool {
    matches!(switch, Arg::Text(text) if text == "-device")
}

fn set(text: &mut String, overrides: &BTreeMap<String, Map<String, Value>>) {
    let Ok(Value::Object(mut device)) = serde_json::from_str(text) else {
        return;
    };
    let id = device.get("id").and_then(Value::as_str);
    if let Some(properties) = id.and_then(|id| overrides.get(id)) {
        for (name, value) in properties {
            device.insert(name.clone(), value.clone());
        }
        *text = Value::Object(device).to_string();
    }
}
