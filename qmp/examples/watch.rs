//! Prints a QEMU's status, then its events until it ends:
//!
//! ```text
//! qemu-system-x86_64 -M none -display none -qmp unix:/tmp/monitor.sock,server=on,wait=off &
//! cargo run -p mvm-qmp --example watch /tmp/monitor.sock
//! ```

use std::{error::Error, io::Write, path::PathBuf, time::Duration};

use mvm_qmp::{Qmp, qapi};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let Some(monitor) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return Err("usage: watch MONITOR".into());
    };
    let mut out = std::io::stdout();
    let (qmp, mut events) = Qmp::connect(&monitor, Duration::from_secs(5)).await?;
    let (major, minor, micro) = qmp.greeting().version;
    // Typed where the schema is known to hold, JSON where it may be newer or older.
    let status = qmp.execute(&qapi::qmp::query_status {}).await?;
    let name = qmp.call("query-name", None).await?;
    writeln!(
        out,
        "QEMU {major}.{minor}.{micro}, running: {}, name: {name}",
        status.running
    )?;
    while let Some(event) = events.next().await {
        if event.is::<qapi::qmp::SHUTDOWN>() {
            let guest = event
                .parse::<qapi::qmp::SHUTDOWN>()
                .map(|shutdown| shutdown.guest);
            writeln!(out, "shut down, by the guest: {guest:?}")?;
        } else {
            writeln!(out, "{} {}", event.name, event.data)?;
        }
    }
    Ok(())
}
