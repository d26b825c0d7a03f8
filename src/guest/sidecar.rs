//! The programs beside QEMU while the guest runs: their end is told.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::process::Process;
use crate::ops::process::how;
use crate::ops::sidecar::{Reaped, last_words, processes, reap};
use crate::sidecar::Sidecar;

/// For QEMU's own end to be seen, where the program's may follow from it: they end when it closes its connection.
const AFTER_QEMU: Duration = Duration::from_secs(5);
/// The same where it was killed, or failed.
const BY_ITSELF: Duration = Duration::from_millis(300);

/// Waits for the program's end, whoever started it, and tells it in words. Dropped with QEMU's end, after which
/// nobody misses it.
pub(crate) async fn watch(sidecar: Sidecar, tell: mpsc::Sender<String>) {
    let pid = processes(&sidecar.lock).first().copied();
    let mut status = None;
    if let Some(pid) = pid {
        // One that is gone already has ended too.
        if let Ok(mut process) = Process::adopt(pid) {
            process.ended().await;
        }
        if let Reaped::Ended(ended) = reap(pid) {
            status = Some(ended);
        }
    }
    let failed = status.is_some_and(|status| !status.success());
    sleep(if failed { BY_ITSELF } else { AFTER_QEMU }).await;
    let how = status.map_or_else(String::new, |status| format!(" ({})", how(status)));
    let said =
        last_words(&sidecar.log).map_or_else(String::new, |said| format!("; it said: {said}"));
    let text = format!(
        "{} has ended{how}: {}{said}",
        sidecar.program_name(),
        sidecar.loss
    );
    // A supervisor that has ended needs no word.
    let _ = tell.send(text).await;
}
