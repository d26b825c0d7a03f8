//! Talking to a guest's supervisor: one JSON object a line, on its `control.sock`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::output;
use crate::error::{ExitCode, Hint, Report};

/// How much later than the deadline of a request its answer may come.
const GRACE: Duration = Duration::from_secs(5);

/// A conversation with a supervisor.
#[derive(Debug)]
pub(super) struct Control {
    name: String,
    stream: BufReader<UnixStream>,
}

/// Why a supervisor cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub(super) enum ControlError {
    #[error("cannot reach the supervisor of {name} at {}", path.display())]
    Connect {
        name: String,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the supervisor of {name} went away before it answered")]
    Gone { name: String },
    #[error("the supervisor of {name} did not answer within {} s", after.as_secs())]
    Silent { name: String, after: Duration },
    #[error("the supervisor of {name} answered what this mvm does not understand")]
    Strange {
        name: String,
        source: serde_json::Error,
    },
}

impl Hint for ControlError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Connect { name, .. } | Self::Gone { name } => vec![format!(
                "`mvm list` shows whether {name} still runs, `mvm log {name}` what its supervisor said"
            )],
            Self::Silent { name, .. } => vec![format!(
                "`mvm log {name}` shows what it is doing, `mvm kill {name}` ends the guest"
            )],
            Self::Strange { .. } => {
                vec!["was the guest started by another version of mvm?".to_owned()]
            }
        }
    }
}

/// One line of an answer.
#[derive(Debug, Deserialize)]
struct Answer {
    progress: Option<String>,
    happened: Option<Value>,
    ok: Option<Value>,
    error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    message: String,
    #[serde(default)]
    hints: Vec<String>,
    #[serde(default)]
    code: i32,
}

impl From<Refusal> for Report {
    fn from(refusal: Refusal) -> Self {
        Self {
            chain: vec![refusal.message],
            hints: refusal.hints,
            code: ExitCode::from_number(refusal.code),
        }
    }
}

impl Control {
    /// Connects to the supervisor whose socket that is.
    pub(super) async fn connect(name: &str, path: PathBuf) -> Result<Self, ControlError> {
        let connected = tokio::time::timeout(GRACE, mvm_qmp::connect(&path)).await;
        match connected {
            Ok(Ok(stream)) => Ok(Self {
                name: name.to_owned(),
                stream: BufReader::new(stream),
            }),
            Ok(Err(source)) => Err(ControlError::Connect {
                name: name.to_owned(),
                path,
                source,
            }),
            Err(_) => Err(ControlError::Silent {
                name: name.to_owned(),
                after: GRACE,
            }),
        }
    }

    /// Asks for one thing and waits for its end; what the supervisor says meanwhile is shown to people.
    pub(super) async fn ask(&mut self, request: &Value, within: Duration) -> Result<Value, Report> {
        let mut line = request.to_string();
        line.push('\n');
        let gone = |_| ControlError::Gone {
            name: self.name.clone(),
        };
        self.stream
            .get_mut()
            .write_all(line.as_bytes())
            .await
            .map_err(gone)?;
        let after = within.saturating_add(GRACE);
        let answer = tokio::time::timeout(after, self.answer()).await;
        answer.unwrap_or_else(|_| {
            Err(ControlError::Silent {
                name: self.name.clone(),
                after,
            }
            .into())
        })
    }

    /// What happens to the guest next, however long it takes; nothing once there is no more. `ask` begins it.
    pub(super) async fn happened(&mut self, ask: bool) -> Result<Option<Value>, Report> {
        if ask {
            let sent = self.stream.get_mut().write_all(b"{\"do\":\"watch\"}\n");
            if sent.await.is_err() {
                return Ok(None);
            }
        }
        loop {
            let Some(answer) = self.line().await? else {
                return Ok(None);
            };
            if let Some(refusal) = answer.error {
                return Err(refusal.into());
            }
            if answer.happened.is_some() || answer.ok.is_some() {
                return Ok(answer.happened);
            }
        }
    }

    async fn answer(&mut self) -> Result<Value, Report> {
        loop {
            let Some(answer) = self.line().await? else {
                return Err(ControlError::Gone {
                    name: self.name.clone(),
                }
                .into());
            };
            if let Some(text) = answer.progress {
                output::progress(&text);
            }
            if let Some(refusal) = answer.error {
                return Err(refusal.into());
            }
            if let Some(value) = answer.ok {
                return Ok(value);
            }
        }
    }

    /// A line of the supervisor's; nothing where it has gone.
    async fn line(&mut self) -> Result<Option<Answer>, ControlError> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).await;
        if !matches!(read, Ok(length) if length > 0) {
            return Ok(None);
        }
        let answer = serde_json::from_str(&line).map_err(|source| ControlError::Strange {
            name: self.name.clone(),
            source,
        })?;
        Ok(Some(answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(lines: &'static str) -> Result<Value, Report> {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let mut control = Control {
            name: "g".to_owned(),
            stream: BufReader::new(ours),
        };
        let peer = async move {
            let mut theirs = BufReader::new(theirs);
            let mut request = String::new();
            theirs.read_line(&mut request).await.expect("a request");
            assert_eq!(request, "{\"do\":\"pause\"}\n");
            theirs
                .get_mut()
                .write_all(lines.as_bytes())
                .await
                .expect("an answer");
        };
        let request = serde_json::json!({"do": "pause"});
        let (answer, ()) = tokio::join!(control.ask(&request, Duration::from_secs(5)), peer);
        answer
    }

    #[tokio::test]
    async fn progress_goes_before_the_answer() {
        let value = answered("{\"progress\":\"now\"}\n{\"ok\":{\"state\":\"paused\"}}\n").await;
        assert_eq!(value.expect("ok")["state"], "paused");
    }

    #[tokio::test]
    async fn a_refusal_keeps_its_words_and_code() {
        let report =
            answered("{\"error\":{\"message\":\"no\",\"hints\":[\"why\"],\"code\":4,\"new\":1}}\n")
                .await
                .expect_err("refused");
        assert_eq!(report.to_string(), "error: no\nhint: why\n");
        assert_eq!(report.code, ExitCode::Host);
    }

    #[tokio::test]
    async fn a_supervisor_that_dies_is_named() {
        let report = answered("").await.expect_err("nothing came");
        assert!(report.to_string().contains("supervisor of g went away"));
    }
}
