//! `qemu-img` as a child process with a deadline, and its errors explained.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{ExitCode, Hint};
use crate::profile::schema::DiskFormat;

/// How long an operation that moves no data may take; a file system on the network can be slow.
pub(super) const QUICK: Duration = Duration::from_secs(60);

/// What went wrong with `qemu-img`.
#[derive(Debug, thiserror::Error)]
pub(super) enum QemuImgError {
    #[error("cannot start qemu-img")]
    Start(#[source] io::Error),
    #[error("qemu-img: {message}")]
    Failed { message: String },
    #[error("qemu-img was not done after {} s and was ended", .0.as_secs())]
    Deadline(Duration),
    #[error("interrupted")]
    Interrupted,
    #[error("qemu-img describes the image in a way that mvm does not understand: {0}")]
    Info(String),
}

impl Hint for QemuImgError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Start(error) if error.kind() == io::ErrorKind::NotFound => {
                vec!["install it: on Debian and Ubuntu it is in the package qemu-utils".to_owned()]
            }
            Self::Failed { message } => explain(message)
                .map(|hint| vec![hint.to_owned()])
                .unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Start(_) => ExitCode::Host,
            _ => ExitCode::Failed,
        }
    }
}

/// What people meet, by the words that `qemu-img` uses for it.
fn explain(message: &str) -> Option<&'static str> {
    const KNOWN: [(&str, &str); 9] = [
        (
            "lock",
            "another process has the image open, most likely a running guest: see `mvm list`",
        ),
        (
            "No space left",
            "the file system is full: `df -h` shows it; another folder can be named in mvm.toml",
        ),
        (
            "Permission denied",
            "your user may not do that to this file or folder",
        ),
        (
            "Read-only file system",
            "choose a folder that can be written to",
        ),
        (
            "Image is not in",
            "the file's format is another one than the one named with --type",
        ),
        (
            "File too large",
            "this file system has no files of that size",
        ),
        (
            "Could not open backing file",
            "the image lies over another one that is not where it says; `mvm disk info` names it",
        ),
        (
            "backing file",
            "the image lies over another one; `mvm disk info` names it",
        ),
        ("too big", "this format has no images of that size"),
    ];
    KNOWN
        .iter()
        .find(|(words, _)| message.contains(words))
        .map(|(_, hint)| *hint)
}

/// Runs `qemu-img` and gives back what it printed. `progress` lets its progress line through to a
/// terminal on stderr.
pub(super) async fn run<S: AsRef<OsStr>>(
    args: &[S],
    deadline: Duration,
    progress: bool,
) -> Result<Vec<u8>, QemuImgError> {
    tracing::debug!(args = ?args.iter().map(AsRef::as_ref).collect::<Vec<_>>(), "qemu-img");
    let mut interrupted = signal(SignalKind::interrupt()).map_err(QemuImgError::Start)?;
    let mut terminated = signal(SignalKind::terminate()).map_err(QemuImgError::Start)?;
    let child = Command::new("qemu-img")
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(if progress {
            Stdio::from(io::stderr())
        } else {
            Stdio::piped()
        })
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(QemuImgError::Start)?;
    let output = tokio::select! {
        output = child.wait_with_output() => output.map_err(QemuImgError::Start)?,
        () = tokio::time::sleep(deadline) => return Err(QemuImgError::Deadline(deadline)),
        _ = interrupted.recv() => return Err(QemuImgError::Interrupted),
        _ = terminated.recv() => return Err(QemuImgError::Interrupted),
    };
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said
        .lines()
        .map(|line| line.trim().trim_start_matches("qemu-img: "))
        .filter(|line| !line.is_empty())
        .collect();
    let message = if lines.is_empty() {
        output.status.to_string()
    } else {
        crate::cli::output::clean(&lines.join("; "))
    };
    Err(QemuImgError::Failed { message })
}

/// What `qemu-img info` knows.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Info {
    pub(super) format: String,
    pub(super) virtual_size: u64,
    /// Bytes on the disk; none for a block device.
    pub(super) actual_size: Option<u64>,
    pub(super) backing_filename: Option<String>,
    pub(super) full_backing_filename: Option<String>,
}

/// Asks for an image, also one that a running guest has open.
pub(super) async fn info(path: &Path, format: Option<DiskFormat>) -> Result<Info, QemuImgError> {
    let mut args: Vec<&OsStr> = ["info", "-U", "--output=json"].map(OsStr::new).to_vec();
    if let Some(format) = format {
        args.extend([OsStr::new("-f"), OsStr::new(format.as_str())]);
    }
    args.push(path.as_os_str());
    let said = run(&args, QUICK, false).await?;
    serde_json::from_slice(&said).map_err(|error| QemuImgError::Info(error.to_string()))
}

/// The format that a file of the user's is taken for: qcow2 by its header, else raw; never more, as a
/// guest writes what it likes into a raw image.
pub(super) fn format_of(path: &Path) -> io::Result<DiskFormat> {
    Ok(if head(path)?.starts_with(b"QFI\xfb") {
        DiskFormat::Qcow2
    } else {
        DiskFormat::Raw
    })
}

/// The first bytes of a file.
pub(super) fn head(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(16)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}
