//! Where the bytes of a console or channel go on the host.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::PortError;
use crate::host::images::{FileKind, Images};
use crate::machine::ResolveError;
use crate::machine::files::{FileError, find};
use crate::profile::schema::{
    ChannelTable, ConsoleBackend, ConsoleTable, FileEnd, HostPort, TcpEnd, UdpEnd, UnixEnd,
};

/// The longest path of a socket (`sun_path` less its final zero).
const SOCKET: usize = 107;

/// Where the bytes of a console or channel go on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// A pseudo-terminal that QEMU makes.
    Pty,
    /// Nowhere.
    Null,
    /// A serial port or pseudo-terminal of the host.
    Host(PathBuf),
    /// A Unix socket.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Whether others connect to it.
        listen: bool,
        /// After how many seconds a connection is tried again.
        reconnect: Option<u32>,
    },
    /// A TCP connection.
    Tcp {
        /// The address or name.
        address: String,
        /// The port.
        port: u16,
        /// Whether others connect to it.
        listen: bool,
        /// Whether it is a telnet session.
        telnet: bool,
        /// After how many seconds a connection is tried again.
        reconnect: Option<u32>,
    },
    /// UDP packets.
    Udp {
        /// Where they go.
        address: String,
        /// The port they go to.
        port: u16,
        /// Where packets to the guest arrive.
        local_address: String,
        /// The port at which they arrive.
        local_port: Option<u16>,
    },
    /// A file.
    File {
        /// Its path.
        path: PathBuf,
        /// Whether what is there stays.
        append: bool,
    },
}

impl End {
    /// QEMU's name of the back end.
    pub(crate) const fn backend(&self) -> &'static str {
        match self {
            Self::Pty => "pty",
            Self::Null => "null",
            Self::Host(_) => "serial",
            Self::Unix { .. } | Self::Tcp { .. } => "socket",
            Self::Udp { .. } => "udp",
            Self::File { .. } => "file",
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let on = |listen: bool| if listen { "at " } else { "" };
        match self {
            Self::Pty => f.write_str("a pseudo-terminal"),
            Self::Null => f.write_str("nothing"),
            Self::Host(path) | Self::File { path, .. } => write!(f, "{}", path.display()),
            Self::Unix { path, listen, .. } => write!(f, "{}{}", on(*listen), path.display()),
            Self::Tcp {
                address,
                port,
                listen,
                ..
            } => write!(f, "{}TCP {address}:{port}", on(*listen)),
            Self::Udp { address, port, .. } => write!(f, "UDP {address}:{port}"),
        }
    }
}

/// What a table says of the end.
pub(super) struct Said<'a> {
    pub(super) backend: Option<ConsoleBackend>,
    host: Option<&'a HostPort>,
    unix: Option<&'a UnixEnd>,
    tcp: Option<&'a TcpEnd>,
    udp: Option<&'a UdpEnd>,
    file: Option<&'a FileEnd>,
}

impl<'a> From<&'a ConsoleTable> for Said<'a> {
    fn from(table: &'a ConsoleTable) -> Self {
        Self {
            backend: table.backend,
            host: table.host.as_ref(),
            unix: table.unix.as_ref(),
            tcp: table.tcp.as_ref(),
            udp: table.udp.as_ref(),
            file: table.file.as_ref(),
        }
    }
}

impl<'a> From<&'a ChannelTable> for Said<'a> {
    fn from(table: &'a ChannelTable) -> Self {
        Self {
            backend: table.backend,
            host: table.host.as_ref(),
            unix: table.unix.as_ref(),
            tcp: table.tcp.as_ref(),
            udp: table.udp.as_ref(),
            file: table.file.as_ref(),
        }
    }
}

impl Said<'_> {
    /// The end, where it is not mvm's own.
    pub(super) fn end(&self, what: &str, images: &Images) -> Result<Option<End>, ResolveError> {
        if let Some(host) = self.host {
            return self.host(what, host, images).map(Some);
        }
        let missing = |key| PortError::Missing {
            what: what.to_owned(),
            key,
        };
        let reconnect = |listen, seconds: Option<u32>| match seconds {
            Some(_) if listen => Err(PortError::Reconnect {
                what: what.to_owned(),
            }),
            Some(0) => Err(PortError::Reconnect {
                what: what.to_owned(),
            }),
            seconds => Ok(seconds),
        };
        if let Some(unix) = self.unix {
            let text = unix.path.as_deref().ok_or_else(|| missing("unix.path"))?;
            let listen = unix.listen.unwrap_or(false);
            let reconnect = reconnect(listen, unix.reconnect)?;
            let path = absolute(what, text, true)?;
            if !listen && reconnect.is_none() {
                let fix = || {
                    Some(
                        "start the program that listens there first, or set `reconnect`".to_owned(),
                    )
                };
                find(images, what, text, fix)?;
            }
            return Ok(Some(End::Unix {
                path,
                listen,
                reconnect,
            }));
        }
        if let Some(tcp) = self.tcp {
            let listen = tcp.listen.unwrap_or(false);
            return Ok(Some(End::Tcp {
                address: address(what, tcp.address.as_deref())?,
                port: tcp.port.ok_or_else(|| missing("tcp.port"))?,
                listen,
                telnet: tcp.telnet.unwrap_or(false),
                reconnect: reconnect(listen, tcp.reconnect)?,
            }));
        }
        if let Some(udp) = self.udp {
            return Ok(Some(End::Udp {
                address: address(what, udp.address.as_deref())?,
                port: udp.port.ok_or_else(|| missing("udp.port"))?,
                local_address: address(what, udp.local_address.as_deref())?,
                local_port: udp.local_port,
            }));
        }
        if let Some(file) = self.file {
            let text = file.path.as_deref().ok_or_else(|| missing("file.path"))?;
            return Ok(Some(End::File {
                path: absolute(what, text, false)?,
                append: file.append.unwrap_or(false),
            }));
        }
        Ok(match self.backend {
            Some(ConsoleBackend::Pty) => Some(End::Pty),
            Some(ConsoleBackend::Null) => Some(End::Null),
            Some(ConsoleBackend::Mvm) | None => None,
        })
    }

    fn host(&self, what: &str, host: &HostPort, images: &Images) -> Result<End, ResolveError> {
        let text = host.device.as_deref().ok_or_else(|| PortError::Missing {
            what: what.to_owned(),
            key: "host.device",
        })?;
        let path = absolute(what, text, false)?;
        let facts = find(images, what, text, || None)?;
        if facts.kind != FileKind::Char {
            return Err(FileError::WrongKind {
                what: what.to_owned(),
                path,
                expected: "a serial port",
            }
            .into());
        }
        Ok(End::Host(path))
    }
}

fn absolute(what: &str, text: &str, socket: bool) -> Result<PathBuf, PortError> {
    let path = Path::new(text);
    if path.is_absolute() && (!socket || text.len() <= SOCKET) {
        return Ok(path.to_owned());
    }
    Err(PortError::BadPath {
        what: what.to_owned(),
        text: text.chars().take(200).collect(),
        socket,
    })
}

fn address(what: &str, text: Option<&str>) -> Result<String, PortError> {
    let text = text.unwrap_or("127.0.0.1");
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._:%".contains(&b);
    if text.bytes().all(fits) && text.len() <= 253 {
        return Ok(text.to_owned());
    }
    Err(PortError::BadAddress {
        what: what.to_owned(),
        text: text.chars().take(80).collect(),
    })
}
