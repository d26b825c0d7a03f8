//! `mvm exec`

use std::io::{self, IsTerminal as _, Write as _};
use std::str::FromStr;

use clap::Args;
use tokio::sync::mpsc::{Receiver, channel};

use super::inside::AgentLink;
use super::{Context, Failure, block_on, output, signals, stdin};
use crate::error::Report;
use crate::guest::inside::exec::{self, Ends, Job, Stream};
use crate::units::Span;

/// Run a command in a guest, through its agent
///
/// Its standard output and standard error come out here while it runs, its exit status is mvm's own (128 and
/// the signal's number where a signal ended it). Where mvm itself fails, it says so on stderr and ends with
/// one of its own codes. Standard input goes to the command, except from a terminal. The command runs as the
/// agent's user, mostly root, without a terminal; words are passed as they are, and no shell reads them.
/// Ctrl-C goes on to the command; a second one kills it, a third ends mvm.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm exec web -- uname -a
  mvm exec web --timeout 30s --cwd /srv --env LANG=C -- sh -c 'ls -l | wc -l'
  mvm exec web -- tar -C /etc -cf - . > etc.tar
  mvm exec web -- sh -c 'cat > /root/notes' < notes
  while read host; do mvm exec web --no-stdin -- ping -c 1 \"$host\"; done < hosts")]
pub(super) struct ExecArgs {
    /// The guest
    name: String,
    /// How long the command may run; then it is ended (SIGTERM, SIGKILL) and mvm fails
    #[arg(long, value_name = "SPAN")]
    timeout: Option<Span>,
    /// A variable of the command's environment, beside the agent's own
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<Assignment>,
    /// The folder in the guest that the command runs in
    #[arg(long, value_name = "PATH", value_parser = absolute)]
    cwd: Option<String>,
    /// Read standard input from a terminal too
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Do not read standard input
    #[arg(short = 'n', long, conflicts_with = "stdin")]
    no_stdin: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// `NAME=value`, as a shell can export it.
#[derive(Debug, Clone)]
struct Assignment(String);

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, _) = text.split_once('=').unwrap_or_default();
        let letters = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty()
            || !name.chars().all(letters)
            || name.starts_with(|c: char| c.is_ascii_digit())
        {
            return Err("expected NAME=VALUE, the name of letters, digits and _".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

fn absolute(path: &str) -> Result<String, String> {
    if path.starts_with('/') {
        return Ok(path.to_owned());
    }
    Err("expected a path in the guest that begins with /".to_owned())
}

pub(super) fn run(args: &ExecArgs, context: &Context) -> Result<(), Failure> {
    let mut link = AgentLink::find(context, &args.name)?;
    let mut signals = signals::listen()?;
    let status = block_on(async {
        let wanted = args.stdin || (!args.no_stdin && !io::stdin().is_terminal());
        let mut pieces = if wanted { stdin::pieces() } else { none() };
        let (input, input_ends) = stdin::first(&mut pieces)
            .await
            .map_err(|error| stdin::failed(&error))?;
        let job = Job {
            words: args.command.clone(),
            env: args.env.iter().map(|set| set.0.clone()).collect(),
            cwd: args.cwd.clone(),
            timeout: args.timeout.map(Span::duration),
            input,
            input_ends,
        };
        let ends = Ends {
            output: &mut pass_on,
            input: &mut pieces,
            signals: &mut signals,
        };
        Ok(exec::run(&mut link, job, ends).await?)
    })?;
    match status {
        0 => Ok(()),
        status => Err(Failure::status(status)),
    }
}

/// Input that has ended.
fn none() -> Receiver<io::Result<Vec<u8>>> {
    channel(1).1
}

fn pass_on(stream: Stream, bytes: &[u8]) -> Result<bool, Report> {
    if stream == Stream::Out {
        return output::stream(bytes);
    }
    let mut stderr = io::stderr().lock();
    // Who has closed stderr does not want it; that is no reason to end the command.
    let _ = stderr.write_all(bytes).and_then(|()| stderr.flush());
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_cannot_export_is_refused() {
        for good in ["A=", "A=b=c", "_x1=two words\n"] {
            assert!(good.parse::<Assignment>().is_ok(), "{good}");
        }
        for bad in ["", "A", "=x", "1A=x", "A-B=x", "--=x", "A B=x"] {
            assert!(bad.parse::<Assignment>().is_err(), "{bad}");
        }
    }
}
