//! A guest's agent, as commands ask it: through the supervisor, which owns the channel.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::control::Control;
use super::guests::{self, Seen};
use super::{Context, Failure};
use crate::guest::inside::{CallError, Inside};

/// A supervisor ends a conversation in which nothing is asked for 10 s.
const FRESH: Duration = Duration::from_secs(5);

/// The agent of a guest that runs and is supervised.
#[derive(Debug)]
pub(super) struct AgentLink {
    seen: Seen,
    /// The conversation, and when it was last used. None while a call is under way: one that was given up
    /// leaves an answer behind that belongs to no later call.
    held: Option<(Control, Instant)>,
}

impl AgentLink {
    /// That guest's.
    pub(super) fn find(context: &Context, name: &str) -> Result<Self, Failure> {
        Ok(Self::to(guests::find_supervised(context, name)?))
    }

    /// The same for a guest that was found already.
    pub(super) fn to(seen: Seen) -> Self {
        Self { seen, held: None }
    }

    /// Asks the supervisor itself.
    pub(super) async fn ask(
        &mut self,
        request: &Value,
        within: Duration,
    ) -> Result<Value, CallError> {
        let held = self.held.take();
        let mut control = match held.filter(|(_, used)| used.elapsed() < FRESH) {
            Some((control, _)) => control,
            None => {
                let control =
                    Control::connect(self.seen.name.as_str(), self.seen.run.control()).await;
                control.map_err(|error| CallError::Supervisor(error.into()))?
            }
        };
        let answer = control.ask(request, within).await;
        let answer = answer.map_err(CallError::Supervisor)?;
        self.held = Some((control, Instant::now()));
        Ok(answer)
    }
}

impl Inside for AgentLink {
    fn guest(&self) -> &str {
        self.seen.name.as_str()
    }

    async fn call(
        &mut self,
        command: &str,
        arguments: Value,
        within: Duration,
    ) -> Result<Value, CallError> {
        let mut request = json!({
            "do": "agent",
            "command": command,
            "timeout-ms": u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
        });
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        let answer = self.ask(&request, within).await?;
        CallError::from_answer(command, answer)
    }
}
