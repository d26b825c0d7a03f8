//! The user as whom QEMU runs, and what of his rights it needs.

mod error;
mod needs;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{AccelKind, Addition, Firmware, Machine, ResolveError};
use crate::host::UserFacts;
use crate::host::rights::{self, Need, Needed};
use crate::host::users::{Asked, Ids};
use crate::profile::schema::{Layer, SecurityModel};
use needs::{disks, host, needed, one};

pub use error::RunAsError;

/// Another user than the one who runs mvm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RunAs {
    /// The name.
    pub name: String,
    /// The user.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// The other groups: the user's own, and that of `/dev/kvm`.
    pub groups: Vec<u32>,
}

/// The name of the user whom a profile asks for.
pub fn user(layer: &Layer) -> Option<&str> {
    layer.security.as_ref()?.user.as_deref()
}

/// The user whom the profile asks for, unless it is the one who runs mvm.
pub(super) fn resolve(
    layer: &Layer,
    users: &UserFacts,
    accel: AccelKind,
) -> Result<Option<RunAs>, RunAsError> {
    let Some(name) = user(layer) else {
        return Ok(None);
    };
    let asked = users.asked.as_ref().filter(|asked| asked.name == name);
    let Some(Asked {
        found: Some(found), ..
    }) = asked
    else {
        return Err(RunAsError::Nobody(name.to_owned()));
    };
    if found.uid == users.uid {
        return Ok(None);
    }
    if users.uid != 0 {
        return Err(RunAsError::NotRoot(name.to_owned()));
    }
    let mut groups = found.groups.clone();
    let kvm = users.kvm_group.filter(|_| accel == AccelKind::Kvm);
    groups.extend(kvm.filter(|group| *group != found.gid && !found.groups.contains(group)));
    Ok(Some(RunAs {
        name: name.to_owned(),
        uid: found.uid,
        gid: found.gid,
        groups,
    }))
}

/// Shares that another user than root cannot serve.
pub(super) fn check(machine: &Machine) -> Result<(), RunAsError> {
    let Some(user) = &machine.run_as else {
        return Ok(());
    };
    if let Firmware::Flash {
        vars: Some(vars), ..
    } = &machine.firmware
    {
        if !vars.path.starts_with(&machine.state_dir) {
            return Err(RunAsError::Nvram {
                path: vars.path.clone(),
                user: user.name.clone(),
            });
        }
    }
    let passthrough = |model| model == SecurityModel::Passthrough;
    match machine
        .shares
        .iter()
        .find(|share| passthrough(share.security_model))
    {
        Some(share) => Err(RunAsError::Passthrough {
            share: share.id.to_string(),
            user: user.name.clone(),
        }),
        None => Ok(()),
    }
}

impl RunAs {
    fn ids(&self) -> Ids {
        Ids {
            uid: self.uid,
            gid: self.gid,
            groups: self.groups.clone(),
        }
    }

    /// Looks whether the user may open all of that.
    ///
    /// # Errors
    /// What he may not open.
    fn expect(&self, mut needed: Vec<Needed>) -> Result<(), RunAsError> {
        let mut below = Vec::new();
        for Needed { what, path, .. } in &needed {
            if what.starts_with("disk ") {
                below.extend(rights::backing_files(path).into_iter().map(|path| Needed {
                    what: format!("below {what}"),
                    path,
                    need: Need::Read,
                }));
            }
        }
        needed.append(&mut below);
        match rights::denied(&self.ids(), &needed) {
            Ok(denied) if denied.is_empty() => Ok(()),
            Ok(mut denied) => {
                // One directory may be on the way to many files.
                let mut seen: Vec<PathBuf> = Vec::new();
                denied.retain(|no| {
                    let new = !seen.contains(&no.path);
                    seen.push(no.path.clone());
                    new
                });
                Err(RunAsError::Denied {
                    user: self.name.clone(),
                    denied,
                })
            }
            Err(error) => Err(RunAsError::Unknown {
                user: self.name.clone(),
                why: error.to_string(),
            }),
        }
    }
}

