//! Consoles, channels and the agent: what is connected by character devices.

mod end;
mod exclusive;

use serde::{Deserialize, Serialize};

use super::desktop::Address;
use super::{BoardKind, Desktop, Machine, NicBackend, ResolveError};
use crate::error::{ExitCode, Hint};
use crate::host::images::Images;
use crate::ids::Id;
use crate::profile::schema::{ConsoleDevice, Layer};
pub use end::End;
use end::Said;
pub use exclusive::Exclusive;

/// A console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Console {
    /// Its name.
    pub id: Id,
    /// A virtio console rather than the board's UART.
    pub virtio: bool,
    /// A pseudo-terminal rather than mvm's own console.
    pub pty: bool,
    /// The number of a further UART on the ISA bus, 1 first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isa: Option<u32>,
    /// Another end than those two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// Whether there is no log.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unlogged: bool,
}

impl Console {
    /// Whether its end is mvm's own: `mvm console` leads there.
    pub const fn is_mvms(&self) -> bool {
        !self.pty && self.end.is_none()
    }

    /// What the guest sees, in a word.
    pub const fn device(&self) -> &'static str {
        match (self.virtio, self.isa) {
            (true, _) => "virtio",
            (_, Some(_)) => "isa",
            _ => "serial",
        }
    }
}

/// A virtio-serial channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// Its name.
    pub id: Id,
    /// The port's name in the guest.
    pub port: String,
    /// Another end than mvm's socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

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
/// The UARTs of a PC beside the first.
const MAX_ISA: usize = 3;

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
    /// Further UARTs are a PC's.
    #[error("console `{id}`: the board {board} has no ISA bus for a further serial port")]
    NoIsa {
        /// The console.
        id: Id,
        /// The board.
        board: BoardKind,
    },
    /// A key of an end that is missing.
    #[error("{what}: `{key}` is missing")]
    Missing {
        /// The console or channel.
        what: String,
        /// The key.
        key: &'static str,
    },
    /// A path that would depend on where mvm was started, or that no socket can have.
    #[error("{what}: {text:?} is not an absolute path{}", if *socket { " of at most 107 bytes" } else { "" })]
    BadPath {
        /// The console or channel.
        what: String,
        /// The text.
        text: String,
        /// Whether it is a socket's.
        socket: bool,
    },
    /// Not an address or a name.
    #[error("{what}: {text:?} is neither an address nor the name of a host")]
    BadAddress {
        /// The console or channel.
        what: String,
        /// The text.
        text: String,
    },
    /// Only who connects can do it again.
    #[error("{what}: `reconnect` is for the end that connects, in seconds from 1 on")]
    Reconnect {
        /// The console or channel.
        what: String,
    },
    /// One end, two ports.
    #[error("{first} and {second} both lead to {end}")]
    EndTwice {
        /// The one.
        first: String,
        /// The other.
        second: String,
        /// Where.
        end: String,
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
                vec![format!(
                    "set `console.{second}.device = \"virtio\"`, or `\"isa\"` on pc and q35"
                )]
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
pub(super) fn consoles(
    layer: &Layer,
    board: BoardKind,
    images: &Images,
) -> Result<Vec<Console>, ResolveError> {
    let tables = layer.console.iter().flatten();
    let mut consoles: Vec<Console> = Vec::new();
    let mut main_said = false;
    let mut further = 0;
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
        let isa = match device {
            ConsoleDevice::Isa if matches!(board, BoardKind::Q35 | BoardKind::Pc) => {
                further += 1;
                Some(further)
            }
            ConsoleDevice::Isa => {
                return Err(PortError::NoIsa {
                    id: id.clone(),
                    board,
                }
                .into());
            }
            _ => None,
        };
        let said = Said::from(table);
        let end = said.end(&format!("console `{id}`"), images)?;
        consoles.push(Console {
            id: id.clone(),
            virtio: device == ConsoleDevice::Virtio,
            pty: end == Some(End::Pty),
            isa,
            end: end.filter(|end| *end != End::Pty),
            unlogged: table.log == Some(false),
        });
    }
    let mut serials = consoles
        .iter()
        .filter(|console| !console.virtio && console.isa.is_none());
    if let (Some(first), Some(second)) = (serials.next(), serials.next()) {
        return Err(PortError::TwoSerials {
            first: first.id.clone(),
            second: second.id.clone(),
        }
        .into());
    }
    if !main_said && consoles.iter().all(|console| console.virtio) {
        let id = "main".parse().expect("`main` is an id");
        consoles.push(Console {
            id,
            virtio: false,
            pty: false,
            isa: None,
            end: None,
            unlogged: false,
        });
    }
    let isa = consoles.iter().filter(|console| console.isa.is_some());
    let isa = isa.count();
    if isa > MAX_ISA {
        return Err(PortError::TooMany {
            count: isa,
            what: "further serial ports",
            max: MAX_ISA,
        }
        .into());
    }
    let virtio = consoles.iter().filter(|console| console.virtio).count();
    if virtio > MAX_VIRTIO_CONSOLES {
        return Err(PortError::TooMany {
            count: virtio,
            what: "virtio consoles",
            max: MAX_VIRTIO_CONSOLES,
        }
        .into());
    }
    // Stable: `main`, then the serial one, then by name.
    consoles.sort_by_key(|console| (console.id.as_str() != "main", console.virtio, console.isa));
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
pub(super) fn channels(
    layer: &Layer,
    images: &Images,
) -> Result<(bool, Vec<Channel>), ResolveError> {
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
            }
            .into());
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
            }
            .into());
        }
        let said = Said::from(table);
        channels.push(Channel {
            id: id.clone(),
            port,
            end: said.end(&format!("channel `{id}`"), images)?,
        });
    }
    if channels.len() > MAX_CHANNELS {
        return Err(PortError::TooMany {
            count: channels.len(),
            what: "channels",
            max: MAX_CHANNELS,
        }
        .into());
    }
    Ok((agent, channels))
}

