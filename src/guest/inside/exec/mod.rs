//! A command in the guest: its input, its output while it runs, its end.
//!
//! The agent keeps 16 MiB of what a command prints, and hands it out when the command has ended. So a script
//! (`scripts/exec.sh`) runs the command with its output in files of the guest, which are read while they
//! grow; little output comes with the command's end at once, and quick commands need two calls. Input
//! that is known as a whole goes along with the start; other input goes into a file that the script feeds
//! to the command. Where the guest has no shell, the agent runs the command by itself, with its limits.

mod error;
mod spool;
mod start;

use std::io;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

pub use self::error::ExecError;
use self::spool::{Feed, Head, Spool};
use self::start::{Started, start};
use super::shell::{self, Done, LOOK, SOON, longer};
use super::{CallError, Inside, script};
use crate::error::Report;

/// How long a command runs before its output is looked for in the files.
const QUICK: Duration = Duration::from_millis(150);
/// How long an agent may be silent in the midst of a command.
const SILENCE: Duration = Duration::from_secs(60);
/// For a command to end after it was asked to, and once more after SIGKILL.
const END: Duration = Duration::from_secs(3);
/// Between two tries with an agent that is silent.
const AGAIN: Duration = Duration::from_millis(200);
/// For an answer with up to 32 MiB of output.
const ANSWER: Duration = Duration::from_secs(180);
/// For a small script.
const SCRIPT: Duration = Duration::from_secs(30);

/// What is to be run.
#[derive(Debug, Clone, Default)]
pub struct Job {
    /// The command and its arguments.
    pub words: Vec<String>,
    /// `NAME=value` each, beside the agent's own environment.
    pub env: Vec<String>,
    /// The folder it runs in.
    pub cwd: Option<String>,
    /// How long it may run.
    pub timeout: Option<Duration>,
    /// What it reads first.
    pub input: Vec<u8>,
    /// Whether that is all of it.
    pub input_ends: bool,
}

/// Where the command's output comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Takes output, and says whether somebody will take more.
pub type Output<'a> = dyn FnMut(Stream, &[u8]) -> Result<bool, Report> + 'a;

/// This side of the command.
pub struct Ends<'a> {
    /// Where its output goes.
    pub output: &'a mut Output<'a>,
    /// Input after the first; closed at its end.
    pub input: &'a mut mpsc::Receiver<io::Result<Vec<u8>>>,
    /// Signals for the command. After the second it is killed.
    pub signals: &'a mut mpsc::UnboundedReceiver<Signal>,
}

/// Runs a command to its end and gives its exit status.
///
/// # Errors
/// What keeps the status from being known; the command's own failure is its status.
pub async fn run(inside: &mut impl Inside, job: Job, ends: Ends<'_>) -> Result<u8, ExecError> {
    let Started { pid, token } = start(inside, &job).await?;
    let now = Instant::now();
    let fed = token.clone().filter(|_| !job.input_ends);
    let mut running = Running {
        inside,
        command: job.words.first().cloned().unwrap_or_default(),
        cwd: job.cwd.unwrap_or_default(),
        pid,
        began: now,
        ends,
        deadline: job.timeout.map(|limit| (now + limit, limit)),
        timed_out: None,
        ending: None,
        asked: 0,
        deaf: false,
        over: None,
        has_ended: false,
        feed: fed.map(|token| Feed::new(token, job.input)),
        spool: token.map(Spool::new),
    };
    let done = running.follow().await;
    if let Err(error) = &done {
        running.give_up(error).await;
    }
    done
}

struct Running<'a, 'e, I> {
    inside: &'a mut I,
    command: String,
    cwd: String,
    pid: i64,
    began: Instant,
    ends: Ends<'e>,
    /// When it must have ended, and how long that was.
    deadline: Option<(Instant, Duration)>,
    /// That was not kept.
    timed_out: Option<Duration>,
    /// It was told to end: until when that may take, and by what it was told last.
    ending: Option<(Instant, Signal)>,
    /// Signals of the user's.
    asked: u32,
    /// Nobody reads its output.
    deaf: bool,
    /// It has ended, as was seen aside.
    over: Option<Done>,
    /// Its end was seen: its number may be another's by now.
    has_ended: bool,
    feed: Option<Feed>,
    /// Its files; none where the agent runs it by itself.
    spool: Option<Spool>,
}

impl<I: Inside> Running<'_, '_, I> {
    async fn follow(&mut self) -> Result<u8, ExecError> {
        let mut pause = SOON;
        loop {
            if let Some(done) = self.look().await? {
                return self.ended(done).await;
            }
            let mut moved = self.began.elapsed() > QUICK && self.pass_on().await?;
            moved |= self.push().await?;
            pause = if moved { SOON } else { longer(pause) };
            self.press().await?;
            let idle = self.feed.as_ref().is_some_and(Feed::is_idle);
            let next = Instant::now() + pause;
            tokio::select! {
                biased;
                Some(signal) = self.ends.signals.recv() => self.user_signal(signal).await?,
                input = self.ends.input.recv(), if idle => {
                    if let Some(feed) = &mut self.feed {
                        feed.take(input.transpose().map_err(ExecError::Stdin)?);
                    }
                }
                () = sleep_until(next) => {}
            }
        }
    }

