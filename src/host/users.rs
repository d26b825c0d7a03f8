//! Who runs mvm, and who else a QEMU could run as.

use std::ffi::CString;
use std::os::unix::fs::MetadataExt;

use nix::unistd::{Uid, User, getgrouplist};
use serde::{Deserialize, Serialize};

use super::facts::Roots;

/// The users that matter for a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct UserFacts {
    /// Who runs mvm.
    pub uid: u32,
    /// The user who was asked for.
    pub asked: Option<Asked>,
    /// The group that may open `/dev/kvm`, where there is one.
    pub kvm_group: Option<u32>,
    /// Whether everybody may.
    pub kvm_for_all: bool,
}

/// A user by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Asked {
    /// The name.
    pub name: String,
    /// Who that is; `None` where the host knows nobody of that name.
    pub found: Option<Ids>,
}

/// A user by numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ids {
    /// The user.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// The other groups.
    pub groups: Vec<u32>,
}

impl UserFacts {
    /// Looks at this process, and for the user of that name.
    pub fn read(roots: &Roots, name: Option<&str>) -> Self {
        Self {
            uid: Uid::effective().as_raw(),
            asked: name.map(|name| Asked {
                name: name.to_owned(),
                found: find(name),
            }),
            kvm_group: kvm_group(roots),
            kvm_for_all: roots
                .path("/dev/kvm")
                .metadata()
                .is_ok_and(|meta| meta.mode() & 0o006 == 0o006),
        }
    }
}

/// What the system's database says about a user; `None` where it knows none of that name, or could not
/// be asked.
pub fn find(name: &str) -> Option<Ids> {
    let user = User::from_name(name).ok()??;
    let own = user.gid;
    let others = CString::new(name)
        .ok()
        .and_then(|name| getgrouplist(&name, own).ok())
        .unwrap_or_default();
    let groups = others.into_iter().filter(|gid| *gid != own);
    Some(Ids {
        uid: user.uid.as_raw(),
        gid: own.as_raw(),
        groups: groups.map(nix::unistd::Gid::as_raw).collect(),
    })
}

/// The group of `/dev/kvm` that its mode lets in. Root's own is nobody else's to have.
fn kvm_group(roots: &Roots) -> Option<u32> {
    let meta = roots.path("/dev/kvm").metadata().ok()?;
    let lets_in = meta.mode() & 0o060 == 0o060 && meta.gid() != 0;
    lets_in.then(|| meta.gid())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name() {
        let root = find("root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(!root.groups.contains(&0));
        assert_eq!(find("no-such-user-here"), None);
        assert_eq!(find("a\0b"), None);
    }
}
