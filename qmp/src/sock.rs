//! Unix sockets: paths longer than a socket address holds, and file descriptors along with data.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use tokio::net::UnixStream;

/// The longest path that fits a socket address, without its terminating zero.
const MAX_PATH: usize = 107;
/// File descriptors taken with one read. The kernel's own limit is 253.
const MAX_FDS: usize = 16;

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

/// Sends once. The descriptors go with the first byte, so they must not be sent again after success.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<usize> {
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
#[cfg_attr(not(test), expect(dead_code, reason = "for the server"))]
pub(crate) fn recv(socket: impl AsFd, buf: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
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
