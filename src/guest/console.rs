//! A console for any number of clients. QEMU's end has one client, this hub, which always reads: no
//! client can stall the guest. What was shown is kept in one ring for all; a client that lags behind
//! the ring misses what fell out of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::hangup::hung_up;

/// What is kept for clients that lag.
const RING: usize = 32 << 10;
/// What a client sees of the time before it came.
const SCROLL_BACK: usize = 8 << 10;
/// A client that takes nothing for so long is dropped.
const PATIENCE: Duration = Duration::from_secs(60);
/// For clients to take the rest once QEMU is gone.
const REST: Duration = Duration::from_millis(500);
/// One read or write.
const CHUNK: usize = 2 << 10;
/// Clients at a time.
const CLIENTS: usize = 32;

/// What was shown, addressed by its distance from the beginning.
#[derive(Default)]
struct Ring {
    bytes: VecDeque<u8>,
    total: u64,
}

impl Ring {
    fn push(&mut self, new: &[u8]) {
        let excess = (self.bytes.len() + new.len()).saturating_sub(RING);
        self.bytes.drain(..excess.min(self.bytes.len()));
        self.bytes.extend(new);
        self.total += new.len() as u64;
    }

    fn begin(&self) -> u64 {
        self.total - self.bytes.len() as u64
    }

    /// Copies what follows `at`, and says where that ends.
    fn read(&self, at: u64, into: &mut [u8]) -> (usize, u64) {
        let at = at.max(self.begin());
        // The difference is at most `RING`.
        let skip = usize::try_from(at - self.begin()).unwrap_or(usize::MAX);
        let mut count = 0;
        for (to, from) in into.iter_mut().zip(self.bytes.iter().skip(skip)) {
            *to = *from;
            count += 1;
        }
        (count, at + count as u64)
    }
}

/// What clients read from.
#[derive(Clone)]
struct Shown {
    ring: Arc<Mutex<Ring>>,
    total: watch::Receiver<u64>,
}

/// What QEMU's output goes to; with it the clients learn of the end.
struct Show {
    ring: Arc<Mutex<Ring>>,
    total: watch::Sender<u64>,
}

impl Show {
    fn push(&self, new: &[u8]) {
        let total = {
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            ring.push(new);
            ring.total
        };
        self.total.send_replace(total);
    }
}

impl Shown {
    fn read(&self, at: u64, into: &mut [u8]) -> (usize, u64) {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.read(at, into)
    }
}

/// Serves a console until QEMU closes it and the clients have taken the rest. `before` is what an
/// earlier supervisor's clients saw.
pub(crate) async fn serve(qemu: UnixStream, listener: UnixListener, before: Vec<u8>) {
    let show = Show {
        ring: Arc::default(),
        total: watch::Sender::new(0),
    };
    show.push(&before);
    drop(before);
    let shown = Shown {
        ring: Arc::clone(&show.ring),
        total: show.total.subscribe(),
    };
    let (from_qemu, to_qemu) = qemu.into_split();
    let (typed, typing) = mpsc::channel::<Vec<u8>>(4);
    let mut clients = JoinSet::new();
    tokio::select! {
        () = read_qemu(from_qemu, show) => {}
        () = write_qemu(to_qemu, typing) => {}
        () = accept(listener, &mut clients, shown, typed) => {}
    }
    let rest = async { while clients.join_next().await.is_some() {} };
    // Who does not take it now is hung up on.
    let _ = timeout(REST, rest).await;
}

async fn read_qemu(mut qemu: OwnedReadHalf, show: Show) {
    let mut chunk = vec![0; CHUNK];
    loop {
        match qemu.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(count) => show.push(&chunk[..count]),
        }
    }
}

/// A guest that reads nothing holds this up, and with it those who type; nobody else.
async fn write_qemu(mut qemu: OwnedWriteHalf, mut typing: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = typing.recv().await {
        if qemu.write_all(&bytes).await.is_err() {
            // The reading side sees the end and what came before it.
            break;
        }
    }
    std::future::pending::<()>().await;
}

