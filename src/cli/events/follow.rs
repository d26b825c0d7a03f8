//! One guest, from its supervisor's words where it has one, and by looking where it has none.

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::super::guests::{self, Life, Seen};
use super::super::output;
use super::line::Line;
use crate::dirs::Dirs;
use crate::guest::{Ended, RunDir, state};
use crate::ids::GuestName;

/// What is known of the guest.
struct Known {
    name: String,
    tell: mpsc::Sender<Line>,
    /// The state that was told last.
    state: String,
    /// Whether its supervisor has no `watch`.
    old: bool,
}

/// Tells what happens to that guest until there is nothing left of it.
pub(super) async fn one(
    dirs: Dirs,
    name: GuestName,
    tell: mpsc::Sender<Line>,
    mut wake: watch::Receiver<u64>,
) {
    let mut known = Known {
        name: name.to_string(),
        tell,
        state: String::new(),
        old: false,
    };
    loop {
        // What happens from here on is a reason to look again.
        wake.mark_unchanged();
        let on = match guests::look(&dirs, name.as_str()) {
            Ok(None) => known.gone(&RunDir::new(&dirs, &name)).await,
            Ok(Some(seen)) => known.there(&seen).await,
            // Another user's by now, or damaged: the next look may see more.
            Err(_) => true,
        };
        if !on || wake.changed().await.is_err() {
            return;
        }
    }
}

impl Known {
    /// Whether anybody listens still.
    async fn say(&mut self, line: Line) -> bool {
        if let Some(state) = line.state() {
            self.state = state.to_owned();
        }
        self.tell.send(line).await.is_ok()
    }

    /// A supervisor does not wait long for those who listen; what it wrote down tells the same.
    async fn gone(&mut self, run: &RunDir) -> bool {
        if !matches!(self.state.as_str(), "" | "stopped") {
            let ended = state::read::<Ended>(&run.last()).ok().flatten();
            let told = ended.and_then(|ended| {
                let happened = json!({ "time": ended.at, "ended": ended, "state": "stopped" });
                Line::told(&self.name, &happened)
            });
            let unknown = || Line::seen(&self.name, "stopped", "how it ended is not known");
            let line = told.unwrap_or_else(unknown);
            self.say(line).await;
        }
        false
    }

    async fn there(&mut self, seen: &Seen) -> bool {
        if seen.life == Life::Supervised && !self.old && self.listen(seen).await {
            return !self.tell.is_closed();
        }
        // A start makes its directory before it takes its locks.
        if seen.life == Life::Gone && seen.state.is_none() && self.state.is_empty() {
            return true;
        }
        let state = seen.state_name();
        if state == self.state {
            return true;
        }
        let message = match seen.life {
            Life::Supervised => "",
            Life::Unsupervised => "its supervisor is gone, QEMU runs: see `mvm recover`",
            Life::Gone => "its supervisor and QEMU are gone: see `mvm recover`",
        };
        self.say(Line::seen(&self.name, state, message)).await
    }

    /// Listens to the supervisor as long as it tells something. Whether it did.
    async fn listen(&mut self, seen: &Seen) -> bool {
        let Ok(mut control) = seen.control().await else {
            return false;
        };
        let mut told = false;
        loop {
            match control.happened(!told).await {
                Ok(Some(happened)) => {
                    told = true;
                    if !self.tell_of(&happened).await {
                        return true;
                    }
                }
                Ok(None) => return told,
                Err(report) if !told => {
                    output::note(&format!("{}: {}", self.name, report.chain.join(": ")));
                    self.old = true;
                    return false;
                }
                Err(_) => return true,
            }
        }
    }

    async fn tell_of(&mut self, happened: &Value) -> bool {
        match Line::told(&self.name, happened) {
            Some(line) => self.say(line).await,
            None => true,
        }
    }
}
