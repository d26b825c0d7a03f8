//! What another user may do with files: asked of the kernel, by a thread that takes on that user's rights.
//! Access control lists, file systems with rules of their own and groups all count as they will for QEMU.

use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde::{Deserialize, Serialize};

use super::images;
use super::users::Ids;

/// How many images below one another are looked at.
const CHAIN: usize = 64;

/// What is to be done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// Read it.
    Read,
    /// Read and write it.
    Write,
    /// Run it as a program.
    Run,
    /// Go through the directory to what is in it.
    Search,
    /// Look into the directory.
    List,
    /// Look into the directory and change what is in it.
    Change,
}

impl Need {
    fn access(self) -> Access {
        match self {
            Self::Read => Access::READ_OK,
            Self::Write => Access::READ_OK | Access::WRITE_OK,
            Self::Run | Self::Search => Access::EXEC_OK,
            Self::List => Access::READ_OK | Access::EXEC_OK,
            Self::Change => Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK,
        }
    }

    /// In words, as in `read`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Run => "run",
            Self::Search => "search the directory",
            Self::List => "look into the directory",
            Self::Change => "write to the directory",
        }
    }
}

/// A file that is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Needed {
    /// What it is for, as in `disk `system``.
    pub what: String,
    /// The file.
    pub path: PathBuf,
    /// What is to be done with it.
    pub need: Need,
}

/// A file or a directory that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Denied {
    /// What is needed, as it was asked for.
    pub what: String,
    /// The file, or a directory on the way to it.
    pub path: PathBuf,
    /// What the user may not do with it.
    pub need: Need,
}

/// What of that the user may not do; what is not there is in nobody's way.
///
/// # Errors
/// This process may not take on that user's rights.
pub fn denied(user: &Ids, needed: &[Needed]) -> io::Result<Vec<Denied>> {
    // Followed with our own rights: another user may not even see what a link leads to.
    let wanted: Vec<(&Needed, Vec<PathBuf>)> = needed
        .iter()
        .filter(|needed| needed.path.exists())
        .map(|needed| (needed, way(&needed.path)))
        .collect();
    let ask = || -> io::Result<Vec<Denied>> {
        become_user(user)?;
        Ok(wanted
            .iter()
            .filter_map(|(needed, way)| look(needed, way))
            .collect())
    };
    std::thread::scope(|scope| {
        let asked = scope.spawn(ask).join();
        asked.unwrap_or_else(|_| Err(io::Error::other("the thread that asks has failed")))
    })
}

/// The images below this one, as their headers name them.
pub fn backing_files(image: &Path) -> Vec<PathBuf> {
    let mut below = Vec::new();
    let mut at = image.to_owned();
    while below.len() < CHAIN {
        let Some(backing) = images::backing(&at) else {
            break;
        };
        at = at.parent().unwrap_or(Path::new("/")).join(backing);
        below.push(at.clone());
    }
    below
}

/// The directories that lead to a file: on its own path, and on that to what links in it point to.
fn way(path: &Path) -> Vec<PathBuf> {
    let real = path.canonicalize().ok();
    let mut way = Vec::new();
    for path in [Some(path.to_owned()), real].into_iter().flatten() {
        let mut above: Vec<PathBuf> = path.ancestors().skip(1).map(Path::to_owned).collect();
        above.reverse();
        // What `..` leads out of is on the way too, by its own name.
        above.retain(|dir| !matches!(dir.components().next_back(), Some(Component::ParentDir)));
        for dir in above {
            if !dir.as_os_str().is_empty() && !way.contains(&dir) {
                way.push(dir);
            }
        }
    }
    way
}

/// This thread's rights alone: the kernel keeps them for each thread, and it is the C library that gives
/// them to all.
fn become_user(user: &Ids) -> io::Result<()> {
    let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    set_thread_groups(&groups)?;
    let gid = Gid::from_raw(user.gid);
    set_thread_res_gid(gid, gid, gid)?;
    let uid = Uid::from_raw(user.uid);
    set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

fn look(needed: &Needed, way: &[PathBuf]) -> Option<Denied> {
    let may =
        |path: &Path, need: Need| accessat(CWD, path, need.access(), AtFlags::empty()).is_ok();
    if may(&needed.path, needed.need) {
        return None;
    }
    let in_the_way = way.iter().find(|dir| !may(dir, Need::Search));
    Some(Denied {
        what: needed.what.clone(),
        path: in_the_way.unwrap_or(&needed.path).clone(),
        need: in_the_way.map_or(needed.need, |_| Need::Search),
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const NOBODY: Ids = Ids {
        uid: 65534,
        gid: 65534,
        groups: Vec::new(),
    };

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn another_user_s_rights_are_asked_of_the_kernel() {
        if !nix::unistd::Uid::effective().is_root() {
            // Only root may take on another user's rights, and is told so.
            let refused = denied(&NOBODY, &[]).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
            return;
        }
        let top = tempfile::tempdir().unwrap();
        let (dir, link) = (top.path().join("dir"), top.path().join("link"));
        let file = dir.join("disk");
        fs::create_dir(&dir).unwrap();
        fs::write(&file, "x").unwrap();
        symlink(&file, &link).unwrap();
        let ask = |path: &Path, need| {
            let needed = Needed {
                what: "disk".to_owned(),
                path: path.to_owned(),
                need,
            };
            let found = denied(&NOBODY, &[needed]).unwrap();
            found.into_iter().next().map(|no| (no.path, no.need))
        };
        mode(top.path(), 0o700);
        assert_eq!(
            ask(&file, Need::Read),
            Some((top.path().to_owned(), Need::Search))
        );
        mode(top.path(), 0o711);
        mode(&dir, 0o700);
        let through_the_link = ask(&link, Need::Read);
        assert_eq!(through_the_link, Some((dir.clone(), Need::Search)));
        mode(&dir, 0o711);
        mode(&file, 0o644);
        assert_eq!(ask(&link, Need::Read), None);
        assert_eq!(ask(&file, Need::Write), Some((file.clone(), Need::Write)));
        assert_eq!(ask(&dir, Need::List), Some((dir.clone(), Need::List)));
        assert_eq!(ask(&dir.join("none"), Need::Read), None);
        std::os::unix::fs::chown(&file, Some(65534), None).unwrap();
        assert_eq!(ask(&file, Need::Write), None);
        // This thread is root still.
        mode(&file, 0o600);
        fs::write(&file, "y").unwrap();
        assert!(nix::unistd::Uid::effective().is_root());
    }
}
