//! Unix sockets: paths longer than a socket address holds, and file descriptors along with data.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixStream as StdStream,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    buffer::spare_capacity,
    fs::{CWD, Mode, OFlags, openat},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::UnixStream,
};

/// The longest path that fits a socket address, without its terminating zero.
const MAX_PATH: usize = 107;
/// File descriptors taken with one read. The kernel's own limit is 253.
const MAX_FDS: usize = 16;
/// Bytes received at once.
const CHUNK: usize = 4 << 10;

/// Connects to a Unix socket whose path may be of any length.
///
/// A full backlog is waited for: drop the future, or wrap it in a timeout, to stop waiting.
///
/// # Errors
/// Whatever opening the directory or connecting says: no such file, connection refused, …
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let (_dir, path) = short_path(path)?;
    loop {
        match UnixStream::connect(&path).await {
            // What a Unix socket says when its backlog is full.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            other => return other,
        }
    }
}

/// The same socket by a path that fits an address; the descriptor must be kept while it is used.
fn short_path(path: &Path) -> io::Result<(Option<OwnedFd>, PathBuf)> {
    if path.as_os_str().len() <= MAX_PATH {
        return Ok((None, path.to_owned()));
    }
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = openat(
        CWD,
        dir,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
    Ok((Some(dir), short))
}

/// A connected socket that is waited for only in the direction that matters now.
///
/// A Unix socket reports that it can be written to each time its peer has read something. Waiting
/// for both directions, as [`UnixStream`] does, means to be woken twice as often as needed.
pub(crate) struct Socket {
    inner: AsyncFd<StdStream>,
}

impl Socket {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        let inner = watch(stream.into_std()?, Interest::READABLE)?;
        Ok(Self { inner })
    }

    /// Sends what the socket takes now. The descriptors go with the first byte.
    pub(crate) fn try_send(&self, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<usize> {
        send(self.inner.get_ref(), bytes, fds)
    }

    /// Waits until the socket may take more.
    pub(crate) async fn writable(&self) {
        let twin = self.inner.get_ref().try_clone();
        match twin.and_then(|twin| watch(twin, Interest::WRITABLE)) {
            // An error shows when something is written.
            Ok(twin) => drop(twin.writable().await),
            // Out of descriptors: there may be some again later.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }

    /// Receives bytes and descriptors, up to [`CHUNK`] and [`MAX_FDS`]; no bytes are the end of the
    /// stream. The buffer lives for the call of `take` only, not as long as the wait.
    pub(crate) async fn recv<T>(
        &self,
        mut take: impl FnMut(&[u8], Vec<OwnedFd>) -> T,
    ) -> io::Result<T> {
        self.read(|socket| {
            let mut buf = [0; CHUNK];
            let (n, fds) = recv(socket, &mut buf)?;
            // Descriptors make a read short, too.
            let short = n < CHUNK && fds.is_empty();
            Ok((short && n > 0, take(&buf[..n], fds)))
        })
        .await
    }

    /// Appends to the spare room of `buf`; 0 is the end of the stream.
    pub(crate) async fn append(&self, buf: &mut Vec<u8>) -> io::Result<usize> {
        self.read(|socket| {
            let room = buf.capacity() - buf.len();
            let (n, _) = rustix::net::recv(socket, spare_capacity(buf), RecvFlags::DONTWAIT)?;
            Ok((n > 0 && n < room, n))
        })
        .await
    }

    /// `once` tells whether it has read all there was, which saves asking again.
    async fn read<T>(
        &self,
        mut once: impl FnMut(&StdStream) -> io::Result<(bool, T)>,
    ) -> io::Result<T> {
        loop {
            tokio::task::consume_budget().await;
            let mut ready = self.inner.readable().await?;
            match once(self.inner.get_ref()) {
                Ok((all, value)) => {
                    if all {
                        ready.clear_ready();
                    }
                    return Ok(value);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

#[expect(
    deprecated,
    reason = "its replacement is unsafe, against types whose descriptor changes; a std socket's does not"
)]
fn watch(socket: StdStream, interest: Interest) -> io::Result<AsyncFd<StdStream>> {
    AsyncFd::with_interest(socket, interest)
}

/// Sends once. The descriptors go with the first byte, so they must not be sent again after success.
fn send(socket: impl AsFd, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<usize> {
    let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = Vec::new();
    if !borrowed.is_empty() {
        space.resize(
            SendAncillaryMessage::ScmRights(&borrowed).size(),
            MaybeUninit::uninit(),
        );
    }
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&borrowed));
    }
    Ok(sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
    )?)
}

/// Receives once; 0 is the end of the stream. Descriptors beyond [`MAX_FDS`] are closed by the kernel.
fn recv(socket: impl AsFd, buf: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let got = recvmsg(socket, &mut [IoSliceMut::new(buf)], &mut control, flags)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    Ok((got.bytes, fds))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connects_by_a_path_longer_than_an_address() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("d".repeat(120));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("s");
        let (_fd, short) = short_path(&path).unwrap();
        let _listener = tokio::net::UnixListener::bind(short).unwrap();
        connect(&path).await.unwrap();
        let missing = connect(&dir.join("missing")).await.unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn descriptors_travel_with_the_bytes() {
        let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        let (r, w) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(send(&a, b"hello", &[w.into()]).unwrap(), 5);
        let mut buf = [0; 16];
        let (n, fds) = recv(&b, &mut buf).unwrap();
        assert_eq!((&buf[..n], fds.len()), (&b"hello"[..], 1));
        rustix::io::write(&fds[0], b"x").unwrap();
        let mut one = [0; 1];
        rustix::io::read(&r, &mut one).unwrap();
        assert_eq!(&one, b"x");
    }
}
