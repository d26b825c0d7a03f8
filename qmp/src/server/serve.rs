//! A client's task: reads what the client says, writes what it was too slow for before.

use std::{collections::VecDeque, future::pending, os::fd::OwnedFd, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    Limits,
    client::Client,
    framer::{Frame, Framer},
};

/// How long a client may take to read its last words once QEMU is gone.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Descriptors kept for commands that are still to come.
const MAX_FDS: usize = 16;

/// What a client has sent and no command has used yet.
#[derive(Default)]
struct Input {
    framer: Framer,
    fds: VecDeque<OwnedFd>,
}

pub(super) async fn serve(client: &Arc<Client>, limits: &Limits) {
    let mut input = Input::default();
    // Since when the client has taken nothing, though there is something.
    let mut stuck: Option<(u64, bool, Instant)> = None;
    client.greet();
    loop {
        tokio::task::consume_budget().await;
        let wants = client.wants();
        if wants.over {
            return;
        }
        match stuck {
            Some((sent, ending, _))
                if wants.write && sent == wants.sent && ending == wants.ending => {}
            _ => {
                stuck = wants
                    .write
                    .then(|| (wants.sent, wants.ending, Instant::now()));
            }
        }
        let patience = if wants.ending {
            LAST_WORDS
        } else {
            limits.stalled
        };
        let stalled = async {
            match stuck {
                Some((_, _, since)) => sleep_until(since + patience).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = client.changed.notified() => {}
            () = client.socket.writable(), if wants.write => client.flush(),
            read = read(client, &mut input, limits), if wants.read => {
                if !read {
                    return;
                }
            }
            () = stalled => {
                tracing::warn!(client = client.number, "a QMP client has not read for {patience:?}: hung up on it");
                return;
            }
        }
    }
}

/// Reads once and does what it can with it; whether to go on.
async fn read(client: &Arc<Client>, input: &mut Input, limits: &Limits) -> bool {
    let received = client.socket.recv(|bytes, fds| {
        input.framer.push(bytes);
        // As at QEMU, a command gets the first of those that were sent together.
        input.fds.extend(fds.into_iter().next());
        !bytes.is_empty()
    });
    match received.await {
        Ok(true) => {}
        Ok(false) => {
            client.end_of_input();
            return true;
        }
        Err(_) => return false,
    }
    if input.fds.len() > MAX_FDS {
        input.fds.pop_front();
    }
    while let Some(frame) = input.framer.next() {
        match frame {
            Frame::Message(text) => client.message(&text, || input.fds.pop_front()),
            Frame::Junk => client.junk(),
        }
    }
    let length = input.framer.pending();
    if length > limits.request {
        tracing::warn!(
            client = client.number,
            length,
            "a QMP client's request is too long: hung up on it"
        );
        return false;
    }
    true
}
