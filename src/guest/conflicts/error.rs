//! Something that only one can have, and who has it.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::{GATE, asleep};
use crate::error::{ExitCode, Hint};
use crate::machine::ports::{SPICE, VNC};
use crate::ops::OpsError;

/// Something that only one can have.
#[derive(Debug, thiserror::Error)]
pub enum Conflict {
    /// A forwarded port of the host.
    #[error("{protocol} port {port} of this host ({address}) is taken by {by}")]
    Port {
        /// TCP or UDP.
        protocol: &'static str,
        /// The address.
        address: Ipv4Addr,
        /// The port.
        port: u16,
        /// Who has it.
        by: String,
    },
    /// A port that this user may not have.
    #[error("{protocol} port {port} of this host ({address}) cannot be had")]
    PortRefused {
        /// TCP or UDP.
        protocol: &'static str,
        /// The address.
        address: Ipv4Addr,
        /// The port.
        port: u16,
        /// Why not.
        source: io::Error,
    },
    /// An address of a network card.
    #[error("the MAC address {mac} of network card `{nic}` is guest `{guest}`'s")]
    Mac {
        /// The address.
        mac: String,
        /// The card that wants it.
        nic: String,
        /// Who has it.
        guest: String,
    },
    /// A context id.
    #[error("the vsock context id {cid} is guest `{guest}`'s")]
    Cid {
        /// The id.
        cid: u32,
        /// Who has it.
        guest: String,
    },
    /// An image that one of the two writes to.
    #[error("{} is in use by guest `{guest}`", path.display())]
    Image {
        /// The image.
        path: PathBuf,
        /// Who has it.
        guest: String,
    },
    /// An image that is attached already.
    #[error("the guest has {} already, as `{disk}`", path.display())]
    Own {
        /// The image.
        path: PathBuf,
        /// The disk.
        disk: String,
    },
    /// An image in which a guest lies that is hibernated, or counts on as it is saved.
    #[error("{} is in use by guest `{guest}`, which {}", path.display(), kind.in_words())]
    Asleep {
        /// The image.
        path: PathBuf,
        /// Who has it.
        guest: String,
        /// How it sleeps.
        kind: asleep::Kind,
    },
    /// A tap device.
    #[error("the tap `{name}` is guest `{guest}`'s")]
    Tap {
        /// The device.
        name: String,
        /// Who has it.
        guest: String,
    },
    /// The other end of a console or channel.
    #[error("{ours}: {end} is guest `{guest}`'s ({theirs})")]
    End {
        /// The end.
        end: String,
        /// Whether mvm chose it, and finds another one.
        again: bool,
        /// What leads there.
        ours: String,
        /// What of the other guest does.
        theirs: String,
        /// Who has it.
        guest: String,
    },
    /// A keyboard or pointer of the host that belongs to the other guest's user.
    #[error("{} is given to the user of guest `{guest}`, and a node has one owner", path.display())]
    Evdev {
        /// The device.
        path: PathBuf,
        /// Who has it.
        guest: String,
    },
    /// Other starts take very long.
    #[error("another guest's start has not come to its QEMU for {} s", GATE.as_secs())]
    Gate,
    /// The other guests cannot be looked at.
    #[error(transparent)]
    Ops(#[from] OpsError),
}

impl Hint for Conflict {
    fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::Port { by, .. } => match guest_in(by) {
                Some(guest) => {
                    format!("forward another port of the host, or end it: `mvm stop {guest}`")
                }
                None => "forward another port of the host, or end that process".to_owned(),
            },
            Self::PortRefused { port, .. } if *port < 1024 => {
                "ports below 1024 are root's: forward a higher one".to_owned()
            }
            Self::PortRefused { .. } => "forward another port of the host".to_owned(),
            Self::Mac { nic, .. } => {
                format!(
                    "leave out `mac` in [network.{nic}]: each guest then gets one of its own; where a profile has it, \
                     `--set network.{nic}.mac=ADDRESS` gives another one"
                )
            }
            Self::Cid { .. } => {
                "leave out `cid` in [vsock]: each guest then gets one of its own".to_owned()
            }
            Self::Image { guest, .. } => format!(
                "give each guest an image of its own, let both have it read-only or `ephemeral`, or end the other: `mvm stop {guest}`"
            ),
            Self::Own { disk, .. } => format!("`mvm detach NAME {disk}` takes it out"),
            Self::Asleep { guest, .. } => format!(
                "let it go on and shut it down: `mvm start {guest}`, `mvm stop {guest}`; or give up what it had open: `--discard-hibernation`"
            ),
            Self::Tap { .. } => "give each guest a tap of its own".to_owned(),
            Self::End { ours, .. } if matches!(ours.as_str(), SPICE | VNC) => format!(
                "`display.{}.port` names another one; without it, mvm finds one that is free",
                ours.to_lowercase()
            ),
            Self::End { .. } => "give each guest an end of its own".to_owned(),
            Self::Evdev { guest, .. } => format!(
                "guests that take turns with it run as the same user (`security.user`), or end the other: `mvm stop {guest}`"
            ),
            Self::Gate => "`mvm list` shows what is starting".to_owned(),
            Self::Ops(error) => return error.hints(),
        };
        vec![hint]
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Ops(error) => error.exit_code(),
            _ => ExitCode::Failed,
        }
    }
}

fn guest_in(by: &str) -> Option<&str> {
    by.strip_prefix("guest `")?.split('`').next()
}
