//! What a call of the agent can come to other than an answer.

use serde_json::Value;

use crate::error::{ExitCode, Hint, Report};

/// A call that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The agent would not or could not.
    #[error("the guest agent failed at `{command}`: {desc}")]
    Refused {
        /// The command.
        command: String,
        /// The agent's error class.
        class: String,
        /// Its words.
        desc: String,
        /// What can be done about it.
        hints: Vec<String>,
    },
    /// The agent was silent.
    #[error("{message}")]
    Silent {
        /// Whether it may have had the command: where not, it can be sent again.
        sent: bool,
        /// What is known.
        message: String,
        /// What can be done about it.
        hints: Vec<String>,
    },
    /// The agent answered what cannot be.
    #[error("the guest agent answered `{command}` with what does not belong there: {what}")]
    Strange {
        /// The command.
        command: String,
        /// What is wrong with it.
        what: String,
    },
    /// The supervisor could not be asked, or would not.
    #[error("{}", .0.chain.join(": "))]
    Supervisor(Report),
}

impl CallError {
    /// Whether the agent has no such command, or not now.
    pub fn is_unknown_command(&self) -> bool {
        matches!(self, Self::Refused { class, .. } if class == "CommandNotFound")
    }

    /// Whether the agent tried and failed.
    pub(super) fn is_failure(&self) -> bool {
        matches!(self, Self::Refused { .. }) && !self.is_unknown_command()
    }

    /// Whether the agent cannot have had the command.
    pub(super) fn is_unheard(&self) -> bool {
        matches!(self, Self::Silent { sent: false, .. })
    }

    /// The supervisor's answer to the verb `agent`, as its client sees it.
    ///
    /// # Errors
    /// Where it is not the agent's return value.
    pub fn from_answer(command: &str, mut answer: Value) -> Result<Value, Self> {
        if let Some(value) = answer.get_mut("return") {
            return Ok(value.take());
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let hints = |value: &Value| {
            let hints = value["hints"].as_array().into_iter().flatten();
            hints.map(text).collect()
        };
        if let Some(refused) = answer.get("refused") {
            return Err(Self::Refused {
                command: command.to_owned(),
                class: text(&refused["class"]),
                desc: bare(refused["desc"].as_str().unwrap_or_default()),
                hints: hints(refused),
            });
        }
        if let Some(silent) = answer.get("silent") {
            return Err(Self::Silent {
                sent: silent["sent"] != false,
                message: text(&silent["message"]),
                hints: hints(silent),
            });
        }
        Err(Self::Supervisor(
            Report::new(
                ExitCode::Failed,
                "the supervisor answered what this mvm does not understand",
            )
            .hint("was the guest started by another version of mvm?"),
        ))
    }

    /// An answer that lacks something, or has it in another form.
    pub(super) fn strange(command: &str, what: impl Into<String>) -> Self {
        Self::Strange {
            command: command.to_owned(),
            what: what.into(),
        }
    }
}

impl Hint for CallError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Refused { hints, .. } | Self::Silent { hints, .. } => hints.clone(),
            Self::Strange { .. } => Vec::new(),
            Self::Supervisor(report) => report.hints.clone(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Supervisor(report) => report.code,
            _ => ExitCode::Failed,
        }
    }
}

/// The agent's words without those that say only that it failed.
fn bare(desc: &str) -> String {
    desc.strip_prefix("Guest agent command failed, error was '")
        .and_then(|rest| rest.strip_suffix('\''))
        .unwrap_or(desc)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let read = |answer| CallError::from_answer("guest-exec", answer);
        assert_eq!(
            read(json!({"return": {"pid": 3}})).expect("an answer"),
            json!({"pid": 3})
        );
        assert_eq!(
            read(json!({"return": null})).expect("an answer"),
            Value::Null
        );
        let desc = "Guest agent command failed, error was 'no such file'";
        let refused =
            read(json!({"refused": {"class": "GenericError", "desc": desc, "hints": []}}));
        let refused = refused.expect_err("refused");
        assert!(refused.is_failure() && !refused.is_unheard());
        assert!(refused.to_string().ends_with("`guest-exec`: no such file"));
        let silent = json!({"silent": {"sent": false, "message": "no", "hints": ["do"]}});
        let silent = read(silent).expect_err("silent");
        assert!(silent.is_unheard());
        assert_eq!(silent.hints(), ["do"]);
        // What an older supervisor says is the value itself.
        assert!(matches!(
            read(json!({"pid": 3})),
            Err(CallError::Supervisor(_))
        ));
    }
}
