//! One QEMU process, its questions and its answers.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::caps::Version;
use super::names::Names;
use crate::host::bounded;

/// How long one QEMU process may take to answer everything; it takes a tenth of a second.
const LIMIT: Duration = Duration::from_secs(30);

/// The id of the last question.
const LAST: &str = "mvm-last-question";

/// Why a QEMU could not be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    /// It could not be started.
    #[error("it cannot be started: {0}")]
    Start(#[from] std::io::Error),
    /// It did not answer in time.
    #[error("it did not answer within {} s{}", LIMIT.as_secs(), said(.0))]
    Silent(String),
    /// It ended before everything was answered.
    #[error("it ended without answering `{command}` ({status}){}", said(.stderr))]
    Ended {
        /// The first question without an answer.
        command: String,
        /// How it ended.
        status: String,
        /// The end of its stderr.
        stderr: String,
    },
    /// It answered something that mvm does not understand.
    #[error("its answer to `{command}` is not understood")]
    Answer {
        /// The question.
        command: &'static str,
        /// What was wrong with it.
        source: serde_json::Error,
    },
    /// It refused a question that every QEMU answers.
    #[error("it refuses `{command}`: {why}")]
    Refused {
        /// The question.
        command: &'static str,
        /// QEMU's words.
        why: String,
    },
    /// It is older than what mvm works with.
    #[error("it is version {0}, and mvm needs 6.2 or later")]
    Old(Version),
}

fn said(stderr: &str) -> String {
    match stderr {
        "" => String::new(),
        text => format!(": {text}"),
    }
}

/// The replies of one QEMU process, by the question's id.
pub(super) struct Replies {
    by_id: HashMap<String, Result<Value, String>>,
    status: String,
    stderr: String,
}

impl Replies {
    /// Takes the answer to the question `id`.
    pub(super) fn take<T: serde::de::DeserializeOwned>(
        &mut self,
        id: &str,
        command: &'static str,
    ) -> Result<T, ProbeError> {
        match self.by_id.remove(id) {
            Some(Ok(value)) => serde_json::from_value(value)
                .map_err(|source| ProbeError::Answer { command, source }),
            Some(Err(why)) => Err(ProbeError::Refused { command, why }),
            None => Err(ProbeError::Ended {
                command: command.to_owned(),
                status: self.status.clone(),
                stderr: self.stderr.clone(),
            }),
        }
    }
}

/// A QEMU without a machine answers the questions `(id, command, arguments)`, all at once.
pub(super) fn ask(
    binary: &Path,
    questions: &[(&str, &'static str, Value)],
) -> Result<Replies, ProbeError> {
    let mut command = Command::new(binary);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-S"]);
    // Some builds have no TCG, and the others must not touch a KVM that may be unwell.
    command.args(["-machine", "none,accel=tcg:kvm", "-qmp", "stdio"]);
    let mut input = json!({ "execute": "qmp_capabilities" }).to_string();
    for (id, name, arguments) in questions {
        let mut question = json!({ "execute": name, "id": id });
        if !arguments.is_null() {
            question["arguments"] = arguments.clone();
        }
        input.push('\n');
        input.push_str(&question.to_string());
    }
    input.push('\n');
    // Not `quit`: QEMU would leave before the end of its answers where we read slowly.
    input.push_str(&json!({ "execute": "query-name", "id": LAST }).to_string());
    input.push('\n');
    let outcome = bounded::talk(command, input.as_bytes(), LAST.as_bytes(), LIMIT)?;
    let Some(stdout) = outcome.stdout else {
        return Err(ProbeError::Silent(outcome.stderr));
    };
    let mut by_id = HashMap::new();
    for line in stdout.split(|b| *b == b'\n') {
        let Ok(Value::Object(mut line)) = serde_json::from_slice(line) else {
            continue;
        };
        if let Some(greeting) = line.remove("QMP") {
            by_id.insert("QMP".to_owned(), Ok(greeting));
            continue;
        }
        let Some(Value::String(id)) = line.remove("id") else {
            continue;
        };
        if let Some(value) = line.remove("return") {
            by_id.insert(id, Ok(value));
        } else if let Some(error) = line.remove("error") {
            let why = error.get("desc").and_then(Value::as_str);
            by_id.insert(id, Err(why.unwrap_or_default().to_owned()));
        }
    }
    Ok(Replies {
        by_id,
        status: outcome
            .status
            .map_or_else(|| "killed".to_owned(), |s| s.to_string()),
        stderr: outcome.stderr,
    })
}

/// What `-display help` and `-audiodev help` list: QEMU loads each one's module for that, so what they
/// list can be used. The schema also lists what is in a module that is not installed.
pub(super) fn listed_by_help(binary: &Path, option: &str) -> Result<Names, ProbeError> {
    let mut command = Command::new(binary);
    command.args(["-nodefaults", "-no-user-config", "-machine", "none"]);
    command.args([option, "help"]);
    let outcome = bounded::run(command, LIMIT)?;
    let Some(stdout) = outcome.stdout else {
        return Err(ProbeError::Silent(outcome.stderr));
    };
    Ok(parse_help(&String::from_utf8_lossy(&stdout)))
}

/// A heading that ends with a colon, then one name a line up to an empty line.
pub(super) fn parse_help(text: &str) -> Names {
    text.lines()
        .skip_while(|l| !l.ends_with(':'))
        .skip(1)
        .take_while(|l| !l.trim().is_empty())
        .map(str::trim)
        .filter(|l| l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
        .collect()
}
