//! Commands in the host. The script lies in a folder that both sides see; a virtio-serial port tells when
//! to run it and how it ended.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    /// Its exit status; 137 where it was ended because its time was over.
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "exit {}\nstdout:\n{}\nstderr:\n{}",
            self.status, self.stdout, self.stderr
        )
    }
}

type Waiting = Arc<Mutex<BTreeMap<u32, Sender<i32>>>>;

/// The way to the host's agent.
pub(crate) struct Agent {
    port: Mutex<UnixStream>,
    folder: PathBuf,
    count: AtomicU32,
    waiting: Waiting,
    ready: Mutex<Receiver<()>>,
}

impl Agent {
    /// Connects to the port's socket, which QEMU makes soon after its start.
    pub(crate) fn connect(socket: &Path, folder: &Path) -> std::io::Result<Self> {
        let port = UnixStream::connect(socket)?;
        let reader = BufReader::new(port.try_clone()?);
        let waiting = Waiting::default();
        let (tell, ready) = channel();
        let answers = Arc::clone(&waiting);
        // Ends with QEMU, which closes the socket.
        std::thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                if line == "ready" {
                    // Nobody waits a second time.
                    let _ = tell.send(());
                } else if let Some((number, status)) = line.split_once(' ') {
                    let parsed = number.parse::<u32>().ok().zip(status.parse().ok());
                    let told = parsed.and_then(|(number, status)| {
                        let sender = answers.lock().expect("no panic inside").remove(&number)?;
                        sender.send(status).ok()
                    });
                    // An answer that came too late: whoever asked has gone.
                    told.unwrap_or_default();
                }
            }
            // The host is gone: nobody is to wait for its answers.
            answers.lock().expect("no panic inside").clear();
        });
        Ok(Self {
            port: Mutex::new(port),
            folder: folder.to_owned(),
            count: AtomicU32::new(1),
            waiting,
            ready: Mutex::new(ready),
        })
    }

    /// Whether the agent said that it is there, within the time.
    pub(crate) fn is_ready(&self, within: Duration) -> bool {
        let ready = self.ready.lock().expect("no panic inside");
        ready.recv_timeout(within).is_ok()
    }

    /// Runs a script; nothing where the host does not answer (the script itself is ended in time).
    pub(crate) fn run(&self, script: &str, limit: Duration) -> Option<Output> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let file = |kind: &str| self.folder.join(format!("{number}.{kind}"));
        fs::write(file("sh"), script).expect("the shared folder");
        let (tell, told) = channel();
        self.waiting
            .lock()
            .expect("no panic inside")
            .insert(number, tell);
        let seconds = limit.as_secs().max(1);
        let begin = Instant::now();
        {
            let mut port = self.port.lock().expect("no panic inside");
            writeln!(port, "{number} {seconds}").ok()?;
        }
        let status = told.recv_timeout(Duration::from_secs(seconds + 15)).ok();
        let text = |kind: &str| {
            let bytes = fs::read(file(kind)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let output = Output {
            status: status.unwrap_or(-1),
            stdout: text("out"),
            stderr: text("err"),
        };
        println!("[{:.1} s] {script}", begin.elapsed().as_secs_f32());
        println!("{}", shortened(&output.to_string()));
        status.map(|_| output)
    }
}

/// The last lines.
fn shortened(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    match lines.len().checked_sub(80) {
        None | Some(0) => text.to_owned(),
        Some(more) => format!("({more} lines left out)\n{}", lines[more..].join("\n")),
    }
}
