//! Memory that the guest shares with programs of the host.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::DesktopError;
use crate::ids::Id;
use crate::machine::BoardKind;
use crate::profile::schema::Layer;
use crate::units::Size;

/// How many the bridge has places for.
const MOST: usize = 8;

/// Shared memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shmem {
    /// Its name.
    pub id: Id,
    /// The size.
    pub size: Size,
    /// The file on the host.
    pub path: PathBuf,
    /// Whether the file is mvm's own, in the guest's run-time directory.
    pub own: bool,
}

/// The shared memories, in the order of their names.
pub(super) fn shmem(
    layer: &Layer,
    run_dir: &Path,
    board: BoardKind,
) -> Result<Vec<Shmem>, DesktopError> {
    let mut found = Vec::new();
    for (id, table) in layer.shmem.iter().flatten() {
        // Without a size it is `none`; `complete` of the profile lets nothing else through.
        let Some(size) = table.size.filter(|_| table.none.is_none()) else {
            continue;
        };
        if board == BoardKind::Microvm {
            return Err(DesktopError::NoPci(format!("shmem.{id}"), board));
        }
        let bytes = size.as_bytes();
        if !bytes.is_power_of_two() || bytes < 1 << 20 {
            return Err(DesktopError::PowerOfTwo(format!("shmem.{id}.size")));
        }
        let path = match table.path.as_deref() {
            None => run_dir.join(format!("shmem-{id}")),
            Some(path) if Path::new(path).is_absolute() => PathBuf::from(path),
            Some(path) => {
                return Err(DesktopError::Relative {
                    key: format!("shmem.{id}.path"),
                    path: path.chars().take(200).collect(),
                });
            }
        };
        found.push(Shmem {
            id: id.clone(),
            size,
            path,
            own: table.path.is_none(),
        });
    }
    if found.len() > MOST {
        return Err(DesktopError::TooMany {
            count: found.len(),
            what: "shared memories",
            most: MOST,
        });
    }
    Ok(found)
}
