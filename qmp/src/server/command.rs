//! What becomes of one command of a client: answered here, or sent to QEMU and its reply handed on.

use std::{os::fd::OwnedFd, sync::Arc};

use serde_json::{Value, json, value::RawValue};

use super::{
    client::Client,
    fdnames::{self, Kind},
    hook::{self, Answer, ClientCommand, Verdict},
    request::{self, Call, Refusal},
};
use crate::{client::core::Sink, wire::Outcome};

pub(super) struct Command {
    pub(super) call: Call,
    pub(super) id: Option<String>,
    pub(super) fds: Vec<OwnedFd>,
}

/// What to do once a command about a named descriptor has succeeded.
enum After {
    Nothing,
    Renamed,
    Given(String),
    Closed(String),
}

impl Client {
    /// Answers a command here, or sends it to QEMU.
    pub(super) fn run(self: &Arc<Self>, command: Command) {
        let Command {
            call:
                Call {
                    name,
                    arguments,
                    oob,
                },
            id,
            fds,
        } = command;
        let answer = |answer: Answer| {
            let line = match answer {
                Ok(value) => request::reply("return", &value.to_string(), id.as_deref()),
                Err(refusal) => request::reply("error", &refusal.json(), id.as_deref()),
            };
            self.finish(oob, &line, |_| {});
        };
        if name == "qmp_capabilities" || !self.lock().negotiated {
            return answer(self.negotiate(&name, arguments.as_deref()));
        }
        if let Some(refusal) = hook::refused(&name, arguments.as_deref()) {
            tracing::warn!(
                client = self.number,
                name,
                "refused a command that would run a program"
            );
            return answer(Err(refusal));
        }
        let seen = ClientCommand {
            client: self.number,
            name: &name,
            oob,
            arguments: arguments.as_deref(),
        };
        match self.server.hook.command(&seen) {
            Verdict::Forward => {}
            Verdict::Answer(given) => return answer(given),
            Verdict::Later(future) => {
                let client = Arc::clone(self);
                tokio::spawn(async move {
                    let line = match future.await {
                        Ok(value) => request::reply("return", &value.to_string(), id.as_deref()),
                        Err(refusal) => request::reply("error", &refusal.json(), id.as_deref()),
                    };
                    client.finish(oob, &line, |_| {});
                    client.advance();
                });
                return;
            }
        }
        let kind = fdnames::kind(&name);
        let renamed = self.lock().names.rename(kind, arguments.as_deref());
        let (arguments, after) = match renamed {
            None => (arguments, After::Nothing),
            Some(renamed) => (
                Some(renamed.arguments),
                match (kind, renamed.name) {
                    (Kind::Get, Some(name)) => After::Given(name),
                    (Kind::Close, Some(name)) => After::Closed(name),
                    _ => After::Renamed,
                },
            ),
        };
        let client = Arc::clone(self);
        let quit = name == "quit";
        let relay = move |outcome: Option<Outcome<'_>>| {
            client.relay(outcome, oob, id.as_deref(), after, quit);
        };
        let at_qemu = self.server.handle.core.submit(
            &name,
            arguments.as_deref(),
            oob,
            fds,
            Sink::Relay(Box::new(relay)),
        );
        let mut state = self.lock();
        if !oob && state.busy.is_some() {
            state.busy = Some(at_qemu);
        }
    }

    /// QEMU's reply, or its end.
    fn relay(
        self: &Arc<Self>,
        outcome: Option<Outcome<'_>>,
        oob: bool,
        id: Option<&str>,
        after: After,
        quit: bool,
    ) {
        let line = match outcome {
            Some(Outcome::Return(value)) => request::reply("return", value.get(), id),
            Some(Outcome::Error(body)) => {
                request::reply("error", &self.own_names(body, &after), id)
            }
            // It did what it was told, and was gone before it could say so.
            None if quit => request::reply("return", "{}", id),
            None => return self.end(),
        };
        let failed = matches!(outcome, Some(Outcome::Error(_)));
        self.finish(oob, &line, |state| match after {
            After::Given(name) if !failed => state.names.given(name),
            After::Closed(name) => state.names.closed(&name),
            _ => {}
        });
        if outcome.is_none() {
            self.end();
        } else if self.lock().gone {
            // The name came too late for its client.
            self.close_names();
        } else if !oob {
            self.advance();
        }
    }

    /// An error as the client would have got it under its own names.
    fn own_names(&self, body: &RawValue, after: &After) -> String {
        match after {
            After::Nothing => body.get().to_owned(),
            _ => body.get().replace(self.lock().names.prefix(), ""),
        }
    }

    /// What QEMU does with the first command of a connection.
    fn negotiate(&self, name: &str, arguments: Option<&str>) -> Answer {
        let mut state = self.lock();
        if name != "qmp_capabilities" {
            return Err(Refusal::not_found(
                "Expecting capabilities negotiation with 'qmp_capabilities'",
            ));
        }
        if state.negotiated {
            return Err(Refusal::not_found(
                "Capabilities negotiation is already complete, command ignored",
            ));
        }
        let arguments = arguments.map_or(Ok(json!({})), serde_json::from_str::<Value>);
        let arguments =
            arguments.map_err(|e| Refusal::generic(format!("JSON parse error, {e}")))?;
        let members = arguments.as_object().into_iter().flatten();
        let mut oob = false;
        for (key, value) in members {
            let Some(names) = value.as_array().filter(|_| key == "enable") else {
                return Err(Refusal::generic(format!("Parameter '{key}' is unexpected")));
            };
            for name in names {
                if name != "oob" {
                    return Err(Refusal::generic(format!(
                        "Parameter 'enable' does not accept value {name}"
                    )));
                }
                if !self.server.handle.greeting.has_oob() {
                    return Err(Refusal::generic("Capability 'oob' is not available"));
                }
                oob = true;
            }
        }
        state.negotiated = true;
        state.oob = oob;
        Ok(json!({}))
    }
}
