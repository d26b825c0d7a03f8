//! How a command is started: by the guest's shell, or by the agent alone.

use uuid::Uuid;

use super::super::shell::{self, SHELL};
use super::super::{CallError, Inside, script};
use super::{ExecError, Job};

/// Output up to that many bytes comes with the command's end.
const AT_ONCE: usize = 128 << 10;

/// A command that runs.
pub(super) struct Started {
    /// The process that the agent started.
    pub(super) pid: i64,
    /// The name of its folder; none where the agent runs it by itself.
    pub(super) token: Option<String>,
}

pub(super) async fn start(inside: &mut impl Inside, job: &Job) -> Result<Started, ExecError> {
    let token = format!("mvm-exec-{}", Uuid::new_v4());
    let input: &[u8] = if job.input_ends { &job.input } else { &[] };
    match shell::start(inside, SHELL, &words(job, &token), input).await {
        Ok(pid) => Ok(Started {
            pid,
            token: Some(token),
        }),
        // Whatever the reason, in whatever language: it is the same for the command itself, or is the shell.
        Err(error) if error.is_failure() => alone(inside, job, error).await,
        Err(error) => Err(error.into()),
    }
}

/// The shell's words.
fn words(job: &Job, token: &str) -> Vec<String> {
    let fed = if job.input_ends { "0" } else { "1" };
    let head = [
        token.to_owned(),
        fed.to_owned(),
        AT_ONCE.to_string(),
        script::bare(script::EXEC_INNER),
        job.cwd.clone().unwrap_or_default(),
    ];
    let env = job.env.iter().cloned();
    let command = job.words.iter().cloned();
    let all = head.into_iter().chain(env).chain(["--".to_owned()]);
    shell::words(&script::bare(script::EXEC), all.chain(command))
}

async fn alone(
    inside: &mut impl Inside,
    job: &Job,
    shell: CallError,
) -> Result<Started, ExecError> {
    tracing::debug!(%shell, "the guest has no shell");
    let needs = [
        (!job.env.is_empty(), "an environment"),
        (job.cwd.is_some(), "a folder to run in"),
        (!job.input_ends, "input that comes while the command runs"),
    ];
    if let Some((_, what)) = needs.into_iter().find(|(needed, _)| *needed) {
        return Err(ExecError::NeedsShell { what });
    }
    let Some((path, arguments)) = job.words.split_first() else {
        return Err(shell.into());
    };
    let pid = shell::start(inside, path, arguments, &job.input).await?;
    Ok(Started { pid, token: None })
}
