//! Facts about the files that a profile names: where they are, and what they say they are.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::AccessFlags;
use serde::{Deserialize, Serialize};

/// What is known about the files that were asked for, by the text that named them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Images {
    /// The folders that relative paths were looked up in, in order.
    pub folders: Vec<PathBuf>,
    /// The files.
    pub files: BTreeMap<String, Look>,
}

/// What looking for a file gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Look {
    /// It is there.
    Found(ImageFacts),
    /// It is at none of these places.
    Missing {
        /// The full paths that were tried.
        looked: Vec<PathBuf>,
    },
    /// It could not be looked at.
    Failed {
        /// The full path.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
}

/// A file that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// Its absolute path.
    pub path: PathBuf,
    /// What kind of file it is.
    pub kind: FileKind,
    /// Device and inode: two names of one file have the same. A block device has its own number and 0.
    pub identity: (u64, u64),
    /// Its size in bytes; 0 for what is not a regular file.
    pub size: u64,
    /// This user can read it.
    pub readable: bool,
    /// This user can write it.
    pub writable: bool,
    /// What its first bytes say; `None` where it could not be read or is no file of bytes.
    pub content: Option<Content>,
}

/// Kinds of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A block device.
    Block,
    /// A character device.
    Char,
    /// A directory.
    Dir,
    /// A socket, a FIFO.
    Other,
}

/// What the first bytes of a file say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// A qcow2 image.
    Qcow2 {
        /// The size of the disk that the guest sees, in bytes.
        virtual_size: u64,
        /// The image below it, as the header writes it.
        backing: Option<String>,
    },
    /// A format of another program, or a compressed file: its name for people.
    Other(String),
    /// Nothing that mvm knows: raw, most likely.
    Unknown,
}

impl Images {
    /// What is known about the file that a profile names `text`; `None` where nobody asked for it.
    pub fn get(&self, text: &str) -> Option<&Look> {
        self.files.get(text)
    }
}

/// Looks for each of `wanted`: an absolute path as it is, a relative one in each of `folders`.
/// Nothing is opened for writing.
pub fn look<'a>(wanted: impl IntoIterator<Item = &'a str>, folders: &[PathBuf]) -> Images {
    let folders: Vec<PathBuf> = folders
        .iter()
        // Fails for an empty path and without a current directory only: then it stays as it is.
        .map(|folder| std::path::absolute(folder).unwrap_or_else(|_| folder.clone()))
        .collect();
    let files = wanted
        .into_iter()
        .map(|text| (text.to_owned(), look_for(text, &folders)))
        .collect();
    Images { folders, files }
}

fn look_for(text: &str, folders: &[PathBuf]) -> Look {
    let places: Vec<PathBuf> = match Path::new(text) {
        path if path.is_absolute() => vec![path.to_owned()],
        // Joining nothing gives the folder itself.
        _ if text.is_empty() => Vec::new(),
        path => folders.iter().map(|folder| folder.join(path)).collect(),
    };
    for path in &places {
        match path.metadata() {
            Ok(meta) => return Look::Found(facts(path.clone(), &meta)),
            // A path with a NUL is `InvalidInput`: such a file cannot be.
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound
                        | std::io::ErrorKind::NotADirectory
                        | std::io::ErrorKind::InvalidInput
                ) => {}
            Err(error) => {
                return Look::Failed {
                    path: path.clone(),
                    why: error.to_string(),
                };
            }
        }
    }
    Look::Missing { looked: places }
}

fn facts(path: PathBuf, meta: &Metadata) -> ImageFacts {
    let file_type = meta.file_type();
    let kind = match file_type {
        t if t.is_file() => FileKind::File,
        t if t.is_dir() => FileKind::Dir,
        t if t.is_block_device() => FileKind::Block,
        t if t.is_char_device() => FileKind::Char,
        _ => FileKind::Other,
    };
    let may = |flags| nix::unistd::access(&path, flags).is_ok();
    let readable = may(AccessFlags::R_OK);
    let content = match kind {
        FileKind::File | FileKind::Block if readable => head(&path).map(|head| content(&head)),
        _ => None,
    };
    ImageFacts {
        kind,
        identity: match kind {
            FileKind::Block => (meta.rdev(), 0),
            _ => (meta.dev(), meta.ino()),
        },
        size: if kind == FileKind::File {
            meta.len()
        } else {
            0
        },
        readable,
        writable: may(AccessFlags::W_OK),
        content,
        path,
    }
}

/// The image below an image, as its header names it; `None` where there is none, or none that is a file.
pub(super) fn backing(path: &Path) -> Option<PathBuf> {
    let Content::Qcow2 { backing, .. } = content(&head(path)?) else {
        return None;
    };
    let name = backing?;
    match name.strip_prefix("file:") {
        Some(path) => Some(path.into()),
        // `json:…`, `nbd://…`: a colon before any slash makes it something else than a path.
        None if name.split('/').next()?.contains(':') => None,
        None => Some(name.into()),
    }
}

/// Enough for a qcow2 header and the name of its backing file, which follows it in the first cluster.
const HEAD: u64 = 4096;

