//! Standard input, read while other things go on.

use std::io::{self, Read as _};
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{Instant, timeout_at};

use super::Failure;
use crate::error::ExitCode;

/// One piece.
const PIECE: usize = 64 << 10;
/// What is read before anything is done with it: it is small if its end comes soon.
const FIRST: usize = 192 << 10;
/// How long its end is waited for.
const SOON: Duration = Duration::from_millis(50);

/// Standard input's pieces, until its end. A blocking read cannot be called back: the thread ends with the
/// process, or when nobody takes what it reads.
pub(super) fn pieces() -> Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = channel(4);
    let unread = sender.clone();
    let read = move || {
        let mut piece = vec![0; PIECE];
        loop {
            match io::stdin().lock().read(&mut piece) {
                Ok(0) => return,
                Ok(length) => {
                    if sender.blocking_send(Ok(piece[..length].to_vec())).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Where nobody takes it, nobody minds.
                    let _ = sender.blocking_send(Err(error));
                    return;
                }
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("stdin".to_owned()).spawn(read) {
        let _ = unread.try_send(Err(error));
    }
    // Its end is the end of the thread.
    drop(unread);
    receiver
}

/// What is there at once, and whether that is all.
pub(super) async fn first(
    pieces: &mut Receiver<io::Result<Vec<u8>>>,
) -> io::Result<(Vec<u8>, bool)> {
    let until = Instant::now() + SOON;
    let mut all = Vec::new();
    while all.len() < FIRST {
        match timeout_at(until, pieces.recv()).await {
            Ok(Some(piece)) => all.extend_from_slice(&piece?),
            Ok(None) => return Ok((all, true)),
            Err(_) => break,
        }
    }
    Ok((all, false))
}

/// Standard input that cannot be read.
pub(super) fn failed(error: &io::Error) -> Failure {
    Failure::message(
        ExitCode::Failed,
        format!("cannot read standard input: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_small_input_is_known_as_a_whole() {
        let (sender, mut pieces) = channel(4);
        sender.send(Ok(b"ab".to_vec())).await.expect("room");
        sender.send(Ok(b"c".to_vec())).await.expect("room");
        let got = first(&mut pieces).await.expect("bytes");
        assert_eq!(got, (b"abc".to_vec(), false));
        drop(sender);
        let got = first(&mut pieces).await.expect("its end");
        assert_eq!(got, (Vec::new(), true));
    }
}
