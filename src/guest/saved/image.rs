//! The image itself, by QEMU's migration into a plain file.
//!
//! QEMU gets the file as a descriptor and never its name: the state directory may be closed to the user that
//! it runs as, and its sandbox stays as it is. Nothing stands between QEMU and the file, so that a supervisor
//! that dies breaks nothing off. The descriptor has two names: before 9.1 it is `fd:`; since then QEMU takes
//! that for sockets and pipes alone (files are deprecated) and wants `file:` with a descriptor set.
//! An image that is compressed goes through a pipe to a thread of the supervisor's ([`super::squeeze`]): with the
//! supervisor the save fails, and the guest goes on.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use mvm_qmp::{Qmp, QmpError};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::super::RunDir;
use super::squeeze;

/// The descriptor's name at QEMU.
const NAME: &str = "mvm-saved";
/// The first QEMU that wants a descriptor set.
const FILE_URI: (u32, u32, u32) = (9, 1, 0);
/// Bytes a second: more than any disk takes. QEMU's own limit is for networks.
const UNLIMITED: u64 = 1 << 40;
/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(50);
/// For QEMU to give up.
const CANCEL: Duration = Duration::from_secs(30);

/// Why there is no image, or why it was not loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    /// QEMU refuses, or is gone.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// It failed on the way.
    #[error("QEMU says: {0}")]
    Failed(String),
    /// Something else cancelled it.
    #[error("it was cancelled by another QMP client")]
    Cancelled,
    /// The file.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        what: &'static str,
        path: std::path::PathBuf,
        source: std::io::Error,
    },
    /// The deadline.
    #[error("it has not been loaded within {0:.0?}")]
    Late(Duration),
}

/// Makes the file, for its user alone.
pub(crate) fn create(run: &RunDir) -> Result<File, ImageError> {
    let path = run.saved_part();
    let failed = |source| ImageError::File {
        what: "make",
        path: path.clone(),
        source,
    };
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed)
}

