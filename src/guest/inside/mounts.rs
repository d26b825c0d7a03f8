//! File systems on devices that are about to leave the guest, and that come back.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::shell::Done;
use super::{CallError, Inside, script};

const LET_GO: &str = include_str!("scripts/let-go.sh");
const MOUNT: &str = include_str!("scripts/mount.sh");

/// A mount, in the words of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Which disk, by what it says of itself, and the number of the partition.
    disk: String,
    /// Where, with spaces and the like in octal.
    point: String,
    /// The file system's kind.
    kind: String,
    options: String,
}

/// Why nothing was unmounted, or not all mounted again.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The agent.
    #[error(transparent)]
    Call(#[from] CallError),
    /// In the script's words.
    #[error("{0}")]
    Guest(String),
}

/// What is mounted from the PCI functions at these addresses of the guest.
///
/// # Errors
/// What cannot be unmounted at all; or the guest's agent does not do it.
pub async fn look(
    inside: &mut impl Inside,
    addresses: &[String],
    within: Duration,
) -> Result<Vec<Mount>, MountError> {
    let told = run_let_go(inside, "look", addresses, within).await?;
    Ok(told.lines().filter_map(mount).collect())
}

/// Unmounts it. Where one is in use, all stay.
///
/// # Errors
/// What is in use, and by whom; or the guest's agent does not do it.
pub async fn let_go(
    inside: &mut impl Inside,
    addresses: &[String],
    within: Duration,
) -> Result<(), MountError> {
    run_let_go(inside, "go", addresses, within).await.map(drop)
}

async fn run_let_go(
    inside: &mut impl Inside,
    what: &str,
    addresses: &[String],
    within: Duration,
) -> Result<String, MountError> {
    let addresses = addresses.iter().map(String::as_str);
    let words: Vec<&str> = std::iter::once(what).chain(addresses).collect();
    said(&script::run(inside, LET_GO, &words, within).await?)
}

/// Lets the guest look for devices, and mounts again what is not mounted, wherever its disks are now.
///
/// # Errors
/// What could not be mounted.
pub async fn mount_again(
    inside: &mut impl Inside,
    mounts: &[Mount],
    within: Duration,
) -> Result<(), MountError> {
    let mut words = Vec::new();
    for mount in mounts {
        words.extend([&*mount.disk, &*mount.point, &*mount.kind, &*mount.options]);
    }
    said(&script::run(inside, MOUNT, &words, within).await?).map(drop)
}

fn said(done: &Done) -> Result<String, MountError> {
    if done.status == 0 {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(MountError::Guest(match said.trim() {
        "" => format!("the guest's script ended with {}", done.status),
        said => said.replace('\n', "; "),
    }))
}

fn mount(line: &str) -> Option<Mount> {
    let mut words = line.split(' ').map(str::to_owned);
    Some(Mount {
        disk: words.next()?,
        point: words.next()?,
        kind: words.next()?,
        options: words.next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_as_the_kernel_writes_them() {
        let read = mount("eui.0001/1 /mnt/my\\040disk ext4 rw,relatime").map(|mount| mount.point);
        assert_eq!(read.as_deref(), Some("/mnt/my\\040disk"));
        assert_eq!(mount("half a line"), None);
    }
}
