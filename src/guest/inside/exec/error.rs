//! Why the end of a command is not known, or is not its own.

use std::io;
use std::time::Duration;

use super::super::CallError;
use crate::error::{ExitCode, Hint, Report};

/// A command whose exit status cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// It could not be started, or the agent answered oddly.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It ran too long.
    #[error("`{command}` did not end within {limit:.0?} and was ended")]
    TimedOut {
        /// The command.
        command: String,
        /// Its time.
        limit: Duration,
    },
    /// It ran too long, or was interrupted, where mvm cannot end it.
    #[error("`{command}` {why}, and goes on in the guest as process {pid}")]
    GoesOn {
        /// The command.
        command: String,
        /// What it did.
        why: String,
        /// The process.
        pid: i64,
    },
    /// SIGKILL did nothing.
    #[error("`{command}` does not end, not even by SIGKILL")]
    Stuck {
        /// The command.
        command: String,
    },
    /// Nobody wanted to wait for an agent that is silent.
    #[error(
        "interrupted while the guest agent was silent: whether `{command}` still runs is not known"
    )]
    Interrupted {
        /// The command.
        command: String,
    },
    /// The user did not want to see all of it.
    #[error("interrupted: `{command}` has ended, and not all of its output is shown")]
    CutShort {
        /// The command.
        command: String,
    },
    /// The agent is silent for long.
    #[error(
        "the guest agent fell silent while `{command}` ran as process {pid}: what became of it is not known"
    )]
    Lost {
        /// The command.
        command: String,
        /// The process that the agent started.
        pid: i64,
        /// What was heard last.
        source: CallError,
    },
    /// The agent is another one than it was.
    #[error(
        "the guest agent no longer knows `{command}`, mostly because it was started anew: the exit status is lost"
    )]
    Forgotten {
        /// The command.
        command: String,
        /// Its process if it still runs, none if it does not, nothing where that is not known.
        still: Option<Option<String>>,
    },
    /// The shell that was to tell how it ended was killed.
    #[error("the shell that ran `{command}` in the guest was killed (status {status})")]
    ShellKilled {
        /// The command.
        command: String,
        /// How the shell ended.
        status: u8,
    },
    /// No folder in the guest takes its output.
    #[error("no folder in the guest can hold the output of `{command}`")]
    NoPlace {
        /// The command.
        command: String,
    },
    /// The folder to run in is not there.
    #[error("`{cwd}` is no folder that a command in the guest can run in")]
    NoCwd {
        /// The folder.
        cwd: String,
    },
    /// The guest has no shell, and it takes one.
    #[error(
        "{what} takes a shell in the guest, and it has no {}",
        super::super::shell::SHELL
    )]
    NeedsShell {
        /// What was asked for.
        what: &'static str,
    },
    /// There was more output than the agent keeps.
    #[error("`{command}` printed more than the guest agent keeps: what is shown is not all of it")]
    Truncated {
        /// The command.
        command: String,
        /// Its exit status.
        status: u8,
    },
    /// The input could not be given to it.
    #[error("the input of `{command}` cannot be written in the guest")]
    Input {
        /// The command.
        command: String,
        /// Why.
        source: CallError,
    },
    /// Its input could not be read.
    #[error("cannot read the input of the command")]
    Stdin(#[source] io::Error),
    /// Its output could not be passed on.
    #[error("{}", .0.chain.join(": "))]
    Output(Report),
}

impl Hint for ExecError {
    fn hints(&self) -> Vec<String> {
        let one = |text: &str| vec![text.to_owned()];
        match self {
            Self::Call(source) | Self::Input { source, .. } | Self::Lost { source, .. } => {
                source.hints()
            }
            Self::Forgotten { still, .. } => match still {
                Some(Some(pid)) => vec![format!("it still runs in the guest as process {pid}")],
                Some(None) => one("it no longer runs"),
                None => one("it may still run in the guest"),
            },
            Self::NoPlace { .. } => vec![format!(
                "one of {} must be writable, and not full",
                super::super::script::PLACES.join(", ")
            )],
            Self::NeedsShell { .. } => one(
                "without a shell, the command and what is read before it starts are all that the agent takes",
            ),
            Self::Truncated { status, .. } => vec![
                format!("its exit status was {status}"),
                "write it to a file in the guest, and copy that with `mvm cp`".to_owned(),
            ],
            Self::GoesOn { .. } => one("without a shell in the guest mvm cannot end it"),
            Self::Stuck { .. } => one(
                "it hangs in the guest's kernel, mostly on a disk or a device: see `dmesg` there",
            ),
            Self::Output(report) => report.hints.clone(),
            _ => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Call(source) => source.exit_code(),
            Self::NoCwd { .. } => ExitCode::Usage,
            Self::Output(report) => report.code,
            _ => ExitCode::Failed,
        }
    }
}
