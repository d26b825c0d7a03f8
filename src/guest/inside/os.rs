//! What a guest says of itself.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::{CallError, Inside};

/// A guest's own account; what its agent cannot tell is null. A contract with scripts.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Info {
    /// The guest, as mvm calls it.
    pub name: String,
    /// Its own name.
    pub hostname: Value,
    /// Its operating system: `name`, `pretty-name`, `version`, `kernel-release`, `machine` and more.
    pub os: Value,
    /// Its clock, in nanoseconds since 1970.
    pub time_ns: Value,
    /// Its time zone: `zone`, and `offset` in seconds east.
    pub timezone: Value,
    /// Who is logged in: `user`, and `login-time` in seconds since 1970.
    pub users: Value,
    /// What is mounted: `mountpoint`, `type`, `name`, `total-bytes` and `used-bytes` where they are told.
    pub file_systems: Value,
    /// Its processors: how many are `online` of `all`.
    pub cpus: Value,
    /// The agent's version.
    pub agent: Value,
}

/// Asks for all of it.
///
/// # Errors
/// An agent that does not answer at all.
pub async fn info(inside: &mut impl Inside, within: Duration) -> Result<Info, CallError> {
    let agent = inside.call("guest-info", Value::Null, within).await?;
    let mut ask = async |command: &str| told(inside.call(command, Value::Null, within).await);
    let hostname = ask("guest-get-host-name").await?;
    let os = ask("guest-get-osinfo").await?;
    let time_ns = ask("guest-get-time").await?;
    let timezone = ask("guest-get-timezone").await?;
    let users = ask("guest-get-users").await?;
    let file_systems = ask("guest-get-fsinfo").await?;
    let vcpus = ask("guest-get-vcpus").await?;
    Ok(Info {
        name: inside.guest().to_owned(),
        hostname: hostname["host-name"].clone(),
        os,
        time_ns,
        timezone,
        users,
        file_systems: file_systems_of(&file_systems),
        cpus: cpus(&vcpus),
        agent: agent["version"].clone(),
    })
}

/// What one of the agent's commands told; null where it would not.
fn told(answer: Result<Value, CallError>) -> Result<Value, CallError> {
    match answer {
        Ok(value) => Ok(value),
        Err(error @ CallError::Refused { .. }) => {
            tracing::info!(%error, "not told");
            Ok(Value::Null)
        }
        Err(error) => Err(error),
    }
}

fn cpus(vcpus: &Value) -> Value {
    let Some(all) = vcpus.as_array() else {
        return Value::Null;
    };
    let online = all.iter().filter(|cpu| cpu["online"] == true).count();
    json!({ "online": online, "all": all.len() })
}

/// The agent lists the newest mount first.
fn file_systems_of(list: &Value) -> Value {
    let Some(list) = list.as_array() else {
        return Value::Null;
    };
    let one = |entry: &Value| {
        let mut one = json!({});
        for key in ["mountpoint", "type", "name", "total-bytes", "used-bytes"] {
            if let Some(value) = entry.get(key) {
                one[key] = value.clone();
            }
        }
        one
    };
    let mut all: Vec<Value> = list.iter().map(one).collect();
    all.sort_by_key(|one| one["mountpoint"].as_str().unwrap_or_default().to_owned());
    Value::Array(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_counted_and_put_in_order() {
        let vcpus = json!([{"logical-id": 0, "online": true}, {"logical-id": 1, "online": false}]);
        assert_eq!(cpus(&vcpus), json!({"online": 1, "all": 2}));
        assert_eq!(cpus(&Value::Null), Value::Null);
        let mounts = json!([
            {"mountpoint": "/srv", "type": "ext4", "name": "vda", "disk": [{"bus": 1}]},
            {"mountpoint": "/", "type": "ext4", "name": "vdb", "total-bytes": 9, "used-bytes": 4}
        ]);
        let sorted = file_systems_of(&mounts);
        assert_eq!(sorted[0]["mountpoint"], "/");
        assert_eq!(
            sorted[1],
            json!({"mountpoint": "/srv", "type": "ext4", "name": "vda"})
        );
    }
}
