//! Consoles, channels and the agent: what is connected by character devices.

use super::{Channel, Console, Desktop};
use crate::error::{ExitCode, Hint};
use crate::ids::Id;
use crate::profile::schema::{ConsoleBackend, ConsoleDevice, Layer};

/// The name of the guest agent's port.
pub const AGENT_PORT: &str = "org.qemu.guest_agent.0";
/// The name of the port of SPICE's agent.
pub const SPICE_AGENT_PORT: &str = "com.redhat.spice.0";
/// Its number: the last.
pub const SPICE_AGENT_NUMBER: usize = 30;
/// The name of the port of SPICE's shared folders.
pub const WEBDAV_PORT: &str = "org.spice-space.webdav.0";
/// Its number.
pub const WEBDAV_NUMBER: usize = 29;
/// How many virtio consoles there are ports for.
pub const MAX_VIRTIO_CONSOLES: usize = 9;
/// How many channels there are ports for.
pub const MAX_CHANNELS: usize = 19;

/// A console or channel that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Every board has one UART that mvm drives.
    #[error("consoles `{first}` and `{second}` are both on the serial port, and a guest has one")]
    TwoSerials {
        /// The one.
        first: Id,
        /// The other.
        second: Id,
    },
    /// More than there are ports for.
    #[error("{count} {what} are more than the {max} that a guest can have")]
    TooMany {
        /// How many.
        count: usize,
        /// Of what.
        what: &'static str,
        /// How many there can be.
        max: usize,
    },
    /// One port name, two channels.
    #[error("{first} and channel `{second}` both have the port {port:?}")]
    PortTwice {
        /// The one.
        first: String,
        /// The other.
        second: Id,
        /// The name.
        port: String,
    },
    /// Not a name that a guest can make a link of.
    #[error(
        "channel `{id}`: {port:?} is not a port's name (1 to 100 characters without `/` and control characters)"
    )]
    BadPort {
        /// The channel.
        id: Id,
        /// The name.
        port: String,
    },
}

impl Hint for PortError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::TwoSerials { second, .. } => {
                vec![format!("set `console.{second}.device = \"virtio\"`")]
            }
            Self::PortTwice { port, .. } if port == AGENT_PORT => vec![
                "`[agent]` makes the agent's channel; leave the other out, or set `agent.enabled = false`"
                    .to_owned(),
            ],
            _ => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Profile
    }
}

/// The consoles, the one that `mvm console` attaches to first. A guest whose profile does not speak of
/// `main` has it on the serial port, unless another console is there.
pub(super) fn consoles(layer: &Layer) -> Result<Vec<Console>, PortError> {
    let tables = layer.console.iter().flatten();
    let mut consoles: Vec<Console> = Vec::new();
    let mut main_said = false;
    for (id, table) in tables {
        let main = id.as_str() == "main";
        main_said |= main;
        let device = table.device.unwrap_or(if main {
            ConsoleDevice::Serial
        } else {
            ConsoleDevice::Virtio
        });
        if device == ConsoleDevice::None {
            continue;
        }
        consoles.push(Console {
            id: id.clone(),
            virtio: device == ConsoleDevice::Virtio,
            pty: table.backend == Some(ConsoleBackend::Pty),
        });
    }
    let mut serials = consoles.iter().filter(|console| !console.virtio);
    if let (Some(first), Some(second)) = (serials.next(), serials.next()) {
        return Err(PortError::TwoSerials {
            first: first.id.clone(),
            second: second.id.clone(),
        });
    }
    if !main_said && consoles.iter().all(|console| console.virtio) {
        let id = "main".parse().expect("`main` is an id");
        consoles.push(Console {
            id,
            virtio: false,
            pty: false,
        });
    }
    let virtio = consoles.iter().filter(|console| console.virtio).count();
    if virtio > MAX_VIRTIO_CONSOLES {
        return Err(PortError::TooMany {
            count: virtio,
            what: "virtio consoles",
            max: MAX_VIRTIO_CONSOLES,
        });
    }
    // Stable: `main`, then the serial one, then by name.
    consoles.sort_by_key(|console| (console.id.as_str() != "main", console.virtio));
    Ok(consoles)
}

/// Whether a channel has the port of one of SPICE's.
pub(super) fn beside(channels: &[Channel], desktop: &Desktop) -> Result<(), PortError> {
    for (there, name, first) in [
        (desktop.has_agent(), SPICE_AGENT_PORT, "SPICE's agent"),
        (desktop.has_webdav(), WEBDAV_PORT, "SPICE's shared folders"),
    ] {
        let twin = channels.iter().find(|channel| channel.port == name);
        if let Some(twin) = twin.filter(|_| there) {
            return Err(PortError::PortTwice {
                first: first.to_owned(),
                second: twin.id.clone(),
                port: name.to_owned(),
            });
        }
    }
    Ok(())
}

/// Whether the agent has a channel, and the other channels.
pub(super) fn channels(layer: &Layer) -> Result<(bool, Vec<Channel>), PortError> {
    let agent = layer
        .agent
        .as_ref()
        .is_some_and(|agent| agent.enabled.unwrap_or(true));
    let mut channels: Vec<Channel> = Vec::new();
    for (id, table) in layer.channel.iter().flatten() {
        if table.enabled == Some(false) {
            continue;
        }
        let port = table.port.clone().unwrap_or_else(|| id.to_string());
        let fits = (1..=100).contains(&port.len());
        if !fits || port.contains(|c: char| c == '/' || c.is_control()) {
            return Err(PortError::BadPort {
                id: id.clone(),
                port: port.chars().take(80).collect(),
            });
        }
        let twin = channels.iter().find(|channel| channel.port == port);
        let first = match twin {
            Some(channel) => Some(format!("channel `{}`", channel.id)),
            None if agent && port == AGENT_PORT => Some("the agent".to_owned()),
            None => None,
        };
        if let Some(first) = first {
            return Err(PortError::PortTwice {
                first,
                second: id.clone(),
                port,
            });
        }
        channels.push(Channel {
            id: id.clone(),
            port,
        });
    }
    if channels.len() > MAX_CHANNELS {
        return Err(PortError::TooMany {
            count: channels.len(),
            what: "channels",
            max: MAX_CHANNELS,
        });
    }
    Ok((agent, channels))
}