/// The ends that are not mvm's own, with what leads there.
pub fn ends(machine: &Machine) -> impl Iterator<Item = (String, &End)> {
    let consoles = machine.consoles.iter();
    let consoles =
        consoles.filter_map(|one| Some((format!("console `{}`", one.id), one.end.as_ref()?)));
    let channels = machine.channels.iter();
    let channels =
        channels.filter_map(|one| Some((format!("channel `{}`", one.id), one.end.as_ref()?)));
    consoles.chain(channels)
}

/// The back ends that QEMU needs, and what for.
pub(super) fn backends(machine: &Machine) -> impl Iterator<Item = (String, &'static str)> {
    ends(machine).map(|(what, end)| (what, end.backend()))
}

/// Whether each end is one port's.
pub(super) fn check(machine: &Machine) -> Result<(), PortError> {
    let mut seen: Vec<(String, Exclusive)> = Vec::new();
    for (what, end) in exclusive(machine) {
        if let Some((first, _)) = seen.iter().find(|(_, other)| other.meets(&end)) {
            return Err(PortError::EndTwice {
                first: first.clone(),
                second: what,
                end: end.to_string(),
            });
        }
        seen.push((what, end));
    }
    Ok(())
}

/// How the server of SPICE is called there.
pub const SPICE: &str = "SPICE";
/// And that of VNC.
pub const VNC: &str = "VNC";

/// What leads to things of the host that only one port of one guest can have: consoles, channels, cards whose
/// switch connects to a socket of QEMU's, displays with a port of their own.
pub fn exclusive(machine: &Machine) -> impl Iterator<Item = (String, Exclusive<'_>)> {
    let ends = ends(machine).filter_map(|(what, end)| Some((what, Exclusive::of(end)?)));
    let cards = machine.nics.iter().filter_map(|nic| match &nic.backend {
        NicBackend::VhostUser {
            socket,
            server: true,
        } => Some((format!("network `{}`", nic.id), Exclusive::Path(socket))),
        _ => None,
    });
    let desktop = &machine.desktop;
    let spice = desktop.spice.iter().map(|spice| (SPICE, &spice.server));
    let vnc = desktop.vnc.iter().map(|vnc| (VNC, &vnc.server));
    let displays = spice
        .chain(vnc)
        .filter_map(|(what, server)| match &server.address {
            // One of a range is QEMU's choice.
            Address::Tcp {
                host,
                port,
                to: None,
            } => Some((
                what.to_owned(),
                Exclusive::Port {
                    udp: false,
                    address: host,
                    port: *port,
                },
            )),
            Address::Tcp { .. } | Address::Unix(_) => None,
        });
    ends.chain(cards).chain(displays)
}
