//! Reading `/sys`, or a recorded tree that stands for it.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// A `/sys` that can be somewhere else: `MVM_SYSFS`, a recorded host, a test's temporary directory.
///
/// Every path given to its methods is relative to that root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysfs {
    root: PathBuf,
}

/// A file or directory under `/sys` that could not be read, or held something unexpected.
#[derive(Debug, thiserror::Error)]
pub enum SysfsError {
    /// The read itself failed.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or directory, with its root.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is there, its content is not a number.
    #[error("{} holds {text:?}, not a number", path.display())]
    NotANumber {
        /// The file, with its root.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
}

impl SysfsError {
    /// Whether the file or directory does not exist at all.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl Sysfs {
    /// The tree that `MVM_SYSFS` names, else `/sys`.
    pub fn from_env() -> Self {
        match std::env::var_os("MVM_SYSFS") {
            Some(dir) if !dir.is_empty() => Self::at(dir),
            _ => Self::at("/sys"),
        }
    }

    /// The tree at `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory that stands for `/sys`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The full path of `rel`; a leading `/sys/` or `/` is taken as relative too.
    pub fn path(&self, rel: impl AsRef<Path>) -> PathBuf {
        let rel = rel.as_ref();
        let rel = rel.strip_prefix("/sys").unwrap_or(rel);
        self.root.join(rel.strip_prefix("/").unwrap_or(rel))
    }

    /// Whether `rel` exists (links are followed).
    pub fn exists(&self, rel: impl AsRef<Path>) -> bool {
        self.path(rel).exists()
    }

    /// The text of a file, without the white space around it.
    pub fn read(&self, rel: impl AsRef<Path>) -> Result<String, SysfsError> {
        let path = self.path(rel);
        match fs::read(&path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).trim().to_owned()),
            Err(source) => Err(SysfsError::Read { path, source }),
        }
    }

    /// The bytes of a binary file, such as a PCI device's `config`.
    pub fn read_bytes(&self, rel: impl AsRef<Path>) -> Result<Vec<u8>, SysfsError> {
        let path = self.path(rel);
        fs::read(&path).map_err(|source| SysfsError::Read { path, source })
    }

    /// A number: decimal, or hexadecimal after `0x`.
    pub fn read_u64(&self, rel: impl AsRef<Path>) -> Result<u64, SysfsError> {
        let rel = rel.as_ref();
        let text = self.read(rel)?;
        parse_u64(&text).ok_or_else(|| SysfsError::NotANumber {
            path: self.path(rel),
            text,
        })
    }

    /// The last component of what a link points at: a device's driver, its IOMMU group.
    /// `None` where there is no such link.
    pub fn link_name(&self, rel: impl AsRef<Path>) -> Result<Option<String>, SysfsError> {
        let path = self.path(rel);
        match fs::read_link(&path) {
            Ok(to) => Ok(to.file_name().map(|n| n.to_string_lossy().into_owned())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SysfsError::Read { path, source }),
        }
    }

    /// The names in a directory, sorted; empty where the directory does not exist.
    pub fn list(&self, rel: impl AsRef<Path>) -> Result<Vec<String>, SysfsError> {
        let path = self.path(rel);
        let wrap = |source| SysfsError::Read {
            path: path.clone(),
            source,
        };
        let dir = match fs::read_dir(&path) {
            Ok(dir) => dir,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(wrap(e)),
        };
        let mut names = Vec::new();
        for entry in dir {
            names.push(
                entry
                    .map_err(wrap)?
                    .file_name()
                    .to_string_lossy()
                    .into_owned(),
            );
        }
        names.sort();
        Ok(names)
    }
}

/// A number as the kernel writes it: decimal, or hexadecimal after `0x`.
pub fn parse_u64(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The numbers of a kernel list such as `0-3,8,10-11` (CPU lists, node lists).
/// `None` where the text is not such a list.
pub fn parse_list(text: &str) -> Option<Vec<u32>> {
    let mut all = Vec::new();
    for part in text.trim().split(',').filter(|p| !p.is_empty()) {
        match part.split_once('-') {
            Some((from, to)) => {
                let (from, to): (u32, u32) = (from.parse().ok()?, to.parse().ok()?);
                // A list the kernel would not write must not cost memory.
                if to < from || to - from > 65_536 {
                    return None;
                }
                all.extend(from..=to);
            }
            None => all.push(part.parse().ok()?),
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use super::*;

    #[test]
    fn reads_under_its_root_only() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("bus/pci")).unwrap();
        fs::write(dir.path().join("bus/pci/n"), " 0x1f\n").unwrap();
        fs::write(dir.path().join("bus/pci/word"), "yes\n").unwrap();
        std::os::unix::fs::symlink("../../drivers/vfio-pci", dir.path().join("bus/pci/driver"))
            .unwrap();
        let sys = Sysfs::at(dir.path());
        assert_eq!(sys.read_u64("bus/pci/n").unwrap(), 31);
        assert_eq!(sys.read("/sys/bus/pci/word").unwrap(), "yes");
        assert_eq!(sys.path("/bus"), dir.path().join("bus"));
        assert_eq!(
            sys.link_name("bus/pci/driver").unwrap().as_deref(),
            Some("vfio-pci")
        );
        assert_eq!(sys.link_name("bus/pci/none").unwrap(), None);
        assert_eq!(sys.list("bus/pci").unwrap(), ["driver", "n", "word"]);
        assert!(sys.list("bus/usb").unwrap().is_empty());
        assert!(sys.read("nothing").unwrap_err().is_missing());
        let err = sys.read_u64("bus/pci/word").unwrap_err();
        assert!(
            err.to_string().ends_with("holds \"yes\", not a number"),
            "{err}"
        );
    }

    #[test]
    fn kernel_lists() {
        assert_eq!(
            parse_list("0-3,8,10-11\n"),
            Some(vec![0, 1, 2, 3, 8, 10, 11])
        );
        assert_eq!(parse_list(""), Some(vec![]));
        assert_eq!(parse_list("3-1"), None);
        assert_eq!(parse_list("0-4294967295"), None);
        assert_eq!(parse_list("a"), None);
    }
}
