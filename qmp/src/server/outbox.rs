//! Bytes on their way to one client.

use std::{collections::VecDeque, io};

use crate::sock::Socket;

/// What the client's socket has not taken yet.
#[derive(Default)]
pub(super) struct Outbox {
    chunks: VecDeque<Vec<u8>>,
    /// Bytes of the first chunk that are gone.
    done: usize,
    bytes: usize,
    /// All bytes so far that the socket took.
    sent: u64,
}

impl Outbox {
    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Grows as the client reads.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Sends what the socket takes at once and keeps the rest.
    ///
    /// # Errors
    /// The client has hung up.
    pub(super) fn push(&mut self, socket: &Socket, mut bytes: &[u8]) -> io::Result<()> {
        while self.chunks.is_empty() && !bytes.is_empty() {
            match write(socket, bytes)? {
                0 => break,
                n => {
                    self.sent += n as u64;
                    bytes = &bytes[n..];
                }
            }
        }
        if !bytes.is_empty() {
            self.bytes += bytes.len();
            self.chunks.push_back(bytes.to_vec());
        }
        Ok(())
    }

    /// Sends what the socket takes now.
    ///
    /// # Errors
    /// The client has hung up.
    pub(super) fn flush(&mut self, socket: &Socket) -> io::Result<()> {
        while let Some(chunk) = self.chunks.front() {
            let n = write(socket, &chunk[self.done..])?;
            self.done += n;
            self.bytes -= n;
            self.sent += n as u64;
            if self.done < chunk.len() {
                return Ok(());
            }
            self.done = 0;
            self.chunks.pop_front();
        }
        // Nothing is left: neither is the memory it took.
        self.chunks = VecDeque::new();
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        self.chunks = VecDeque::new();
        self.bytes = 0;
        self.done = 0;
    }
}

/// How much the socket took; 0 where it is full.
fn write(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    match socket.try_send(bytes, &[]) {
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            Ok(0)
        }
        other => other,
    }
}
