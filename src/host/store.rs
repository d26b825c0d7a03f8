//! Files in the cache directory.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde::Serialize;

/// Writes `value` as JSON so that a reader sees the old file or the new one, never half of it.
pub(crate) fn write_atomically(path: &Path, value: &impl Serialize) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.persist(path)?;
    Ok(())
}
