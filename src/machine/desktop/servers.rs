//! The servers that viewers connect to: VNC and SPICE.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::display::{Address, Server, Spice, VNC_BASE, Vnc, lack};
use super::{Around, DesktopError};
use crate::host::qemu::Version;
use crate::profile::schema::{DisplayPort, DisplayTable, SpiceTable, VncTable};

/// The last port that is tried for VNC where the profile names none.
const VNC_LAST: u16 = 5999;
/// The ports that are tried for SPICE where the profile names none.
const SPICE_PORTS: std::ops::RangeInclusive<u16> = 5930..=5999;
const LOOPBACK: &str = "127.0.0.1";
/// The first QEMU whose SPICE carries the GPU's pictures over a network.
const REMOTE_GL: Version = Version(10, 1, 0);

/// The VNC server.
pub(super) fn vnc(
    table: &DisplayTable,
    around: &Around,
    notes: &mut Vec<String>,
) -> Result<Vnc, DesktopError> {
    let VncTable {
        listen,
        port,
        to,
        socket,
        password_file,
        tls,
        tls_verify,
        share,
        audio,
    } = table.vnc.clone().unwrap_or_default();
    let said = Said {
        kind: "vnc",
        listen,
        port,
        socket: socket == Some(true),
        password: password_file,
        tls,
    };
    if said.socket && to.is_some() {
        return Err(DesktopError::SocketAnd("display.vnc.to".to_owned()));
    }
    if tls_verify.is_some() && said.tls.is_none() {
        return Err(DesktopError::Without {
            key: "display.vnc.tls-verify",
            other: "display.vnc.tls",
        });
    }
    let mut server = said.server(around, notes, |host| {
        let (port, last) = match said.port {
            Some(DisplayPort::Number(port)) => (port, None),
            Some(DisplayPort::Auto) | None => (VNC_BASE, Some(VNC_LAST)),
        };
        Ok(Address::Tcp {
            host,
            port,
            to: to.or(last),
        })
    })?;
    if let Address::Tcp { port, to, .. } = &mut server.address {
        if *port < VNC_BASE {
            return Err(DesktopError::Range {
                key: "display.vnc.port".to_owned(),
                value: u32::from(*port),
                least: u32::from(VNC_BASE),
                most: u32::from(u16::MAX),
            });
        }
        if to.is_some_and(|to| to < *port) {
            return Err(DesktopError::Range {
                key: "display.vnc.to".to_owned(),
                value: to.map_or(0, u32::from),
                least: u32::from(*port),
                most: u32::from(u16::MAX),
            });
        }
    }
    Ok(Vnc {
        server,
        verify: tls_verify == Some(true),
        share,
        audio,
    })
}

/// The SPICE server.
pub(super) fn spice(
    table: &DisplayTable,
    around: &Around,
    notes: &mut Vec<String>,
) -> Result<Spice, DesktopError> {
    let spice: SpiceTable = table.spice.clone().unwrap_or_default();
    // The module of `spice-app` is built on that of SPICE itself, which QEMU does not tell of.
    let caps = around.caps;
    if !caps.displays.is_empty() && !caps.displays.contains("spice-app") {
        return Err(lack(around, "display.spice", "SPICE", "display.spice-app"));
    }
    let said = Said {
        kind: "spice",
        listen: spice.listen,
        port: spice.port,
        socket: spice.socket == Some(true),
        password: spice.password_file,
        tls: spice.tls,
    };
    if said.socket && said.tls.is_some() {
        return Err(DesktopError::SocketAnd("display.spice.tls".to_owned()));
    }
    let agent = spice.agent != Some(false);
    for (key, wanted) in [
        ("display.spice.agent-mouse", spice.agent_mouse == Some(true)),
        (
            "display.spice.file-transfer",
            spice.file_transfer == Some(true),
        ),
    ] {
        if wanted && !agent {
            return Err(DesktopError::Without {
                key,
                other: "display.spice.agent",
            });
        }
    }
    let gl = spice.gl == Some(true);
    if spice.rendernode.is_some() && !gl {
        return Err(DesktopError::Without {
            key: "display.spice.rendernode",
            other: "display.spice.gl",
        });
    }
    if gl && !said.socket && caps.version < REMOTE_GL {
        return Err(DesktopError::RemoteGl(caps.version.to_string()));
    }
    let any_port = !said.socket && !matches!(said.port, Some(DisplayPort::Number(_)));
    let server = said.server(around, notes, |host| {
        let port = match said.port {
            Some(DisplayPort::Number(port)) => port,
            Some(DisplayPort::Auto) | None => SPICE_PORTS
                .into_iter()
                .find(|port| !around.facts.ports.contains(port))
                .ok_or(DesktopError::NoPort)?,
        };
        Ok(Address::Tcp {
            host,
            port,
            to: None,
        })
    })?;
    Ok(Spice {
        server,
        images: spice.image_compression,
        jpeg: spice.jpeg_compression,
        zlib: spice.zlib_compression,
        playback: spice.playback_compression,
        streaming: spice.streaming,
        agent,
        agent_mouse: spice.agent_mouse,
        clipboard: table.clipboard != Some(false),
        file_transfer: spice.file_transfer != Some(false),
        webdav: spice.webdav == Some(true),
        gl,
        rendernode: spice.rendernode,
        any_port,
    })
}

