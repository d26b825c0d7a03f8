//! Names of file descriptors, kept apart between clients.
//!
//! `getfd` gives a descriptor a name in QEMU's monitor, where a second `getfd` of that name closes
//! the first. The clients share one monitor, so each gets a name space of its own: a client's
//! `NAME` is `mvm-cN-NAME` at QEMU, in `getfd`, `closefd` and `add_client`, and, for names that
//! this client has given, wherever a later command refers to one:
//!
//! - the members `fd`, `fds`, `vhostfd`, `vhostfds` (lists are separated by colons) at any depth:
//!   `netdev_add`, `device_add`, `object-add`, …
//! - `fd:NAME` in the members `uri` and `protocol`: `migrate`, `migrate-incoming`,
//!   `dump-guest-memory`
//! - the member `str` of a socket address whose `type` is `fd`: `chardev-add`, `blockdev-add`,
//!   `migrate` with `channels`, …
//!
//! Anything else is passed on as it is: numbers, and names that the embedding program has given.
//! The name space ends with the client's connection, and QEMU closes what it still holds of it.
//! `add-fd` needs none of this: its sets have numbers, which QEMU chooses.

use serde_json::{Map, Value};

/// What is special about a command of this name, if anything is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Gives a name to a descriptor that comes with it.
    Get,
    /// Forgets a name.
    Close,
    /// Takes a descriptor that comes with it, and no name.
    Add,
    /// Refers to a name in `fdname`.
    Named,
    Other,
}

pub(super) fn kind(command: &str) -> Kind {
    match command {
        "getfd" => Kind::Get,
        "closefd" => Kind::Close,
        "add-fd" => Kind::Add,
        "add_client" => Kind::Named,
        _ => Kind::Other,
    }
}

/// One client's name space.
#[derive(Default)]
pub(super) struct Names {
    prefix: String,
    given: Vec<String>,
}

/// Arguments with names of the monitor's instead of the client's.
pub(super) struct Renamed {
    pub(super) arguments: String,
    /// The client's name, where the command is about one.
    pub(super) name: Option<String>,
}

