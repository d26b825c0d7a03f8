//! Short scripts for the guest's own shell. Words go to it as arguments and never as part of its text.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::files::{CALL, bytes};
use super::{CallError, Inside};

/// The shell. Not looked up in PATH: what is called `sh` in a Windows guest sees other paths than the agent.
pub(super) const SHELL: &str = "/bin/sh";
/// For a look at a command. Where an agent dies in the midst of it, the next look finds the new one.
pub(super) const LOOK: Duration = Duration::from_secs(10);
/// Before the second look at whether a command has ended. The agent tells nothing by itself.
pub(super) const SOON: Duration = Duration::from_millis(5);
/// Between two looks, in the end.
const SELDOM: Duration = Duration::from_millis(250);

/// The wait after one that brought nothing.
pub(super) fn longer(pause: Duration) -> Duration {
    (pause * 3 / 2).min(SELDOM)
}

/// How a command of the agent's ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Done {
    /// Its exit status; 128 and the signal's number where one ended it, as shells have it.
    pub(super) status: u8,
    /// Its output, or as much as the agent kept.
    pub(super) stdout: Vec<u8>,
    /// Its messages, likewise.
    pub(super) stderr: Vec<u8>,
    /// The agent did not keep all of it.
    pub(super) truncated: bool,
}

/// Starts a command whose output the agent keeps, and gives its process id.
pub(super) async fn start(
    inside: &mut impl Inside,
    path: &str,
    words: &[String],
    input: &[u8],
) -> Result<i64, CallError> {
    const COMMAND: &str = "guest-exec";
    let mut arguments = json!({ "path": path, "arg": words, "capture-output": true });
    if !input.is_empty() {
        arguments["input-data"] = json!(super::files::text(input));
    }
    let answer = inside.call(COMMAND, arguments, CALL).await?;
    let pid = answer["pid"].as_i64();
    pid.ok_or_else(|| CallError::strange(COMMAND, answer.to_string()))
}

/// Whether it has ended. Once it has, the agent forgets it: an answer that comes after `within` is lost.
pub(super) async fn ended(
    inside: &mut impl Inside,
    pid: i64,
    within: Duration,
) -> Result<Option<Done>, CallError> {
    const COMMAND: &str = "guest-exec-status";
    let answer = inside.call(COMMAND, json!({ "pid": pid }), within).await?;
    if answer["exited"] != true {
        return Ok(None);
    }
    Ok(Some(Done {
        status: status(&answer),
        stdout: bytes(COMMAND, &answer["out-data"])?,
        stderr: bytes(COMMAND, &answer["err-data"])?,
        truncated: answer["out-truncated"] == true || answer["err-truncated"] == true,
    }))
}

/// A status that does not fit, as Windows has them, must not come out as success.
fn status(answer: &Value) -> u8 {
    if let Some(signal) = answer["signal"].as_u64() {
        return u8::try_from(128 + signal).unwrap_or(u8::MAX);
    }
    let code = answer["exitcode"].as_i64().unwrap_or_default();
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// Runs a script that takes no time of its own.
pub(super) async fn script(
    inside: &mut impl Inside,
    text: &str,
    arguments: &[&str],
    within: Duration,
) -> Result<Done, CallError> {
    let words = words(text, arguments.iter().map(ToString::to_string));
    let pid = start(inside, SHELL, &words, &[]).await?;
    let end = Instant::now() + within;
    let mut pause = SOON;
    loop {
        if let Some(done) = ended(inside, pid, LOOK).await? {
            return Ok(done);
        }
        if Instant::now() > end {
            return Err(CallError::Silent {
                sent: true,
                message: format!("a small script in the guest did not end within {within:.0?}"),
                hints: vec![
                    "its file systems or its memory may be in trouble: `mvm console` shows"
                        .to_owned(),
                ],
            });
        }
        sleep(pause).await;
        pause = longer(pause);
    }
}

/// The shell's arguments: the script, what it is called in messages, and its words.
pub(super) fn words(text: &str, arguments: impl IntoIterator<Item = String>) -> Vec<String> {
    let head = ["-c", text, "sh"].map(str::to_owned);
    head.into_iter().chain(arguments).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_end_looks_like_success_that_is_none() {
        assert_eq!(status(&json!({"exitcode": 0})), 0);
        assert_eq!(status(&json!({"exitcode": 7})), 7);
        assert_eq!(status(&json!({"signal": 9})), 137);
        assert_eq!(status(&json!({"exitcode": 3_221_225_477_u32})), 255);
        assert_eq!(status(&json!({"exitcode": 256})), 255);
        assert_eq!(status(&json!({"exitcode": -1})), 255);
    }

    #[test]
    fn looks_become_seldom_and_do_not_stop() {
        let mut pause = SOON;
        for _ in 0..100 {
            pause = longer(pause);
        }
        assert_eq!(pause, SELDOM);
    }
}
