//! `mvm.toml`: what is true for every guest of this host or user.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::dirs::Dirs;
use crate::error::{ExitCode, Hint};
use crate::ids::Arch;

/// `mvm.toml` of the user over that of the system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// Folders in which images are looked up, after mvm's own.
    pub image_folders: Vec<PathBuf>,
    /// The QEMU program of an architecture, instead of the one in `PATH`.
    pub qemu: BTreeMap<Arch, PathBuf>,
    /// The rights of guests.
    pub security: Security,
    /// What goes with the host's sleep.
    pub sleep: Sleep,
}

/// `[sleep]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Sleep {
    /// The ACPI wake sources (`/proc/acpi/wakeup`) that are enabled while the host sleeps.
    pub wake_sources: Vec<String>,
}

/// `[security]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Security {
    /// The user as whom QEMU runs where the profile does not say.
    pub user: Option<String>,
}

/// `mvm.toml` is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It is there and cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not TOML, or says what mvm does not know.
    #[error("{path} is wrong")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A folder or program that depends on where mvm was started.
    #[error("{path}: `{value}` is not an absolute path")]
    Relative {
        /// The file.
        path: PathBuf,
        /// The value.
        value: PathBuf,
    },
}

impl Hint for SettingsError {
    fn exit_code(&self) -> ExitCode {
        ExitCode::Profile
    }
}

impl Settings {
    /// Reads the files that there are: the user's folders and programs go before the system's.
    ///
    /// # Errors
    /// A file that cannot be read or is wrong.
    pub fn load(dirs: &Dirs) -> Result<Self, SettingsError> {
        let mut settings = Self::read(&dirs.config.join("mvm.toml"))?;
        if dirs.system_config != dirs.config {
            let system = Self::read(&dirs.system_config.join("mvm.toml"))?;
            settings.image_folders.extend(system.image_folders);
            for (arch, binary) in system.qemu {
                settings.qemu.entry(arch).or_insert(binary);
            }
            if settings.sleep.wake_sources.is_empty() {
                settings.sleep = system.sleep;
            }
            let user = &mut settings.security.user;
            *user = user.take().or(system.security.user);
        }
        Ok(settings)
    }

    fn read(path: &Path) -> Result<Self, SettingsError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => {
                return Err(SettingsError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let settings: Self = toml::from_str(&text).map_err(|source| SettingsError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let mut paths = settings.image_folders.iter().chain(settings.qemu.values());
        match paths.find(|path| !path.is_absolute()) {
            Some(value) => Err(SettingsError::Relative {
                path: path.to_owned(),
                value: value.clone(),
            }),
            None => Ok(settings),
        }
    }

    /// The folders in which images are looked up, first one first.
    pub fn image_folders(&self, dirs: &Dirs) -> Vec<PathBuf> {
        let mut folders = vec![dirs.images()];
        for folder in &self.image_folders {
            if !folders.contains(folder) {
                folders.push(folder.clone());
            }
        }
        folders
    }
}

#[cfg(test)]
#[expect(
    clippy::unwrap_used,
    reason = "a test that cannot write its own folder has failed"
)]
mod tests {
    use super::*;

    fn with(text: &str) -> Result<Settings, SettingsError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mvm.toml");
        std::fs::write(&path, text).unwrap();
        Settings::read(&path)
    }

    #[test]
    fn folders_and_programs_are_read() {
        let settings =
            with("image-folders = ['/srv/a']\n[qemu]\naarch64 = '/opt/q/qemu-system-aarch64'\n")
                .unwrap();
        assert_eq!(settings.image_folders, [PathBuf::from("/srv/a")]);
        assert!(settings.qemu.contains_key(&Arch::Aarch64));
    }

    #[test]
    fn what_mvm_does_not_know_is_refused() {
        let error = with("image-folder = []\n").unwrap_err();
        assert!(matches!(error, SettingsError::Parse { .. }), "{error}");
        let error = with("image-folders = ['here']\n").unwrap_err();
        assert!(error.to_string().contains("`here`"), "{error}");
    }
}