impl Machine {
    /// Looks whether the user as whom QEMU runs may open what the guest is made of. It reads the host, as
    /// only the kernel knows what another user may do.
    ///
    /// # Errors
    /// What he may not open.
    pub fn expect_rights(&self) -> Result<(), ResolveError> {
        match &self.run_as {
            Some(user) => Ok(user.expect(needed(self))?),
            None => Ok(()),
        }
    }

    /// The same for one file that QEMU is to read.
    ///
    /// # Errors
    /// What he may not open.
    pub fn expect_rights_to_read(&self, what: &str, path: &Path) -> Result<(), ResolveError> {
        match &self.run_as {
            Some(user) => Ok(user.expect(vec![one(what, path, Need::Read)])?),
            None => Ok(()),
        }
    }

    /// The same for devices that come while the guest runs.
    ///
    /// # Errors
    /// What he may not open.
    pub fn expect_rights_for(&self, addition: &Addition) -> Result<(), ResolveError> {
        let Some(user) = &self.run_as else {
            return Ok(());
        };
        let mut needed = disks(&addition.disks);
        needed.extend(host(&addition.host.devices, addition.iommufd));
        Ok(user.expect(needed)?)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::error::Hint as _;
    use crate::host::rights::Denied;
    use crate::profile::schema::SecurityTable;

    fn layer(user: &str) -> Layer {
        Layer {
            security: Some(SecurityTable {
                user: Some(user.to_owned()),
            }),
            ..Layer::default()
        }
    }

    fn users(uid: u32, found: Option<u32>) -> UserFacts {
        UserFacts {
            uid,
            asked: Some(Asked {
                name: "ann".to_owned(),
                found: found.map(|uid| Ids {
                    uid,
                    gid: 100,
                    groups: vec![7],
                }),
            }),
            kvm_group: Some(104),
            kvm_for_all: false,
        }
    }

    #[test]
    fn only_root_becomes_another_user() {
        let ann = layer("ann");
        let as_ann = |users: &UserFacts, accel| resolve(&ann, users, accel);
        let user = as_ann(&users(0, Some(1000)), AccelKind::Tcg).unwrap();
        assert_eq!(user.unwrap().groups, [7]);
        // Its node is for that group.
        let user = as_ann(&users(0, Some(1000)), AccelKind::Kvm).unwrap();
        assert_eq!(user.unwrap().groups, [7, 104]);
        assert_eq!(as_ann(&users(1000, Some(1000)), AccelKind::Tcg), Ok(None));
        assert_eq!(as_ann(&users(0, Some(0)), AccelKind::Tcg), Ok(None));
        let refused = |users: &UserFacts| as_ann(users, AccelKind::Tcg).unwrap_err();
        assert_eq!(
            refused(&users(1001, Some(1000))),
            RunAsError::NotRoot("ann".to_owned())
        );
        assert_eq!(
            refused(&users(0, None)),
            RunAsError::Nobody("ann".to_owned())
        );
        let nobody_asks = resolve(&Layer::default(), &users(0, None), AccelKind::Kvm);
        assert_eq!(nobody_asks, Ok(None));
    }

    #[test]
    fn each_way_that_is_closed_has_a_fix() {
        let denied = |path: &str, need| Denied {
            what: "disk `a`".to_owned(),
            path: path.into(),
            need,
        };
        let error = RunAsError::Denied {
            user: "ann".to_owned(),
            denied: vec![
                denied("/srv", Need::Search),
                denied("/srv/a b", Need::Write),
                denied("/dev/kvm", Need::Write),
            ],
        };
        assert_eq!(
            error.to_string(),
            "the user `ann`, as whom QEMU is to run, may not search the directory /srv (disk `a`)"
        );
        let hints = error.hints();
        assert!(hints[0].starts_with("`chmod o+x /srv`"), "{hints:?}");
        assert!(hints[1].contains("chown ann '/srv/a b'"), "{hints:?}");
        assert!(hints[2].contains("chgrp GROUP /dev/kvm"), "{hints:?}");
    }
}
