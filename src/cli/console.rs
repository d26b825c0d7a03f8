//! `mvm console`

use std::os::unix::net::UnixStream;
use std::path::Path;

use clap::Args;

use super::relay::{self, Ends, Left};
use super::{Context, Failure, block_on, guests, output, terminal};
use crate::error::{ExitCode, Report};
use crate::units::Span;

/// Connect this terminal with a guest's console
///
/// Ctrl-] leaves it; the guest goes on. Any number of terminals can be connected. Where standard input or
/// output is no terminal, bytes are carried as they are, until the guest is gone.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm console web
  mvm console web hvc
  mvm console web --until 'login:' --timeout 2m < /dev/null
  echo 'uname -a' | mvm console web --timeout 5s")]
pub(super) struct ConsoleArgs {
    /// The guest
    name: String,
    /// The console's name in the profile
    #[arg(default_value = "main")]
    console: String,
    /// Leave when the guest prints this text
    #[arg(long, value_name = "TEXT")]
    until: Option<String>,
    /// Leave after that long; a failure where --until waited for its text
    #[arg(long, value_name = "SPAN")]
    timeout: Option<Span>,
}

pub(super) fn run(args: ConsoleArgs, context: &Context) -> Result<(), Failure> {
    block_on(connect(args, context))
}

async fn connect(args: ConsoleArgs, context: &Context) -> Result<(), Failure> {
    let seen = guests::find_supervised(context, &args.name)?;
    let stream = open(&seen, &args.console).await?;
    let ends = Ends {
        after: args.timeout.map(Span::duration),
        at_text: args.until.clone(),
        output_only: false,
    };
    if relay::interactive() {
        output::note(&format!("connected to {}; Ctrl-] leaves", args.name));
    }
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // Nobody listens any more when a signal was faster.
        let _ = tell.send(relay::relay(stream, &ends));
    });
    let left = tokio::select! {
        left = told => left,
        signal = ended_by_signal() => {
            terminal::restore();
            return Err(Failure::message(ExitCode::Failed, format!("ended by {signal}")));
        }
    };
    let failed = |why: String| {
        Failure::message(
            ExitCode::Failed,
            format!("the console of {} broke: {why}", args.name),
        )
    };
    match left {
        Ok(Ok(Left::Time)) if args.until.is_some() => Err(Failure::message(
            ExitCode::Failed,
            format!("{} did not print that text in time", args.name),
        )),
        Ok(Ok(Left::Closed)) if args.until.is_some() => Err(Failure::message(
            ExitCode::Failed,
            format!("{} ended and did not print that text", args.name),
        )),
        Ok(Ok(left)) => {
            if relay::interactive() {
                output::note(match left {
                    Left::Closed => "\nthe guest is gone",
                    _ => "\nleft the console",
                });
            }
            Ok(())
        }
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed("its thread ended".to_owned())),
    }
}

/// A raw terminal gives Ctrl-C to the guest, but signals from elsewhere still come.
async fn ended_by_signal() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = (
        signal(SignalKind::terminate()),
        signal(SignalKind::hangup()),
        signal(SignalKind::interrupt()),
    );
    let (Ok(mut terminate), Ok(mut hangup), Ok(mut interrupt)) = kinds else {
        // Without handlers the signals end the process themselves.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = hangup.recv() => "SIGHUP",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// The guest's console as a stream.
pub(super) async fn open(seen: &guests::Seen, console: &str) -> Result<UnixStream, Failure> {
    let told = seen.state.as_ref().map(|state| &state.sockets);
    let told = told.and_then(|sockets| sockets.get(&format!("console-{console}")));
    let path = seen.run.console(console);
    if let Some(pty) = told.filter(|told| **told != path) {
        return Err(Report::new(
            ExitCode::Failed,
            format!(
                "console `{console}` of {} is the pseudo-terminal {}",
                seen.name,
                pty.display()
            ),
        )
        .hint(format!(
            "another program can use it, as in `screen {}`",
            pty.display()
        ))
        .into());
    }
    let failed = |error: std::io::Error| {
        let report = Report::new(
            ExitCode::Failed,
            format!("cannot reach console `{console}` of {}: {error}", seen.name),
        );
        let known = consoles(seen);
        match error.kind() {
            std::io::ErrorKind::NotFound if known.is_empty() => report.hint(
                "the guest has no console that mvm carries; `mvm show` tells the path of a pty",
            ),
            std::io::ErrorKind::NotFound => {
                report.hint(format!("its consoles are `{}`", known.join("`, `")))
            }
            _ => report,
        }
    };
    open_at(&path).await.map_err(failed).map_err(Failure::from)
}

/// The same by the socket's path.
pub(super) async fn open_at(path: &Path) -> std::io::Result<UnixStream> {
    let stream = mvm_qmp::connect(path).await?.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// The consoles that can be connected to.
fn consoles(seen: &guests::Seen) -> Vec<&str> {
    let state = seen.state.as_ref().into_iter();
    state
        .flat_map(|state| &state.sockets)
        .filter_map(|(name, path)| {
            let id = name.strip_prefix("console-")?;
            (*path == seen.run.console(id)).then_some(id)
        })
        .collect()
}
