//! What QEMU is told for a guest that runs to get devices: the objects of the command line, as commands.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::args::Args;
use super::command::{Arg, Fd};
use super::{Context, disk, host_devices, net};
use crate::machine::Machine;
use crate::machine::slots::{FREE_PORT, Slots};

/// Everything that QEMU is told, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plug {
    /// The commands.
    pub calls: Vec<Call>,
    /// The descriptors that they name.
    pub fds: Vec<Fd>,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Call {
    /// What it makes.
    pub makes: Makes,
    /// The name of what it makes.
    pub id: String,
    /// Its arguments; `{fd:NAME}` stands for a descriptor's name at QEMU, `{port:WORD}` for the id of a
    /// free root port, the same one for the same word.
    pub arguments: Value,
    /// What people would write instead, where it differs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shown: Option<Value>,
}

/// What a command makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Makes {
    /// A block node.
    Node,
    /// A network's back end.
    Netdev,
    /// An object.
    Object,
    /// An object that other devices use as well: it is made where there is none, and stays.
    SharedObject,
    /// A controller, which other devices use as well: it is made where there is none.
    Controller,
    /// A device.
    Device,
}

impl Makes {
    fn of(switch: &str, id: &str) -> Option<Self> {
        Some(match switch {
            "-blockdev" => Self::Node,
            "-netdev" => Self::Netdev,
            "-object" if id.starts_with("mvm-") => Self::SharedObject,
            "-object" => Self::Object,
            "-device" if [disk::SCSI, disk::USB].contains(&id) => Self::Controller,
            "-device" => Self::Device,
            _ => return None,
        })
    }

    /// QEMU's command.
    pub const fn command(self) -> &'static str {
        match self {
            Self::Node => "blockdev-add",
            Self::Netdev => "netdev_add",
            Self::Object | Self::SharedObject => "object-add",
            Self::Controller | Self::Device => "device_add",
        }
    }

    /// QEMU's command that takes it back, and the argument that names it. That a device is gone QEMU says
    /// later, by an event.
    pub const fn undone_by(self) -> (&'static str, &'static str) {
        match self {
            Self::Node => ("blockdev-del", "node-name"),
            Self::Netdev => ("netdev_del", "id"),
            Self::Object | Self::SharedObject => ("object-del", "id"),
            Self::Controller | Self::Device => ("device_del", "id"),
        }
    }

    /// Whether others use it too.
    pub const fn is_shared(self) -> bool {
        matches!(self, Self::Controller | Self::SharedObject)
    }

    /// Whether it sits in the guest.
    pub const fn is_device(self) -> bool {
        matches!(self, Self::Controller | Self::Device)
    }
}

/// How a machine that runs gets the devices of `alone`, a machine of those alone.
pub fn plug(alone: &Machine) -> Plug {
    let context = Context::of(alone, Slots::hot(alone));
    let mut args = Args::default();
    disk::add(&mut args, alone, context);
    net::add(&mut args, alone, context);
    host_devices::add(&mut args, alone, context);
    let mut calls = Vec::new();
    for pair in args.args.chunks(2) {
        let [Arg::Text(switch), value] = pair else {
            continue;
        };
        let (real, shown) = match value {
            Arg::Text(real) | Arg::Real(real) => (real, None),
            Arg::Fd { real, shown } => (real, serde_json::from_str(shown).ok()),
        };
        // They were made of JSON.
        let Ok(arguments) = serde_json::from_str::<Value>(real) else {
            continue;
        };
        let id = ["id", "node-name"]
            .iter()
            .find_map(|key| arguments[*key].as_str())
            .unwrap_or_default()
            .to_owned();
        if let Some(makes) = Makes::of(switch, &id) {
            calls.push(Call {
                makes,
                id,
                arguments,
                shown,
            });
        }
    }
    functions_first_one_last(&mut calls);
    Plug {
        calls,
        fds: args.fds,
    }
}

/// A guest looks at a slot when its function 0 comes: the others have to be there by then.
fn functions_first_one_last(calls: &mut [Call]) {
    let slot = |call: &Call| call.port().map(str::to_owned);
    calls
        .chunk_by_mut(|one, other| one.port().is_some() && slot(one) == slot(other))
        .for_each(<[Call]>::reverse);
}

impl Call {
    /// The word of the free port that it takes.
    pub fn port(&self) -> Option<&str> {
        let bus = self.arguments["bus"].as_str()?;
        bus.strip_prefix(FREE_PORT)?.strip_suffix('}')
    }

    /// Whether it names that descriptor.
    pub fn uses_fd(&self, name: &str) -> bool {
        let word = format!("{{fd:{name}}}");
        let arguments = self.arguments.as_object().into_iter().flatten();
        let names = |value: &Value| value.as_str().is_some_and(|text| text.contains(&word));
        arguments.into_iter().any(|(_, value)| names(value))
    }

    /// The arguments with the port's id in place of the word, and each descriptor's name at QEMU.
    pub fn settled(&self, port: Option<&str>, fd: impl Fn(&str) -> String) -> Value {
        let mut arguments = self.arguments.clone();
        if let (Some(port), Some(_)) = (port, self.port()) {
            arguments["bus"] = port.into();
        }
        for (_, value) in arguments.as_object_mut().into_iter().flatten() {
            // One, or those of several queues.
            let names = value.as_str().and_then(|text| {
                let inner = text.strip_prefix("{fd:")?.strip_suffix('}')?;
                let names: Vec<String> = inner.split("}:{fd:").map(&fd).collect();
                Some(names.join(":"))
            });
            if let Some(names) = names {
                *value = names.into();
            }
        }
        arguments
    }
}
