//! What a profile says to QEMU itself: its environment, and properties of its devices.

use std::collections::BTreeMap;
use std::num::ParseIntError;

use serde_json::{Map, Value};

use super::Machine;
use crate::error::{ExitCode, Hint, did_you_mean};
use crate::host::QemuCaps;
use crate::host::qemu::PropertyKind;
use crate::profile::schema::{Layer, PropertyValue};

/// What decides how QEMU is started and is mvm's.
const OURS: [&str; 3] = ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID"];

/// What cannot be said to QEMU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OverrideError {
    /// Not a name of a variable.
    #[error("`[env]`: {0:?} is not a name of a variable: letters, digits and `_`, no digit first")]
    BadName(String),
    /// A variable of mvm's own.
    #[error("`[env]`: {0} is set by what started mvm, and QEMU does not get it")]
    OursName(String),
    /// The command line has no such device.
    #[error("`[override.{id}]`: QEMU gets no device of that id")]
    NoDevice {
        /// The id.
        id: String,
        /// Those that it gets.
        known: Vec<String>,
    },
    /// The device has no such property.
    #[error("`override.{id}.{property}`: {driver} has no such property in this QEMU ({version})")]
    NoProperty {
        /// The id.
        id: String,
        /// The property.
        property: String,
        /// The device type.
        driver: String,
        /// QEMU's version.
        version: String,
        /// One that is spelt alike.
        near: Option<String>,
    },
    /// The value is of another kind.
    #[error("`override.{id}.{property}` is {value}, and {driver} takes {wants}")]
    BadValue {
        /// The id.
        id: String,
        /// The property.
        property: String,
        /// The value.
        value: String,
        /// The device type.
        driver: String,
        /// What it takes.
        wants: &'static str,
    },
}

impl Hint for OverrideError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::NoDevice { id, known } => {
                let names = known.iter().map(String::as_str);
                let near = did_you_mean(id, names).map(|near| format!("did you mean `{near}`?"));
                let all = format!("its devices are {}", known.join(", "));
                near.into_iter().chain([all]).collect()
            }
            Self::NoProperty { near, driver, .. } => {
                let near = near.iter().map(|near| format!("did you mean `{near}`?"));
                let all = format!("`qemu-system-… -device {driver},help` lists them");
                near.chain([all]).collect()
            }
            _ => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Profile
    }
}

/// The variables of QEMU's environment.
pub(super) fn env(layer: &Layer) -> Result<BTreeMap<String, String>, OverrideError> {
    let env = layer.env.clone().unwrap_or_default();
    for name in env.keys() {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let first = name.bytes().next();
        if first.is_none_or(|byte| byte.is_ascii_digit()) || !name.bytes().all(plain) {
            return Err(OverrideError::BadName(name.chars().take(80).collect()));
        }
        if OURS.contains(&name.as_str()) {
            return Err(OverrideError::OursName(name.clone()));
        }
    }
    Ok(env)
}

/// The properties as the profile has them: what they must be is known once it is known whose they are.
pub(super) fn asked(layer: &Layer) -> BTreeMap<String, Map<String, Value>> {
    let value = |value: &PropertyValue| match value {
        PropertyValue::Bool(value) => Value::from(*value),
        PropertyValue::Number(value) => Value::from(*value),
        PropertyValue::Text(value) => Value::from(value.as_str()),
    };
    let all = layer.r#override.iter().flatten();
    let all = all.filter(|(_, properties)| !properties.is_empty());
    all.map(|(id, properties)| {
        let properties = properties.iter();
        let properties = properties.map(|(name, said)| (name.clone(), value(said)));
        (id.clone(), properties.collect())
    })
    .collect()
}

impl Machine {
    /// Turns what the profile says of properties into what QEMU takes: `drivers` are the types of the devices that it
    /// gets, by id.
    ///
    /// # Errors
    /// There is no such device, it has no such property, or the property takes something else.
    pub fn settle_overrides(
        &mut self,
        drivers: &BTreeMap<String, String>,
        caps: &QemuCaps,
    ) -> Result<(), OverrideError> {
        for (id, properties) in &mut self.overrides {
            let Some(driver) = drivers.get(id) else {
                return Err(OverrideError::NoDevice {
                    id: id.clone(),
                    known: drivers.keys().cloned().collect(),
                });
            };
            // What this QEMU did not tell it says itself.
            if !caps.properties_known(driver) {
                continue;
            }
            for (property, value) in properties.iter_mut() {
                let Some(kind) = caps.device_property(driver, property) else {
                    let known = caps.property_names(driver);
                    return Err(OverrideError::NoProperty {
                        id: id.clone(),
                        property: property.clone(),
                        driver: driver.clone(),
                        version: caps.version.to_string(),
                        near: did_you_mean(property, known).map(str::to_owned),
                    });
                };
                *value = typed(kind, value).map_err(|wants| OverrideError::BadValue {
                    id: id.clone(),
                    property: property.clone(),
                    value: value.to_string(),
                    driver: driver.clone(),
                    wants,
                })?;
            }
        }
        Ok(())
    }
}

/// The value as a property of that kind takes it, or what it takes. A text may stand for what it says, as in what
/// was written for `-set`.
fn typed(kind: PropertyKind, value: &Value) -> Result<Value, &'static str> {
    let text = value.as_str();
    match kind {
        PropertyKind::Bool => match (value, text) {
            (Value::Bool(_), _) => Ok(value.clone()),
            (_, Some("on" | "yes" | "true")) => Ok(true.into()),
            (_, Some("off" | "no" | "false")) => Ok(false.into()),
            _ => Err("`true` or `false`"),
        },
        PropertyKind::Unsigned => {
            let number = value
                .as_u64()
                .or_else(|| number(text?, u64::from_str_radix));
            number.map(Value::from).ok_or("a whole number, 0 or more")
        }
        PropertyKind::Signed => {
            let number = value
                .as_i64()
                .or_else(|| number(text?, i64::from_str_radix));
            number.map(Value::from).ok_or("a whole number")
        }
        PropertyKind::Text => match value {
            Value::Bool(true) => Ok("on".into()),
            Value::Bool(false) => Ok("off".into()),
            Value::Number(number) => Ok(number.to_string().into()),
            _ => Ok(value.clone()),
        },
        PropertyKind::List => Err("a list, which cannot be said here"),
    }
}

fn number<T>(text: &str, read: fn(&str, u32) -> Result<T, ParseIntError>) -> Option<T> {
    match text.strip_prefix("0x") {
        Some(hex) => read(hex, 16).ok(),
        None => read(text, 10).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_all_their_bits() {
        let all = Value::from("0xffffffffffffffff");
        assert_eq!(typed(PropertyKind::Unsigned, &all), Ok(u64::MAX.into()));
        assert!(typed(PropertyKind::Signed, &all).is_err());
        assert!(typed(PropertyKind::Unsigned, &"-1".into()).is_err());
        assert_eq!(typed(PropertyKind::Signed, &"-1".into()), Ok((-1).into()));
    }
}
