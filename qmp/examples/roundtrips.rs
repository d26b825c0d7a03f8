//! Measures `query-status` round trips, one after the other, on two QMP sockets in turn: QEMU's own
//! monitor, and one that shares such a monitor (see `share.rs`).
//!
//! ```text
//! roundtrips DIRECT SHARED [BATCHES]
//! ```
//!
//! The two take turns in short batches, so that whatever else the machine does meets both alike.
//! QEMU reads the next command sooner once out-of-band execution is enabled, so the direct socket
//! is measured with `oob` if the environment has `OOB=1`, and as most clients use it otherwise.

use std::{
    error::Error,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

const BATCH: u32 = 500;

struct Socket {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    line: String,
}

impl Socket {
    fn open(path: &str, oob: bool) -> std::io::Result<Self> {
        let writer = UnixStream::connect(path)?;
        let reader = BufReader::new(writer.try_clone()?);
        let mut socket = Self {
            reader,
            writer,
            line: String::new(),
        };
        socket.reader.read_line(&mut socket.line)?;
        let enable = if oob { "\"oob\"" } else { "" };
        let request = format!(
            "{{\"execute\":\"qmp_capabilities\",\"arguments\":{{\"enable\":[{enable}]}}}}\n"
        );
        socket.call(&request)?;
        Ok(socket)
    }

    fn call(&mut self, request: &str) -> std::io::Result<()> {
        self.writer.write_all(request.as_bytes())?;
        loop {
            self.line.clear();
            self.reader.read_line(&mut self.line)?;
            if self.line.starts_with("{\"return\"") {
                return Ok(());
            }
        }
    }

    fn batch(&mut self) -> std::io::Result<Duration> {
        let start = Instant::now();
        for _ in 0..BATCH {
            self.call("{\"execute\":\"query-status\"}\n")?;
        }
        Ok(start.elapsed())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [direct, shared, rest @ ..] = &args[..] else {
        return Err("usage: roundtrips DIRECT SHARED [BATCHES]".into());
    };
    let batches: usize = rest.first().map_or(Ok(40), |n| n.parse())?;
    let oob = std::env::var_os("OOB").is_some();
    let mut sockets = [Socket::open(direct, oob)?, Socket::open(shared, false)?];
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..batches.max(1) {
        for (socket, times) in sockets.iter_mut().zip(&mut times) {
            times.push(socket.batch()?);
        }
    }
    let rates = times.map(|mut times| {
        times.sort();
        f64::from(BATCH) / times[times.len() / 2].as_secs_f64()
    });
    let mut out = std::io::stdout();
    writeln!(
        out,
        "direct {:8.0} round trips a second (median of {batches} batches of {BATCH})",
        rates[0]
    )?;
    writeln!(out, "shared {:8.0} round trips a second", rates[1])?;
    writeln!(out, "ratio  {:7.1} %", 100.0 * rates[1] / rates[0])?;
    Ok(())
}
