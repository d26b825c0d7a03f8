//! `mvm cp`

mod local;
mod side;

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::signal::Signal;
use tokio::sync::mpsc::UnboundedReceiver;

use self::local::{Destination, Source};
use self::side::{Side, Sides};
use super::inside::AgentLink;
use super::{Context, Failure, block_on, output, signals};
use crate::error::{ExitCode, Report};
use crate::guest::inside::Inside as _;
use crate::guest::inside::copy::{Incoming, Outgoing};

/// Copy a file into a guest or out of it, through its agent
///
/// One side is `NAME:PATH`, a path in the guest, the other one of this host, or `-` for standard input or
/// output. A folder as the destination takes the file under its own name. The mode is kept; in the guest a
/// file that is replaced keeps its owner. The destination is replaced when the copy is complete and not
/// before (in a guest without /bin/sh it is written in place).
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm cp ./app.conf web:/etc/app.conf
  mvm cp web:/var/log/syslog .
  mvm cp web:/etc/fstab - | grep swap
  tar -c site | mvm cp - web:/root/site.tar")]
pub(super) struct CpArgs {
    /// From where: `NAME:PATH`, a path, or -
    source: Side,
    /// To where
    destination: Side,
}

pub(super) fn run(args: &CpArgs, context: &Context) -> Result<(), Failure> {
    match side::sides(&args.source, &args.destination)? {
        Sides::Into { from, guest, to } => {
            let mut link = AgentLink::find(context, guest)?;
            // Before the thread that reads standard input: it must not take a signal.
            let mut signals = signals::listen()?;
            let source = Source::open(from)?;
            block_on(send(&mut link, source, to, &mut signals))
        }
        Sides::OutOf { guest, from, to } => {
            let mut link = AgentLink::find(context, guest)?;
            let mut signals = signals::listen()?;
            block_on(fetch(&mut link, from, to, &mut signals))
        }
    }
}

async fn send(
    link: &mut AgentLink,
    mut source: Source,
    to: &str,
    signals: &mut UnboundedReceiver<Signal>,
) -> Result<(), Failure> {
    let incoming = Incoming::begin(link, to, source.name()).await?;
    if incoming.is_in_place() {
        output::note(&format!(
            "{} has no /bin/sh: {} is written in place",
            link.guest(),
            incoming.becomes()
        ));
    }
    let mut progress = Progress::new(source.size());
    let moved = async {
        loop {
            let bytes = source.next().await?;
            if bytes.is_empty() {
                return Ok(());
            }
            incoming.add(link, &bytes).await?;
            progress.add(bytes.len());
        }
    };
    let moved: Result<(), Failure> = tokio::select! {
        moved = moved => moved,
        Some(signal) = signals.recv() => Err(interrupted(signal)),
    };
    progress.end();
    match moved {
        Ok(()) => Ok(incoming.finish(link, source.mode()).await?),
        Err(failure) => {
            incoming.discard(link).await;
            Err(failure)
        }
    }
}

async fn fetch(
    link: &mut AgentLink,
    from: &str,
    to: &str,
    signals: &mut UnboundedReceiver<Signal>,
) -> Result<(), Failure> {
    let outgoing = Outgoing::open(link, from).await?;
    let mut progress = Progress::new(outgoing.size);
    let moved = async {
        let mut destination = Destination::begin(to, from)?;
        loop {
            let bytes = outgoing.next(link).await?;
            if bytes.is_empty() {
                destination.finish(outgoing.mode)?;
                return Ok(());
            }
            progress.add(bytes.len());
            if !destination.add(&bytes)? {
                return Ok(());
            }
        }
    };
    let moved: Result<(), Failure> = tokio::select! {
        moved = moved => moved,
        Some(signal) = signals.recv() => Err(interrupted(signal)),
    };
    progress.end();
    outgoing.close(link).await;
    moved
}

fn interrupted(signal: Signal) -> Failure {
    Report::new(
        ExitCode::Failed,
        format!("interrupted by {}: nothing was replaced", signal.as_str()),
    )
    .into()
}

/// A line that tells people at a terminal how far it is.
struct Progress {
    total: Option<u64>,
    done: u64,
    began: Instant,
    told: Option<Instant>,
}

impl Progress {
    /// Between two tellings, and before the first.
    const EVERY: Duration = Duration::from_millis(500);

    fn new(total: Option<u64>) -> Self {
        Self {
            total,
            done: 0,
            began: Instant::now(),
            told: None,
        }
    }

    fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        if self.told.unwrap_or(self.began).elapsed() < Self::EVERY || !io::stderr().is_terminal() {
            return;
        }
        self.told = Some(Instant::now());
        let line = line(self.done, self.total, self.began.elapsed());
        // A closed stderr leaves nobody to tell.
        let _ = write!(io::stderr().lock(), "\r{line}\x1b[K");
    }

    fn end(&mut self) {
        if self.told.take().is_some() {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

/// How far it is, how fast, and for how long still.
fn line(done: u64, total: Option<u64>, after: Duration) -> String {
    let per_second = done * 1000 / u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1);
    let speed = output::human_bytes(per_second);
    let so_far = output::human_bytes(done);
    match total.filter(|total| *total >= done && *total > 0) {
        Some(total) => {
            let left = Duration::from_secs((total - done) / per_second.max(1));
            format!(
                "{so_far} of {} ({} %), {speed}/s, {} left",
                output::human_bytes(total),
                done * 100 / total,
                output::human_duration(left)
            )
        }
        None => format!("{so_far}, {speed}/s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_with_what_is_known() {
        let second = Duration::from_secs(1);
        assert_eq!(
            line(1 << 20, Some(4 << 20), second),
            "1M of 4M (25 %), 1M/s, 3s left"
        );
        assert_eq!(line(1 << 20, None, second), "1M, 1M/s");
        // It grew meanwhile, or tells no size, as files in /proc do.
        assert_eq!(line(2048, Some(0), second), "2K, 2K/s");
        assert_eq!(line(2048, Some(1024), Duration::ZERO), "2K, 1.9M/s");
    }
}
