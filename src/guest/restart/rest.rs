//! The time between an end and the new start: the guest is seen, can be asked, and can be told to stay as it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::super::control::parking::Parking;
use super::super::control::{self, Shared, View};
use super::super::error::StartError;
use super::super::farewell::Farewell;
use super::super::feed::Feed;
use super::super::hotplug::Hotplug;
use super::super::lifecycle::Input;
use super::super::signals::Signals;
use super::super::state::{self, Condition, Ended, GuestState};
use super::super::{RunDir, notify};
use super::Again;
use crate::dirs::Dirs;
use crate::ops::{OpsError, socket};

/// How the time came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rested {
    /// It is over: the guest is to be started.
    Over,
    /// A user, or a signal, wants the guest to stay as it is.
    BrokenOff,
}

/// Waits until the guest is to be started anew. `before` is what was said of it last.
///
/// # Errors
/// Its directory cannot be used.
pub(crate) async fn rest(
    dirs: &Dirs,
    run: &RunDir,
    before: GuestState,
    ended: &Ended,
    again: &Again,
    signals: &mut Signals,
) -> Result<Rested, StartError> {
    let at = Instant::now() + again.after;
    let state = resting(run, before, ended, again);
    tracing::warn!("{}", state.message.as_deref().unwrap_or_default());
    notify::status(state.state.as_str());
    state::write(&run.state(), &state).map_err(StartError::io("write", &run.state()))?;
    let listener = UnixListener::from_std(socket::listen(&run.control())?.into())
        .map_err(OpsError::io("serve", &run.control()))?;

    let (inputs, mut incoming) = mpsc::channel(8);
    let links = Arc::default();
    let requests = Arc::new(Semaphore::new(control::CLIENTS as usize));
    let feed = Feed::default();
    let view = watch::Sender::new(View {
        state,
        stop_failures: 0,
        ended: None,
    });
    let hotplug = Hotplug::new(dirs, run, &links);
    let shared = Shared {
        parking: Arc::new(Parking::new(run.name().to_string(), &hotplug, &links)),
        hotplug,
        view: view.subscribe(),
        inputs,
        links,
        thaw: Arc::default(),
        stop_timeout: again.after,
        sleeper: Arc::default(),
        transition: Arc::default(),
        requests: Arc::clone(&requests),
        feed: feed.clone(),
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(control::serve(listener, shared));
    let rested = loop {
        tokio::select! {
            input = incoming.recv() => match input {
                Some(Input::Stop { .. } | Input::Kill) | None => break Rested::BrokenOff,
                Some(_) => {}
            },
            () = signals.next() => break Rested::BrokenOff,
            () = sleep_until(at) => break Rested::Over,
        }
    };
    if rested == Rested::BrokenOff {
        tracing::info!("{} is not started anew", run.name());
        let farewell = Farewell {
            view,
            feed,
            requests,
            tasks,
            consoles: JoinSet::new(),
        };
        farewell.say(ended, Condition::Stopped).await;
        return Ok(rested);
    }
    view.send_modify(|view| {
        view.state.state = Condition::Starting;
        view.state.since = state::now();
        view.state.next_start = None;
        view.state.message = None;
    });
    state::write(&run.state(), &view.borrow().state)
        .map_err(StartError::io("write", &run.state()))?;
    // Who waits for something goes on waiting at the next supervision.
    feed.end();
    requests.close();
    drop(view);
    tasks.shutdown().await;
    Ok(rested)
}

fn resting(run: &RunDir, before: GuestState, ended: &Ended, again: &Again) -> GuestState {
    let message = format!(
        "it ended ({}) and is started anew after {} s, number {} of at most {} in a row",
        ended.reason.as_str(),
        again.after.as_secs(),
        again.number,
        again.limit
    );
    let now = state::now();
    GuestState {
        state: Condition::Restarting,
        since: now,
        displays: BTreeMap::new(),
        next_start: Some(now + again.after.as_secs()),
        pid: None,
        qemu_start_ticks: None,
        agent: false,
        sockets: BTreeMap::from([("control".to_owned(), run.control())]),
        message: Some(message),
        wakeups: 0,
        hibernating: false,
        held: false,
        resumed: false,
        ..before
    }
}