/// Puts the complete file in its place, on the disk.
pub(crate) fn keep(run: &RunDir, file: &File) -> Result<(), ImageError> {
    let path = run.saved();
    let keep = || {
        file.sync_all()?;
        std::fs::rename(run.saved_part(), &path)?;
        path.parent()
            .map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    keep().map_err(|source| ImageError::File {
        what: "keep",
        path: path.clone(),
        source,
    })
}

/// Why QEMU cannot save this guest, in its own words; empty where it can.
pub(crate) async fn blocked(qmp: &Qmp) -> Result<Vec<String>, QmpError> {
    let info = qmp.call("query-migrate", None).await?;
    Ok(reasons(&info))
}

fn reasons(info: &Value) -> Vec<String> {
    let reasons = info["blocked-reasons"].as_array().into_iter().flatten();
    reasons
        .filter_map(|reason| reason.as_str())
        .map(str::to_owned)
        .collect()
}

/// Lets QEMU write the guest, which is held, to the file; `told` hears how many bytes of its memory are done, of
/// how many.
pub(crate) async fn write(
    qmp: &Qmp,
    file: &File,
    compress: bool,
    mut told: impl FnMut(u64, u64),
) -> Result<(), ImageError> {
    let file = duplicate(file)?;
    let (fd, squeezing) = if compress {
        let (end, work) = squeeze::into(file).map_err(squeezed)?;
        (Handed::Pipe(end), Some(work))
    } else {
        (Handed::File(file.into()), None)
    };
    let speed = json!({ "max-bandwidth": UNLIMITED });
    qmp.call("migrate-set-parameters", Some(speed)).await?;
    hand_over(qmp, fd, "migrate", None).await?;
    loop {
        let info = qmp.call("query-migrate", None).await?;
        match status(&info)? {
            Stage::Done => {
                // QEMU has closed its end: what is left to be written is written.
                return match squeezing {
                    Some(work) => work.done().await.map_err(squeezed),
                    None => Ok(()),
                };
            }
            Stage::UnderWay => {}
        }
        let number = |key: &str| info["ram"][key].as_u64();
        if let (Some(total), Some(remaining)) = (number("total"), number("remaining")) {
            told(total.saturating_sub(remaining), total);
        }
        sleep(LOOK).await;
    }
}

/// Breaks it off, if it is under way.
pub(crate) async fn cancel(qmp: &Qmp) -> Result<(), QmpError> {
    qmp.call("migrate_cancel", None).await?;
    let ended = async {
        loop {
            let info = qmp.call("query-migrate", None).await?;
            if !matches!(status(&info), Ok(Stage::UnderWay)) || info["status"].is_null() {
                return Ok(());
            }
            sleep(LOOK).await;
        }
    };
    // What comes of one that does not end is told by QEMU's answers to what is asked next.
    timeout(CANCEL, ended).await.unwrap_or(Ok(()))
}

/// Loads the image into a QEMU that waits for one.
pub(crate) async fn load(qmp: &Qmp, run: &RunDir, within: Duration) -> Result<(), ImageError> {
    let path = run.saved();
    let file = File::open(&path).map_err(|source| ImageError::File {
        what: "open",
        path,
        source,
    })?;
    let end = Instant::now() + within;
    let (fd, unpacking) = match squeeze::is_squeezed(&file).map_err(squeezed)? {
        true => {
            let (end, work) = squeeze::out_of(file).map_err(squeezed)?;
            (Handed::Pipe(end), Some(work))
        }
        false => (Handed::File(file.into()), None),
    };
    // QEMU reads a file without a pause and answers when it is done.
    let left = || end.saturating_duration_since(Instant::now());
    hand_over(qmp, fd, "migrate-incoming", Some(within)).await?;
    while !left().is_zero() {
        let info = qmp.call_within("query-migrate", None, left()).await?;
        if matches!(status(&info)?, Stage::Done) {
            // Nothing is left in the pipe, or QEMU did not read all that was saved.
            return match unpacking {
                Some(work) => work.done().await.map_err(squeezed),
                None => Ok(()),
            };
        }
        sleep(LOOK).await;
    }
    Err(ImageError::Late(within))
}

fn squeezed(source: std::io::Error) -> ImageError {
    ImageError::File {
        what: "compress or unpack",
        path: NAME.into(),
        source,
    }
}

/// What QEMU gets to write to or to read from.
enum Handed {
    File(OwnedFd),
    Pipe(OwnedFd),
}

fn duplicate(file: &File) -> Result<File, ImageError> {
    file.try_clone().map_err(|source| ImageError::File {
        what: "share",
        path: NAME.into(),
        source,
    })
}

async fn hand_over(
    qmp: &Qmp,
    fd: Handed,
    command: &str,
    within: Option<Duration>,
) -> Result<(), QmpError> {
    let begin = async |uri: String| {
        let arguments = Some(json!({ "uri": uri }));
        match within {
            Some(within) => qmp.call_within(command, arguments, within).await,
            None => qmp.call(command, arguments).await,
        }
    };
    let (fd, by_name) = match fd {
        Handed::Pipe(fd) => (fd, true),
        Handed::File(fd) => (fd, qmp.greeting().version < FILE_URI),
    };
    if by_name {
        let name = json!({ "fdname": NAME });
        qmp.call_with_fds("getfd", Some(name), vec![fd]).await?;
        return begin(format!("fd:{NAME}")).await.map(drop);
    }
    let opaque = json!({ "opaque": NAME });
    let set = qmp.call_with_fds("add-fd", Some(opaque), vec![fd]).await?;
    let id = set["fdset-id"].clone();
    let begun = begin(format!("file:/dev/fdset/{id}")).await;
    // It has opened it by now.
    let set = json!({ "fdset-id": id });
    if let Err(error) = qmp.call("remove-fd", Some(set)).await {
        tracing::debug!(%error, "QEMU keeps a descriptor");
    }
    begun.map(drop)
}

enum Stage {
    UnderWay,
    Done,
}

fn status(info: &Value) -> Result<Stage, ImageError> {
    match info["status"].as_str() {
        Some("completed") => Ok(Stage::Done),
        Some("failed") => Err(ImageError::Failed(
            info["error-desc"]
                .as_str()
                .unwrap_or("it failed, without a word why")
                .to_owned(),
        )),
        Some("cancelled") => Err(ImageError::Cancelled),
        _ => Ok(Stage::UnderWay),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_says_how_far_it_is_and_what_forbids_it() {
        let blocked = json!({ "blocked-reasons": ["a", "b"] });
        assert_eq!(reasons(&blocked), ["a", "b"]);
        assert!(reasons(&json!({})).is_empty());
        let stage = |info: Value| status(&info);
        assert!(matches!(
            stage(json!({ "status": "completed" })),
            Ok(Stage::Done)
        ));
        for word in ["setup", "active", "device", "cancelling"] {
            let info = json!({ "status": word });
            assert!(matches!(stage(info), Ok(Stage::UnderWay)), "{word}");
        }
        let failed = json!({ "status": "failed", "error-desc": "No space left on device" });
        let error = stage(failed).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some("QEMU says: No space left on device"));
    }
}