async fn accept(
    listener: UnixListener,
    clients: &mut JoinSet<()>,
    shown: Shown,
    typed: mpsc::Sender<Vec<u8>>,
) {
    loop {
        tokio::select! {
            Some(_) = clients.join_next() => {}
            accepted = listener.accept(), if clients.len() < CLIENTS => match accepted {
                Ok((stream, _)) => {
                    clients.spawn(client(stream, shown.clone(), typed.clone()));
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a console client");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

async fn client(stream: UnixStream, mut shown: Shown, typed: mpsc::Sender<Vec<u8>>) {
    let (mut reader, mut writer) = stream.into_split();
    let show = async {
        let mut at = shown.total.borrow().saturating_sub(SCROLL_BACK as u64);
        let mut chunk = vec![0; CHUNK];
        loop {
            shown.total.mark_unchanged();
            let (count, next) = shown.read(at, &mut chunk);
            if count == 0 {
                if shown.total.changed().await.is_err() {
                    return;
                }
                continue;
            }
            match timeout(PATIENCE, writer.write_all(&chunk[..count])).await {
                Ok(Ok(())) => at = next,
                Ok(Err(_)) | Err(_) => return,
            }
        }
    };
    let take = async {
        let mut chunk = vec![0; CHUNK];
        loop {
            match reader.read(&mut chunk).await {
                // One that only sends its end may still want to look on, as `socat -u` does.
                Ok(0) => return hung_up(reader.as_ref()).await,
                Err(_) => return,
                Ok(count) => {
                    if typed.send(chunk[..count].to_vec()).await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    tokio::select! {
        () = show => {}
        () = take => {}
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    async fn hub(before: &[u8]) -> (UnixStream, std::path::PathBuf, tempfile::TempDir) {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("c");
        let listener = UnixListener::bind(&path).unwrap();
        let (qemu, ours) = UnixStream::pair().unwrap();
        tokio::spawn(serve(ours, listener, before.to_vec()));
        (qemu, path, top)
    }

    async fn expect(stream: &mut UnixStream, text: &str) {
        let mut got = vec![0; text.len()];
        timeout(Duration::from_secs(5), stream.read_exact(&mut got))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&got), text);
    }

    #[tokio::test]
    async fn clients_see_what_was_and_what_comes_and_can_type() {
        let (mut qemu, path, _top) = hub(b"old ").await;
        let mut one = UnixStream::connect(&path).await.unwrap();
        expect(&mut one, "old ").await;
        qemu.write_all(b"login: ").await.unwrap();
        expect(&mut one, "login: ").await;
        let mut two = UnixStream::connect(&path).await.unwrap();
        expect(&mut two, "old login: ").await;
        two.write_all(b"root\n").await.unwrap();
        expect(&mut qemu, "root\n").await;
        drop(qemu);
        let mut rest = Vec::new();
        timeout(Duration::from_secs(5), one.read_to_end(&mut rest))
            .await
            .unwrap()
            .unwrap();
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_stalls_nobody() {
        let (mut qemu, path, _top) = hub(b"").await;
        let _silent = UnixStream::connect(&path).await.unwrap();
        let block = vec![b'x'; 1 << 20];
        for _ in 0..4 {
            timeout(Duration::from_secs(10), qemu.write_all(&block))
                .await
                .unwrap()
                .unwrap();
        }
        qemu.write_all(b"the end").await.unwrap();
        let mut late = UnixStream::connect(&path).await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"the end") {
            let mut chunk = [0; 4096];
            let n = timeout(Duration::from_secs(5), late.read(&mut chunk))
                .await
                .unwrap()
                .unwrap();
            assert!(n > 0);
            seen.extend_from_slice(&chunk[..n]);
        }
        assert!(seen.len() <= RING);
    }

    #[test]
    fn the_ring_forgets_its_oldest() {
        let mut ring = Ring::default();
        ring.push(&vec![b'a'; RING + 5]);
        ring.push(b"tail");
        let mut out = [0; 8];
        assert_eq!(ring.read(ring.total - 4, &mut out).0, 4);
        assert_eq!(&out[..4], b"tail");
        assert_eq!(ring.read(0, &mut out), (8, ring.begin() + 8));
        assert_eq!(ring.read(ring.total, &mut out), (0, ring.total));
    }
}