impl Names {
    pub(super) fn new(client: u64) -> Self {
        Self {
            prefix: format!("mvm-c{client}-"),
            given: Vec::new(),
        }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn given(&mut self, name: String) {
        if !self.given.contains(&name) {
            self.given.push(name);
        }
    }

    pub(super) fn closed(&mut self, name: &str) {
        self.given.retain(|given| given != name);
    }

    /// What QEMU may still hold, by its names there.
    pub(super) fn left(&mut self) -> impl Iterator<Item = String> + use<> {
        let prefix = self.prefix.clone();
        std::mem::take(&mut self.given)
            .into_iter()
            .map(move |name| prefix.clone() + &name)
    }

    /// `None` where the arguments need no change.
    pub(super) fn rename(&self, kind: Kind, arguments: Option<&str>) -> Option<Renamed> {
        let named = matches!(kind, Kind::Get | Kind::Close | Kind::Named);
        if !named && self.given.is_empty() {
            return None;
        }
        let mut value: Map<String, Value> = serde_json::from_str(arguments?).ok()?;
        let mut name = None;
        let mut changed = false;
        if named {
            if let Some(Value::String(text)) = value.get_mut("fdname") {
                // Such a name is a number, which QEMU refuses here.
                if !text.starts_with(|c: char| c.is_ascii_digit()) {
                    let full = format!("{}{text}", self.prefix);
                    name = Some(std::mem::replace(text, full));
                    changed = true;
                }
            }
        } else {
            changed = self.walk(&mut value, false);
        }
        changed.then(|| Renamed {
            arguments: Value::Object(value).to_string(),
            name,
        })
    }

    fn walk(&self, object: &mut Map<String, Value>, in_fd_address: bool) -> bool {
        let fd_address = in_fd_address || object.get("type").and_then(Value::as_str) == Some("fd");
        let mut changed = false;
        for (key, value) in object.iter_mut() {
            changed |= match value {
                // The older form of a socket address keeps its members in `data`.
                Value::Object(inner) => self.walk(inner, fd_address && key == "data"),
                Value::Array(items) => {
                    let objects = items.iter_mut().filter_map(Value::as_object_mut);
                    objects.fold(false, |changed, item| self.walk(item, false) | changed)
                }
                Value::String(text) => self.replace(key, text, fd_address),
                _ => false,
            };
        }
        changed
    }

    fn replace(&self, key: &str, text: &mut String, fd_address: bool) -> bool {
        let full = |name: &str| {
            let ours = self.given.iter().any(|given| given == name);
            if ours {
                format!("{}{name}", self.prefix)
            } else {
                name.to_owned()
            }
        };
        let new = match key {
            "fd" | "vhostfd" => full(text),
            "fds" | "vhostfds" => text.split(':').map(full).collect::<Vec<_>>().join(":"),
            "str" if fd_address => full(text),
            "uri" | "protocol" => match text.strip_prefix("fd:") {
                Some(name) => format!("fd:{}", full(name)),
                None => return false,
            },
            _ => return false,
        };
        let changed = new != *text;
        *text = new;
        changed
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn renamed(command: &str, arguments: &str) -> Option<String> {
        let mut names = Names::new(3);
        names.given("tap0".to_owned());
        names.given("v".to_owned());
        names
            .rename(kind(command), Some(arguments))
            .map(|renamed| renamed.arguments)
    }

    #[test]
    fn names_are_kept_apart_where_they_are_given() {
        for command in ["getfd", "closefd", "add_client"] {
            assert_eq!(
                renamed(command, r#"{"fdname":"x"}"#).unwrap(),
                r#"{"fdname":"mvm-c3-x"}"#
            );
            assert_eq!(renamed(command, r#"{"fdname":"7"}"#), None);
        }
        let got = Names::new(1)
            .rename(Kind::Get, Some(r#"{"fdname":"x"}"#))
            .unwrap();
        assert_eq!(got.name.unwrap(), "x");
    }

    #[test]
    fn names_are_followed_where_they_are_used() {
        let cases = [
            (
                "netdev_add",
                r#"{"type":"tap","id":"tap0","fds":"tap0:7:other","vhostfds":"v"}"#,
                r#"{"type":"tap","id":"tap0","fds":"mvm-c3-tap0:7:other","vhostfds":"mvm-c3-v"}"#,
            ),
            ("migrate", r#"{"uri":"fd:v"}"#, r#"{"uri":"fd:mvm-c3-v"}"#),
            (
                "migrate",
                r#"{"channels":[{"addr":{"transport":"socket","type":"fd","str":"v"}}]}"#,
                r#"{"channels":[{"addr":{"transport":"socket","type":"fd","str":"mvm-c3-v"}}]}"#,
            ),
            (
                "chardev-add",
                r#"{"id":"v","backend":{"type":"socket","data":{"addr":{"type":"fd","data":{"str":"v"}}}}}"#,
                r#"{"id":"v","backend":{"type":"socket","data":{"addr":{"type":"fd","data":{"str":"mvm-c3-v"}}}}}"#,
            ),
            (
                "device_add",
                r#"{"driver":"vhost-vsock-pci","vhostfd":"v"}"#,
                r#"{"driver":"vhost-vsock-pci","vhostfd":"mvm-c3-v"}"#,
            ),
        ];
        for (command, from, to) in cases {
            assert_eq!(renamed(command, from).as_deref(), Some(to));
        }
    }

    #[test]
    fn the_rest_is_left_alone() {
        for arguments in [
            r#"{"fd":"4","id":"v"}"#,
            r#"{"uri":"tcp:v:1"}"#,
            r#"{"type":"unix","str":"v"}"#,
            r#"{"fd":4}"#,
        ] {
            assert_eq!(renamed("netdev_add", arguments), None, "{arguments}");
        }
        assert!(
            Names::new(1)
                .rename(Kind::Other, Some(r#"{"fd":"v"}"#))
                .is_none()
        );
    }
}
