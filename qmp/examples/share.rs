//! Shares a running QEMU's monitor among any number of clients:
//!
//! ```text
//! qemu-system-x86_64 -M none -display none -qmp unix:/tmp/monitor.sock,server=on,wait=off &
//! cargo run -p mvm-qmp --example share /tmp/monitor.sock /tmp/shared.sock &
//! socat - UNIX:/tmp/shared.sock    # as often as you like
//! ```

use std::{error::Error, path::PathBuf, time::Duration};

use mvm_qmp::{ClientCommand, Limits, Qmp, Server, Verdict};
use tokio::net::UnixListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut paths = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(monitor), Some(shared)) = (paths.next(), paths.next()) else {
        return Err("usage: share MONITOR SHARED".into());
    };
    let (qmp, mut events) = Qmp::connect(&monitor, Duration::from_secs(5)).await?;
    let watch = |command: &ClientCommand<'_>| {
        if command.name == "quit" {
            eprintln!("client {} ends QEMU", command.client);
        }
        Verdict::Forward
    };
    let server = Server::with(&qmp, Limits::default(), watch);
    let listener = UnixListener::bind(&shared)?;
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            eprintln!("{} {}", event.name, event.data);
        }
    });
    server.serve(listener).await;
    std::fs::remove_file(&shared)?;
    Ok(())
}
