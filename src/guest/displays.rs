//! Where the guest's displays are, as QEMU itself says.

use std::collections::BTreeMap;

use mvm_qmp::Qmp;
use serde_json::{Value, json};

use crate::machine::Machine;
use crate::machine::desktop::{Address, Desktop, Window};

/// Which displays there are to be asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Displays(Desktop);

impl Displays {
    /// Those of this machine.
    pub(crate) fn of(machine: &Machine) -> Self {
        Self(machine.desktop.clone())
    }

    /// Asks QEMU: which ports it took, nobody else knows. By kind, each the URI that viewers take, or a few
    /// words where there is none.
    pub(crate) async fn find(&self, qmp: &Qmp) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        if let Some(vnc) = &self.0.vnc {
            let uri = match &vnc.server.address {
                Address::Unix(path) => Some(format!("vnc+unix://{}", path.display())),
                Address::Tcp { .. } => {
                    let answer = qmp.call("query-vnc", None).await.unwrap_or_default();
                    vnc_uri(&answer)
                }
            };
            found.extend(uri.map(|uri| ("vnc".to_owned(), uri)));
        }
        if let Some(spice) = &self.0.spice {
            let uri = match &spice.server.address {
                Address::Unix(path) => Some(format!("spice+unix://{}", path.display())),
                Address::Tcp { .. } => {
                    let answer = qmp.call("query-spice", None).await.unwrap_or_default();
                    spice_uri(&answer)
                }
            };
            found.extend(uri.map(|uri| ("spice".to_owned(), uri)));
        }
        match &self.0.window {
            Window::None => {}
            Window::Local(local) => {
                let session = &local.session;
                let place = match (&session.wayland, &session.x11) {
                    (Some(socket), _) => socket.display().to_string(),
                    (None, display) => display.clone().unwrap_or_default(),
                };
                let words = format!(
                    "{} in the session of {} ({place})",
                    local.toolkit, session.user
                );
                found.insert("local".to_owned(), words);
            }
            Window::EglHeadless { .. } => {
                let words = "pictures are computed by the host's GPU".to_owned();
                found.insert("egl-headless".to_owned(), words);
            }
            Window::Dbus(dbus) => {
                let words = match &dbus.address {
                    Some(address) => address.clone(),
                    None => {
                        "viewers connect through QMP: add_client protocol=@dbus-display".to_owned()
                    }
                };
                found.insert("dbus".to_owned(), words);
            }
        }
        found
    }
}

/// An address as URIs have it. Who listens everywhere is reached here.
fn host(answer: &Value) -> Option<String> {
    Some(match answer["host"].as_str()? {
        "0.0.0.0" | "*" => "127.0.0.1".to_owned(),
        "::" => "[::1]".to_owned(),
        host if host.contains(':') => format!("[{host}]"),
        host => host.to_owned(),
    })
}

fn vnc_uri(answer: &Value) -> Option<String> {
    (answer["enabled"] == json!(true)).then_some(())?;
    let port = answer["service"].as_str()?;
    Some(format!("vnc://{}:{port}", host(answer)?))
}

fn spice_uri(answer: &Value) -> Option<String> {
    let host = host(answer)?;
    match (answer["port"].as_u64(), answer["tls-port"].as_u64()) {
        (Some(port), None) => Some(format!("spice://{host}:{port}")),
        (None, Some(tls)) => Some(format!("spice://{host}?tls-port={tls}")),
        (Some(port), Some(tls)) => Some(format!("spice://{host}?port={port}&tls-port={tls}")),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_become_what_viewers_take() {
        let vnc =
            |host: &str| vnc_uri(&json!({ "enabled": true, "host": host, "service": "5903" }));
        assert_eq!(vnc("127.0.0.1").as_deref(), Some("vnc://127.0.0.1:5903"));
        assert_eq!(vnc("0.0.0.0").as_deref(), Some("vnc://127.0.0.1:5903"));
        assert_eq!(vnc("::1").as_deref(), Some("vnc://[::1]:5903"));
        assert_eq!(vnc_uri(&json!({ "enabled": false })), None);
        let spice = |answer: Value| spice_uri(&answer);
        assert_eq!(
            spice(json!({ "host": "*", "port": 5930 })).as_deref(),
            Some("spice://127.0.0.1:5930")
        );
        assert_eq!(
            spice(json!({ "host": "h", "tls-port": 5931 })).as_deref(),
            Some("spice://h?tls-port=5931")
        );
        assert_eq!(spice(json!({ "host": "h" })), None);
    }
}
