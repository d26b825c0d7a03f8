//! A guest's drives for removable media, as QEMU tells them.

use std::path::Path;
use std::time::{Duration, Instant};

use mvm_qmp::Qmp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Context, Failure, monitor};
use crate::error::{ExitCode, Report};
use crate::profile::schema::DiskFormat;
use crate::units::Span;

/// How long one QMP call may take.
const CALL: Duration = Duration::from_secs(10);
/// How often a drive that the guest has locked is looked at.
const EVERY: Duration = Duration::from_millis(100);

/// A drive of a running guest.
pub(super) struct Drive {
    guest: String,
    id: String,
    qmp: Qmp,
}

/// One entry of `query-block`.
#[derive(Debug, Deserialize)]
struct Block {
    qdev: Option<String>,
    removable: bool,
    #[serde(default)]
    locked: bool,
    inserted: Option<Value>,
}

impl Block {
    /// The name of the drive in the profile: a USB or IDE drive's `qdev` can be a path that ends with it.
    fn name(&self) -> &str {
        let path = self.qdev.as_deref().unwrap_or_default();
        let path = path.strip_suffix("/virtio-backend").unwrap_or(path);
        path.rsplit('/').next().unwrap_or(path)
    }
}

async fn removable(qmp: &Qmp) -> Result<Vec<Block>, Failure> {
    let answer = qmp
        .call("query-block", None)
        .await
        .map_err(monitor::failure)?;
    let blocks: Vec<Block> = serde_json::from_value(answer).map_err(|error| {
        Failure::message(
            ExitCode::Failed,
            format!("QEMU describes its drives in a way that mvm does not understand: {error}"),
        )
    })?;
    let drives = blocks.into_iter();
    Ok(drives
        .filter(|block| block.removable && block.qdev.is_some())
        .collect())
}

/// The drive of that name, or the only one.
pub(super) async fn find(
    guest: &str,
    wanted: Option<&str>,
    context: &Context,
) -> Result<Drive, Failure> {
    let (qmp, _events) = monitor::connect(guest, context, CALL).await?;
    let drives = removable(&qmp).await?;
    let names: Vec<&str> = drives.iter().map(Block::name).collect();
    let chosen = match (wanted, drives.as_slice()) {
        (Some(name), _) => drives.iter().find(|drive| drive.name() == name),
        (None, [drive]) => Some(drive),
        (None, _) => None,
    };
    if let Some(id) = chosen.and_then(|drive| drive.qdev.clone()) {
        return Ok(Drive {
            guest: guest.to_owned(),
            id,
            qmp,
        });
    }
    let message = match wanted {
        Some(name) => format!("{guest} has no CD-ROM drive `{name}`"),
        None if names.is_empty() => format!("{guest} has no CD-ROM drive"),
        None => format!("{guest} has more than one CD-ROM drive"),
    };
    let report = Report::new(ExitCode::Failed, message);
    Err(if names.is_empty() {
        report
            .hint("a profile gives it one: `[disk.cd]` with `media = \"cdrom\"` and `empty = true`")
    } else {
        report.hint(format!("its drives are `{}`", names.join("`, `")))
    }
    .into())
}

impl Drive {
    async fn look(&self) -> Result<Block, Failure> {
        let found = removable(&self.qmp).await?.into_iter();
        let id = Some(self.id.as_str());
        found
            .into_iter()
            .find(|block| block.qdev.as_deref() == id)
            .ok_or_else(|| {
                Failure::message(
                    ExitCode::Failed,
                    format!("the drive went away from {}", self.guest),
                )
            })
    }

    /// Takes the medium out and waits until it is; a locked drive asks the guest, or is forced.
    pub(super) async fn empty(&self, force: bool, within: Span) -> Result<(), Failure> {
        let deadline = Instant::now() + within.duration();
        let mut asked = false;
        loop {
            let block = self.look().await?;
            if block.inserted.is_none() {
                return Ok(());
            }
            // QEMU turns the first request at a locked drive into the guest's eject button.
            if !asked || !block.locked {
                asked = true;
                let arguments = json!({ "id": self.id, "force": force });
                match self.qmp.call("eject", Some(arguments)).await {
                    Ok(_) => continue,
                    Err(error) if self.look().await?.locked => {
                        tracing::debug!("{error}");
                    }
                    Err(error) => return Err(monitor::failure(error)),
                }
            }
            if Instant::now() >= deadline {
                return Err(Report::new(
                    ExitCode::Failed,
                    format!(
                        "{} has locked the drive and did not let it go within {within}",
                        self.guest
                    ),
                )
                .hint("unmount the medium in the guest, or `--force` takes it out nevertheless")
                .into());
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Puts a medium in and checks that it is.
    pub(super) async fn fill(&self, image: &Path, format: DiskFormat) -> Result<(), Failure> {
        let arguments = json!({
            "id": self.id,
            "filename": image,
            "format": format.as_str(),
            "read-only-mode": "read-only",
        });
        self.qmp
            .call("blockdev-change-medium", Some(arguments))
            .await
            .map_err(monitor::failure)?;
        if self.look().await?.inserted.is_some() {
            return Ok(());
        }
        Err(Failure::message(
            ExitCode::Failed,
            format!("the drive of {} is still empty", self.guest),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drives_have_the_names_of_the_profile() {
        for (qdev, name) in [
            ("cd", "cd"),
            ("/machine/peripheral/cd", "cd"),
            ("/machine/peripheral/cd/virtio-backend", "cd"),
        ] {
            let block = Block {
                qdev: Some(qdev.to_owned()),
                removable: true,
                locked: false,
                inserted: None,
            };
            assert_eq!(block.name(), name);
        }
    }
}
