//! Where mvm keeps things: configuration, state, run time, cache.
//!
//! Root uses the system's directories, an ordinary user the XDG ones; `MVM_CONFIG_DIR`,
//! `MVM_STATE_DIR`, `MVM_RUNTIME_DIR` and `MVM_CACHE_DIR` override each of them. What guests share of
//! the host's devices is in one place for root and users alike, which `MVM_HOST_DIR` overrides.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::ids::GuestName;

/// The directories. Nothing is created by naming them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    /// `mvm.toml`, `machines/`, `profiles/`: `/etc/mvm` or `$XDG_CONFIG_HOME/mvm`.
    pub config: PathBuf,
    /// The system's configuration, read by users too: `/etc/mvm`, or the same as `config` where
    /// `MVM_CONFIG_DIR` is set.
    pub system_config: PathBuf,
    /// What survives a reboot, a folder a guest, and `images/`: `/var/lib/mvm` or
    /// `$XDG_STATE_HOME/mvm`.
    pub state: PathBuf,
    /// What does not, a folder a guest: `/run/mvm` or `$XDG_RUNTIME_DIR/mvm`.
    pub runtime: PathBuf,
    /// What can be made again: `/var/cache/mvm` or `$XDG_CACHE_HOME/mvm`.
    pub cache: PathBuf,
    /// Who has which device of this host, the same for root and users: `/run/mvm-host`.
    pub host: PathBuf,
}

impl Dirs {
    /// The directories of this process: from its user id and environment.
    pub fn from_env() -> Self {
        Self::new(nix::unistd::Uid::effective().as_raw(), &|name| {
            std::env::var_os(name).filter(|value| !value.is_empty())
        })
    }

    /// The directories of a user with that environment.
    pub fn new(uid: u32, env: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let path = |name: &str| env(name).map(PathBuf::from);
        let home = || path("HOME").unwrap_or_else(|| PathBuf::from("/"));
        let xdg = |name: &str, fallback: &str| {
            path(name)
                .filter(|dir| dir.is_absolute())
                .unwrap_or_else(|| home().join(fallback))
                .join("mvm")
        };
        let system = uid == 0;
        let pick = |name: &str, root: &str, user: &dyn Fn() -> PathBuf| {
            let named = path(name).map(absolute);
            named.unwrap_or_else(|| if system { PathBuf::from(root) } else { user() })
        };
        let config = pick("MVM_CONFIG_DIR", "/etc/mvm", &|| {
            xdg("XDG_CONFIG_HOME", ".config")
        });
        Self {
            system_config: path("MVM_CONFIG_DIR")
                .map_or_else(|| PathBuf::from("/etc/mvm"), absolute),
            config,
            state: pick("MVM_STATE_DIR", "/var/lib/mvm", &|| {
                xdg("XDG_STATE_HOME", ".local/state")
            }),
            // Without a login session there is no XDG_RUNTIME_DIR: a folder of our own under /tmp,
            // which is checked for owner and mode when it is made.
            runtime: pick("MVM_RUNTIME_DIR", "/run/mvm", &|| {
                path("XDG_RUNTIME_DIR")
                    .filter(|dir| dir.is_absolute())
                    .map_or_else(
                        || PathBuf::from(format!("/tmp/mvm-{uid}")),
                        |dir| dir.join("mvm"),
                    )
            }),
            cache: pick("MVM_CACHE_DIR", "/var/cache/mvm", &|| {
                xdg("XDG_CACHE_HOME", ".cache")
            }),
            host: path("MVM_HOST_DIR").map_or_else(|| PathBuf::from("/run/mvm-host"), absolute),
        }
    }

    /// The directory of what guests share of the host's devices: leases, their lock, records.
    pub fn host(&self) -> &Path {
        &self.host
    }

    /// The guest's run-time directory.
    pub fn guest_runtime(&self, name: &GuestName) -> PathBuf {
        self.runtime.join(name.as_str())
    }

    /// The guest's state directory.
    pub fn guest_state(&self, name: &GuestName) -> PathBuf {
        self.state.join(name.as_str())
    }

    /// The image folder that is looked in first.
    pub fn images(&self) -> PathBuf {
        self.state.join("images")
    }

    /// The folders of machine files, most specific first.
    pub fn machines(&self) -> Vec<PathBuf> {
        unique([&self.config, &self.system_config], "machines")
    }

    /// The folders of profiles, most specific first. The built-in ones come after them.
    pub fn profiles(&self) -> Vec<PathBuf> {
        unique([&self.config, &self.system_config], "profiles")
    }
}

/// QEMU, the supervisor and whoever connects to a socket may have other current directories.
fn absolute(path: PathBuf) -> PathBuf {
    // Fails without a current directory only: then the path is wrong either way.
    std::path::absolute(&path).unwrap_or(path)
}

fn unique(dirs: [&Path; 2], below: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = dirs.iter().map(|dir| dir.join(below)).collect();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_users_have_their_own() {
        let none = |_: &str| None;
        assert_eq!(Dirs::new(0, &none).runtime, Path::new("/run/mvm"));
        let user = |name: &str| match name {
            "HOME" => Some(OsString::from("/home/u")),
            "XDG_RUNTIME_DIR" => Some(OsString::from("/run/user/7")),
            "MVM_STATE_DIR" => Some(OsString::from("/srv/state")),
            _ => None,
        };
        let dirs = Dirs::new(7, &user);
        assert_eq!(dirs.config, Path::new("/home/u/.config/mvm"));
        assert_eq!(dirs.runtime, Path::new("/run/user/7/mvm"));
        assert_eq!(dirs.images(), Path::new("/srv/state/images"));
        assert_eq!(dirs.machines().len(), 2);
        assert_eq!(Dirs::new(7, &none).runtime, Path::new("/tmp/mvm-7"));
        assert_eq!(dirs.host(), Dirs::new(0, &none).host());
    }
}
