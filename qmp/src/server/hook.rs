//! What the embedding program sees of the clients' commands, and what is refused in any case.

use std::{fmt, future::Future, pin::Pin};

use serde_json::{Map, Value};

use super::request::Refusal;

/// A client's command, before QEMU sees it.
#[derive(Clone, Copy)]
pub struct ClientCommand<'a> {
    /// The client's number, which no later client of the same server gets.
    pub client: u64,
    /// The command's name.
    pub name: &'a str,
    /// Whether it is sent out of band.
    pub oob: bool,
    pub(super) arguments: Option<&'a str>,
}

impl ClientCommand<'_> {
    /// Its arguments, parsed for the occasion.
    #[must_use]
    pub fn arguments(&self) -> Map<String, Value> {
        let parsed = self
            .arguments
            .and_then(|text| serde_json::from_str(text).ok());
        parsed.unwrap_or_default()
    }
}

impl fmt::Debug for ClientCommand<'_> {
    /// Without the arguments, which may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            client, name, oob, ..
        } = self;
        f.debug_struct("ClientCommand")
            .field("client", client)
            .field("name", name)
            .field("oob", oob)
            .finish_non_exhaustive()
    }
}

/// The reply to a command that QEMU does not get.
pub type Answer = Result<Value, Refusal>;

/// What becomes of a client's command.
pub enum Verdict {
    /// QEMU gets it.
    Forward,
    /// The client gets this, QEMU nothing.
    Answer(Answer),
    /// The client gets this when it is there. Its later in-band commands wait; nobody else does.
    Later(Pin<Box<dyn Future<Output = Answer> + Send>>),
}

/// Observes or intercepts the commands of a server's clients, for instance `quit`.
///
/// It is called for every command that a negotiated client sends, when its turn has come, and must
/// not block. Functions `Fn(&ClientCommand<'_>) -> Verdict` are hooks.
pub trait Hook: Send + Sync + 'static {
    /// Decides about one command.
    fn command(&self, command: &ClientCommand<'_>) -> Verdict;
}

impl<F: Fn(&ClientCommand<'_>) -> Verdict + Send + Sync + 'static> Hook for F {
    fn command(&self, command: &ClientCommand<'_>) -> Verdict {
        self(command)
    }
}

/// Forwards everything.
pub(super) struct Forward;

impl Hook for Forward {
    fn command(&self, _: &ClientCommand<'_>) -> Verdict {
        Verdict::Forward
    }
}

/// Commands that would have QEMU start a program of the client's choice.
pub(super) fn refused(name: &str, arguments: Option<&str>) -> Option<Refusal> {
    let runs = match name {
        "migrate" | "migrate-incoming" | "migrate-recover" => {
            let arguments: Value = serde_json::from_str(arguments?).ok()?;
            let uri = arguments["uri"]
                .as_str()
                .is_some_and(|uri| uri.trim_start().starts_with("exec:"));
            let channels = arguments["channels"].as_array();
            let exec = |channel: &Value| channel["addr"]["transport"] == "exec";
            uri || channels.is_some_and(|channels| channels.iter().any(exec))
        }
        "human-monitor-command" => {
            let arguments: Value = serde_json::from_str(arguments?).ok()?;
            let line = arguments["command-line"].as_str()?.trim_start();
            line.starts_with("migrate") && line.contains("exec:")
        }
        _ => false,
    };
    runs.then(|| {
        Refusal::generic(
            "exec: is refused here, because it runs a program as QEMU; use unix:, tcp: or fd:",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_refused_and_nothing_else() {
        for (name, arguments) in [
            ("migrate", r#"{"uri": "exec:cat"}"#),
            ("migrate-incoming", r#"{"uri": "exec:cat"}"#),
            ("migrate-recover", r#"{"uri": "\u0065xec:cat"}"#),
            (
                "migrate",
                r#"{"channels": [{"channel-type": "main", "addr": {"transport": "exec", "args": ["x"]}}]}"#,
            ),
            (
                "human-monitor-command",
                r#"{"command-line": "migrate -d \"exec:cat\""}"#,
            ),
        ] {
            assert!(
                refused(name, Some(arguments)).is_some(),
                "{name} {arguments}"
            );
        }
        for (name, arguments) in [
            ("migrate", Some(r#"{"uri": "unix:/exec:"}"#)),
            ("migrate", None),
            (
                "human-monitor-command",
                Some(r#"{"command-line": "info migrate"}"#),
            ),
            ("query-status", Some("{}")),
        ] {
            assert_eq!(refused(name, arguments), None, "{name} {arguments:?}");
        }
    }
}
