//! A shell in the guest, over its console: what a test asserts *inside* the guest goes through here.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The folder of a test guest, made where it is not in the cache yet.
pub(crate) fn images(kind: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/make.sh");
    let output = Command::new(&script)
        .arg(kind)
        .output()
        .expect("the script of the test guests");
    assert!(
        output.status.success(),
        "{} {kind}:\n{}",
        script.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("a path");
    PathBuf::from(
        text.trim()
            .lines()
            .last()
            .expect("the script prints the folder"),
    )
}

/// What the test guest's shell prints when it waits.
const PROMPT: &str = "guest# ";

/// The console of a guest that runs the test guest's shell on it.
pub(crate) struct Shell {
    stream: UnixStream,
    seen: Vec<u8>,
    count: u32,
}

impl Shell {
    /// Connects to a console's socket and waits for the shell.
    #[track_caller]
    pub(crate) fn open(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket)
            .unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
        stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .expect("a deadline");
        let mut shell = Self {
            stream,
            seen: Vec::new(),
            count: 0,
        };
        // What is typed before the guest's driver runs fills the UART, which then never interrupts.
        let begin = Instant::now();
        while !shell.said().contains(PROMPT) {
            assert!(
                begin.elapsed() < Duration::from_secs(150)
                    && !shell.said().contains("Kernel panic"),
                "no shell on the console; it said:\n{}",
                shell.said()
            );
            shell.read_some();
        }
        shell.synchronised()
    }

    #[track_caller]
    fn synchronised(mut self) -> Self {
        let begin = Instant::now();
        while self
            .try_run("true", Duration::from_secs(5))
            .is_none_or(|(_, code)| code != 0)
        {
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "the shell does not answer; the console said:\n{}",
                self.said()
            );
        }
        self
    }

    /// All that the console has said so far.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    /// Runs a command that must succeed, and gives what it printed.
    #[track_caller]
    pub(crate) fn run(&mut self, command: &str) -> String {
        match self.try_run(command, Duration::from_secs(90)) {
            Some((output, 0)) => output,
            Some((output, code)) => panic!("`{command}` in the guest: exit {code}\n{output}"),
            None => panic!("`{command}` in the guest: no end of it\n{}", self.said()),
        }
    }

    /// Types a command without waiting for it.
    pub(crate) fn send(&mut self, command: &str) {
        self.stream
            .write_all(command.as_bytes())
            .expect("the console takes it");
        self.stream.write_all(b"\n").expect("the console takes it");
    }

    /// Runs a command; its output and exit status, or nothing within the time.
    pub(crate) fn try_run(&mut self, command: &str, limit: Duration) -> Option<(String, i32)> {
        self.count += 1;
        let number = self.count;
        let from = self.seen.len();
        // The terminal echoes the line, which must not look like its own result.
        self.send(&format!(
            "printf '<%d\\n' {number}; {command}; printf '%d:%d>\\n' {number} $?"
        ));
        let begin = Instant::now();
        let (open, close) = (format!("<{number}"), format!("{number}:"));
        while begin.elapsed() < limit {
            self.read_some();
            let text = String::from_utf8_lossy(&self.seen[from..]).replace('\r', "");
            let mut lines = text
                .split('\n')
                .skip_while(|line| !line.ends_with(&open))
                .skip(1);
            let mut output = Vec::new();
            for line in lines.by_ref() {
                // Output without a final newline stands before the mark on one line.
                if let Some(at) = line.rfind(&close) {
                    if let Some(code) = line[at + close.len()..].strip_suffix('>') {
                        if let Ok(code) = code.parse() {
                            output.push(&line[..at]);
                            return Some((output.join("\n").trim_end().to_owned(), code));
                        }
                    }
                }
                output.push(line);
            }
        }
        None
    }

    /// Waits until the console says that, from now on.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str, limit: Duration) {
        let from = self.seen.len();
        let begin = Instant::now();
        while !String::from_utf8_lossy(&self.seen[from..]).contains(text) {
            assert!(
                begin.elapsed() < limit,
                "`{text}` did not come within {limit:?}:\n{}",
                self.said()
            );
            self.read_some();
        }
    }

    fn read_some(&mut self) {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => std::thread::sleep(Duration::from_millis(100)),
            Ok(length) => self.seen.extend_from_slice(&chunk[..length]),
            Err(error) => {
                let waiting = [
                    ErrorKind::WouldBlock,
                    ErrorKind::TimedOut,
                    ErrorKind::Interrupted,
                ];
                assert!(waiting.contains(&error.kind()), "the console: {error}");
                if error.kind() == ErrorKind::WouldBlock {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }
}