    /// Whether it has ended. An agent that is silent for a while is asked again: the guest may be paused,
    /// asleep or busy.
    async fn look(&mut self) -> Result<Option<Done>, ExecError> {
        if let Some(done) = self.over.take() {
            return Ok(Some(done));
        }
        // Without the files all the output comes in this answer.
        let within = if self.spool.is_some() { LOOK } else { ANSWER };
        let mut until = Instant::now() + SILENCE;
        if let Some((at, _)) = self.deadline {
            until = until.min(at + END);
        }
        loop {
            match shell::ended(self.inside, self.pid, within).await {
                Ok(done) => return Ok(done),
                Err(CallError::Silent { .. }) if Instant::now() < until => {}
                Err(CallError::Refused { .. }) => return Err(self.forgotten().await),
                Err(source @ CallError::Silent { .. }) => {
                    return Err(ExecError::Lost {
                        command: self.command.clone(),
                        pid: self.pid,
                        source,
                    });
                }
                Err(error) => return Err(error.into()),
            }
            // Who does not want to wait for it is heard.
            match timeout(AGAIN, self.ends.signals.recv()).await {
                Ok(Some(_)) => {
                    return Err(ExecError::Interrupted {
                        command: self.command.clone(),
                    });
                }
                Ok(None) => sleep(AGAIN).await,
                Err(_) => {}
            }
        }
    }

    /// The agent was started anew meanwhile. Whether the command outlived it is to be seen in the guest.
    async fn forgotten(&mut self) -> ExecError {
        let mut still = None;
        if let Some(spool) = &self.spool {
            let token = spool.token().to_owned();
            let done = script::run(self.inside, script::AFTERMATH, &[&token], SCRIPT).await;
            if let Ok(done) = done {
                let pid = String::from_utf8_lossy(&done.stdout).trim().to_owned();
                still = Some(Some(pid).filter(|pid| !pid.is_empty()));
            }
        }
        ExecError::Forgotten {
            command: self.command.clone(),
            still,
        }
    }

    /// Passes on what the command has printed since; whether there was anything. What goes wrong with that
    /// shows when the command's end is looked for.
    async fn pass_on(&mut self) -> Result<bool, ExecError> {
        let mut moved = false;
        for stream in [Stream::Out, Stream::Err] {
            let Some(spool) = &mut self.spool else {
                break;
            };
            match spool.read(self.inside, stream).await {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => {
                    moved = true;
                    self.print(stream, &bytes).await?;
                }
                Err(error @ CallError::Supervisor(_)) => return Err(error.into()),
                Err(error) => tracing::debug!(%error, "output cannot be read just now"),
            }
        }
        Ok(moved)
    }

    /// Hands output over. A reader that went away means for the command what it means for one on this host.
    async fn print(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), ExecError> {
        if self.deaf || bytes.is_empty() {
            return Ok(());
        }
        if !(self.ends.output)(stream, bytes).map_err(ExecError::Output)? {
            self.deaf = true;
            if self.ending.is_none() && !self.has_ended {
                self.tell_to_end(Signal::SIGPIPE).await?;
            }
        }
        Ok(())
    }

    /// Writes input that waits; whether there was any.
    async fn push(&mut self) -> Result<bool, ExecError> {
        let Some(feed) = self.feed.as_mut().filter(|feed| !feed.is_idle()) else {
            return Ok(false);
        };
        match feed.push(self.inside).await {
            Ok(true) => self.feed = None,
            Ok(false) => {}
            Err(error) if error.is_unheard() => return Ok(false),
            Err(source) => {
                // An agent that was started anew has forgotten the file as well as the command, and one that
                // has ended by now wants no more.
                if let Some(done) = self.look().await? {
                    self.feed = None;
                    self.over = Some(done);
                    return Ok(true);
                }
                return Err(ExecError::Input {
                    command: self.command.clone(),
                    source,
                });
            }
        }
        Ok(self.feed.as_ref().is_none_or(Feed::is_idle))
    }

    /// Does more so that a command ends that should have.
    async fn press(&mut self) -> Result<(), ExecError> {
        let now = Instant::now();
        if let Some((_, limit)) = self.deadline.filter(|(at, _)| now >= *at) {
            self.deadline = None;
            if self.spool.is_none() {
                return Err(self.goes_on(format!("did not end within {limit:.0?}")));
            }
            self.timed_out = Some(limit);
            self.tell_to_end(Signal::SIGTERM).await?;
        }
        match self.ending {
            Some((until, Signal::SIGKILL)) if now >= until => Err(ExecError::Stuck {
                command: self.command.clone(),
            }),
            Some((until, _)) if now >= until => self.tell_to_end(Signal::SIGKILL).await,
            _ => Ok(()),
        }
    }

    async fn tell_to_end(&mut self, signal: Signal) -> Result<(), ExecError> {
        self.ending = Some((Instant::now() + END, signal));
        self.send(signal).await
    }