/// What a profile says of a server.
struct Said {
    kind: &'static str,
    listen: Option<String>,
    port: Option<DisplayPort>,
    socket: bool,
    password: Option<String>,
    tls: Option<String>,
}

impl Said {
    fn key(&self, key: &str) -> String {
        format!("display.{}.{key}", self.kind)
    }

    fn server(
        &self,
        around: &Around,
        notes: &mut Vec<String>,
        tcp: impl FnOnce(String) -> Result<Address, DesktopError>,
    ) -> Result<Server, DesktopError> {
        let address = if self.socket {
            for (key, said) in [
                ("listen", self.listen.is_some()),
                ("port", self.port.is_some()),
            ] {
                if said {
                    return Err(DesktopError::SocketAnd(self.key(key)));
                }
            }
            if let Some(user) = around.run_as {
                return Err(DesktopError::SocketAs {
                    key: self.key("socket"),
                    user: user.name.clone(),
                });
            }
            Address::Unix(around.run_dir.join(format!("{}.sock", self.kind)))
        } else {
            let host = self.listen.clone().unwrap_or_else(|| LOOPBACK.to_owned());
            tcp(self.host(host)?)?
        };
        let password = self.path("password-file", self.password.as_deref())?;
        let tls = self.path("tls", self.tls.as_deref())?;
        if let Address::Tcp { host, .. } = &address {
            if !is_loopback(host) {
                notes.push(exposed(self.kind, host, password.is_some(), tls.is_some()));
            }
        }
        Ok(Server {
            address,
            password,
            tls,
        })
    }

    /// An address without a port: QEMU would take what follows a colon for one.
    fn host(&self, host: String) -> Result<String, DesktopError> {
        let plain = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let plain = plain.unwrap_or(&host).to_owned();
        let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_name = !plain.is_empty() && plain.chars().all(name);
        if plain.parse::<IpAddr>().is_ok() || is_name {
            return Ok(plain);
        }
        Err(DesktopError::BadAddress {
            key: self.key("listen"),
            address: host.chars().take(80).collect(),
        })
    }

    fn path(&self, key: &str, path: Option<&str>) -> Result<Option<PathBuf>, DesktopError> {
        match path.map(Path::new) {
            None => Ok(None),
            Some(path) if path.is_absolute() => Ok(Some(path.to_owned())),
            Some(path) => Err(DesktopError::Relative {
                key: self.key(key),
                path: path.display().to_string().chars().take(200).collect(),
            }),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// What a server that others reach means.
fn exposed(kind: &str, host: &str, password: bool, tls: bool) -> String {
    let name = kind.to_uppercase();
    let who = match host.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() => "every network of this host".to_owned(),
        _ => host.to_owned(),
    };
    let what = match (password, tls) {
        (false, false) => "without a password and unencrypted: whoever reaches it has the guest",
        (true, false) => "unencrypted: the password protects from the curious only",
        (false, true) => "encrypted, and without a password: whoever reaches it has the guest",
        (true, true) => "encrypted and with a password",
    };
    format!("{name} listens on {who}, {what}")
}
