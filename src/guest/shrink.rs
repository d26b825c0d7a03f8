//! A supervisor that waits for months needs little memory.

use std::time::Duration;

use crate::ops::memory;

/// From the guest's start to when the supervisor does nothing but wait.
const SETTLED: Duration = Duration::from_millis(500);
/// Between two looks at the supervisor's own memory.
const LOOK: Duration = Duration::from_secs(10);
/// How much more of it than before is worth giving back.
const GROWTH: usize = 512 << 10;

/// Gives back what the start, and later a burst of requests, needed and waiting does not.
pub(crate) async fn shrink() {
    let mut pause = SETTLED;
    let mut kept = 0;
    loop {
        tokio::time::sleep(pause).await;
        pause = LOOK;
        if memory::resident().is_ok_and(|now| now > kept + GROWTH) {
            let dropped = memory::drop_code();
            tracing::trace!(?dropped, "shrunk");
            kept = memory::resident().unwrap_or(usize::MAX - GROWTH);
        }
    }
}