    /// The user's signals go on to the command: he wanted to end that. It may take the first as it likes.
    async fn user_signal(&mut self, signal: Signal) -> Result<(), ExecError> {
        self.asked += 1;
        if self.spool.is_none() {
            return Err(self.goes_on("was interrupted".to_owned()));
        }
        if self.asked > 1 {
            return self.tell_to_end(Signal::SIGKILL).await;
        }
        self.send(signal).await
    }

    async fn send(&mut self, signal: Signal) -> Result<(), ExecError> {
        let Some(spool) = &self.spool else {
            return Ok(());
        };
        let token = spool.token().to_owned();
        let name = signal.as_str().trim_start_matches("SIG");
        let done = script::run(self.inside, script::SIGNAL, &[&token, name], SCRIPT).await;
        match done {
            Ok(_) => Ok(()),
            // It shows when the command's end is looked for.
            Err(CallError::Silent { .. } | CallError::Refused { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn goes_on(&self, why: String) -> ExecError {
        ExecError::GoesOn {
            command: self.command.clone(),
            why,
            pid: self.pid,
        }
    }

    /// The rest of the output, and the status.
    async fn ended(&mut self, done: Done) -> Result<u8, ExecError> {
        let command = self.command.clone();
        self.has_ended = true;
        let Some(spool) = &mut self.spool else {
            self.print(Stream::Out, &done.stdout).await?;
            self.print(Stream::Err, &done.stderr).await?;
            let status = done.status;
            return match done.truncated {
                true => Err(ExecError::Truncated { command, status }),
                false => Ok(status),
            };
        };
        let status = match Head::split(spool.token(), &done.stdout) {
            Some((Head::Given(status), out)) => {
                let out = out.get(spool.taken(Stream::Out)..).unwrap_or_default();
                let err = done.stderr.get(spool.taken(Stream::Err)..);
                self.print(Stream::Out, out).await?;
                self.print(Stream::Err, err.unwrap_or_default()).await?;
                self.close().await;
                status
            }
            Some((Head::Kept(status), _)) => {
                self.drain().await?;
                self.close().await;
                self.clear().await;
                status
            }
            Some((Head::NoPlace, _)) => return Err(ExecError::NoPlace { command }),
            Some((Head::NoCwd, _)) => {
                let cwd = self.cwd.clone();
                return Err(ExecError::NoCwd { cwd });
            }
            None => {
                let status = done.status;
                return Err(ExecError::ShellKilled { command, status });
            }
        };
        match self.timed_out {
            Some(limit) => Err(ExecError::TimedOut { command, limit }),
            None => Ok(status),
        }
    }

    /// Reads the files to their ends.
    async fn drain(&mut self) -> Result<(), ExecError> {
        let mut until = Instant::now() + SILENCE;
        for stream in [Stream::Out, Stream::Err] {
            loop {
                let Some(spool) = self.spool.as_mut().filter(|_| !self.deaf) else {
                    return Ok(());
                };
                match spool.read(self.inside, stream).await {
                    Ok(bytes) if bytes.is_empty() => break,
                    Ok(bytes) => {
                        until = Instant::now() + SILENCE;
                        self.print(stream, &bytes).await?;
                    }
                    Err(CallError::Silent { .. }) if Instant::now() < until => sleep(AGAIN).await,
                    Err(error) => return Err(error.into()),
                }
                if self.ends.signals.try_recv().is_ok() {
                    let command = self.command.clone();
                    return Err(ExecError::CutShort { command });
                }
            }
        }
        Ok(())
    }

    async fn close(&mut self) {
        if let Some(spool) = &mut self.spool {
            spool.close(self.inside).await;
        }
        if let Some(feed) = &mut self.feed {
            // The command has ended; a file that stays open costs the agent a number.
            let _ = feed.close(self.inside).await;
        }
    }

    async fn clear(&mut self) {
        let Some(spool) = &self.spool else {
            return;
        };
        let token = spool.token().to_owned();
        if let Err(error) = script::run(self.inside, script::CLEAR, &[&token], SCRIPT).await {
            tracing::warn!(%error, "the folder {token} stays in the guest");
        }
    }

    /// Ends what nobody will hear of any more, and removes its files, as far as that can be done.
    async fn give_up(&mut self, error: &ExecError) {
        let hopeless = matches!(
            error,
            ExecError::Call(CallError::Supervisor(_))
                | ExecError::Lost { .. }
                | ExecError::Interrupted { .. }
                | ExecError::Forgotten { .. }
                | ExecError::NoCwd { .. }
                | ExecError::NoPlace { .. }
                | ExecError::TimedOut { .. }
        );
        if hopeless || self.spool.is_none() {
            return;
        }
        if !self.has_ended {
            // What goes wrong now does not change what is told.
            let _ = self.send(Signal::SIGKILL).await;
            let until = Instant::now() + END;
            while matches!(shell::ended(self.inside, self.pid, LOOK).await, Ok(None))
                && Instant::now() < until
            {
                sleep(AGAIN).await;
            }
        }
        self.close().await;
        self.clear().await;
    }
}
