//! Whether a client is still there.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::UnixStream;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(500);

/// Returns once the client has closed its socket altogether. One that has only ended its sending side,
/// as a script does that pipes one request in, still wants its answer.
pub(crate) async fn hung_up(stream: &UnixStream) {
    loop {
        let mut fds = [PollFd::new(stream, PollFlags::empty())];
        let seen = poll(&mut fds, Some(&Timespec::default()));
        if seen.is_ok() && fds[0].revents().contains(PollFlags::HUP) {
            return;
        }
        tokio::time::sleep(EVERY).await;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use tokio::time::timeout;

    #[tokio::test]
    async fn half_a_hang_up_is_none() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let theirs = theirs.into_std().unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let seen = timeout(Duration::from_millis(600), hung_up(&ours)).await;
        assert!(seen.is_err());
        drop(theirs);
        timeout(Duration::from_secs(5), hung_up(&ours))
            .await
            .unwrap();
    }
}