fn head(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(HEAD)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}

/// Formats that a guest would not boot from as raw bytes: where their magic is, and their name.
const OTHERS: &[(usize, &[u8], &str)] = &[
    (0, b"KDMV", "a VMware (vmdk) image"),
    (0, b"# Disk DescriptorFile", "a VMware (vmdk) image"),
    (0, b"QED\0", "a QED image"),
    (0, b"vhdxfile", "a Hyper-V (vhdx) image"),
    (0, b"conectix", "a Virtual PC (vhd) image"),
    (0x40, &[0x7f, 0x10, 0xda, 0xbe], "a VirtualBox (vdi) image"),
    (0, &[0x1f, 0x8b], "compressed with gzip"),
    (0, b"\xfd7zXZ\0", "compressed with xz"),
    (0, &[0x28, 0xb5, 0x2f, 0xfd], "compressed with zstd"),
    (0, b"BZh", "compressed with bzip2"),
    (0, b"PK\x03\x04", "a zip archive"),
];

/// What the first bytes of a file say (qcow2: `docs/interop/qcow2.txt` of QEMU).
fn content(head: &[u8]) -> Content {
    if head.starts_with(b"QFI\xfb") && matches!(number(head, 4, 4), Some(2 | 3)) {
        let backing = || {
            let start = usize::try_from(number(head, 8, 8)?).ok()?;
            let length = usize::try_from(number(head, 16, 4)?).ok()?;
            let name = head.get(start..start.checked_add(length)?)?;
            (start > 0 && length > 0).then(|| String::from_utf8_lossy(name).into_owned())
        };
        return Content::Qcow2 {
            virtual_size: number(head, 24, 8).unwrap_or(0),
            backing: backing(),
        };
    }
    OTHERS
        .iter()
        .find(|(at, magic, _)| head.get(*at..).is_some_and(|rest| rest.starts_with(magic)))
        .map_or(Content::Unknown, |(_, _, name)| {
            Content::Other((*name).to_owned())
        })
}

/// A big-endian number of `length` bytes.
fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + length)?;
    Some(
        bytes
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use super::*;

    fn qcow2(backing: &str) -> Vec<u8> {
        let mut head = vec![0u8; 512];
        head[..4].copy_from_slice(b"QFI\xfb");
        head[7] = 3;
        if !backing.is_empty() {
            head[14] = 1; // at 256
            head[19] = u8::try_from(backing.len()).unwrap();
            head[256..256 + backing.len()].copy_from_slice(backing.as_bytes());
        }
        head[24..32].copy_from_slice(&(20u64 << 30).to_be_bytes());
        head
    }

    #[test]
    fn a_relative_path_is_looked_up_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("1"), dir.path().join("2"));
        std::fs::create_dir(&first).unwrap();
        std::fs::create_dir(&second).unwrap();
        std::fs::write(second.join("a, b \n'ü'.img"), "x").unwrap();
        let folders = [first.clone(), second.clone()];

        let images = look(["a, b \n'ü'.img", "none.img", "", "nul\0.img"], &folders);

        let Some(Look::Found(found)) = images.get("a, b \n'ü'.img") else {
            panic!("{images:?}");
        };
        assert_eq!(found.path, second.join("a, b \n'ü'.img"));
        assert_eq!((found.kind, found.size), (FileKind::File, 1));
        assert_eq!(
            images.get("none.img"),
            Some(&Look::Missing {
                looked: vec![first.join("none.img"), second.join("none.img")]
            })
        );
        assert_eq!(images.get(""), Some(&Look::Missing { looked: vec![] }));
        assert!(matches!(
            images.get("nul\0.img"),
            Some(Look::Missing { .. })
        ));
        assert_eq!(images.get("never asked"), None);
    }

    #[test]
    fn two_names_of_one_file_are_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "").unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("b")).unwrap();
        let images = look(["a", "b"], &[dir.path().to_owned()]);
        let identity = |name| match images.get(name) {
            Some(Look::Found(facts)) => facts.identity,
            other => panic!("{other:?}"),
        };
        assert_eq!(identity("a"), identity("b"));
    }

    #[test]
    fn first_bytes_tell_the_format() {
        assert_eq!(
            content(&qcow2("base.img")),
            Content::Qcow2 {
                virtual_size: 20 << 30,
                backing: Some("base.img".into())
            }
        );
        assert_eq!(
            content(&qcow2("")),
            Content::Qcow2 {
                virtual_size: 20 << 30,
                backing: None
            }
        );
        // A header that points past its end, or is cut short, is no reason to fall over.
        let mut wild = qcow2("base.img");
        wild[8..16].fill(0xff);
        assert!(matches!(
            content(&wild),
            Content::Qcow2 { backing: None, .. }
        ));
        assert!(matches!(
            content(&qcow2("x")[..10]),
            Content::Qcow2 {
                virtual_size: 0,
                ..
            }
        ));
        assert!(matches!(content(b"KDMV\x01"), Content::Other(_)));
        assert_eq!(content(b""), Content::Unknown);
        assert_eq!(content(b"\xeb\x63\x90"), Content::Unknown);
    }
}
