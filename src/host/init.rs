//! Which program starts and ends services on this host.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// An init system, or what keeps services running beside a plain one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// systemd.
    Systemd,
    /// OpenRC, on whatever process 1.
    Openrc,
    /// runit.
    Runit,
    /// s6.
    S6,
    /// procd of OpenWrt.
    Procd,
    /// busybox init.
    Busybox,
    /// System V init, and what takes its scripts.
    Sysv,
}

impl Init {
    /// All of them, in the order in which help lists them.
    pub const ALL: [Self; 7] = [
        Self::Systemd,
        Self::Openrc,
        Self::Runit,
        Self::S6,
        Self::Procd,
        Self::Busybox,
        Self::Sysv,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::Openrc => "openrc",
            Self::Runit => "runit",
            Self::S6 => "s6",
            Self::Procd => "procd",
            Self::Busybox => "busybox",
            Self::Sysv => "sysv",
        }
    }

    /// The one of that word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|init| init.as_str() == word)
    }

    /// The one that runs the host of that root directory; `None` where none of them is known by its marks.
    ///
    /// What keeps the services comes before process 1: OpenRC runs on the init of System V and on that of
    /// busybox, which alone say little.
    pub fn detect(root: &Path) -> Option<Self> {
        let there = |path: &str| root.join(path).symlink_metadata().is_ok();
        // As `sd_booted` looks.
        if there("run/systemd/system") {
            return Some(Self::Systemd);
        }
        if there("run/openrc/softlevel") {
            return Some(Self::Openrc);
        }
        let comm = fs::read_to_string(root.join("proc/1/comm")).unwrap_or_default();
        match comm.trim_end() {
            "procd" => return Some(Self::Procd),
            "runit" | "runsvdir" => return Some(Self::Runit),
            "s6-svscan" => return Some(Self::S6),
            _ => {}
        }
        let program = fs::read_link(root.join("proc/1/exe"))
            .or_else(|_| fs::read_link(root.join("sbin/init")))
            .unwrap_or_default();
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("busybox") {
            return Some(Self::Busybox);
        }
        // Not every process called `init` is one that reads scripts: a container's is anything.
        let sysv = comm.trim_end() == "init" && there("etc/inittab") && there("etc/init.d");
        sysv.then_some(Self::Sysv)
    }
}

impl std::fmt::Display for Init {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The version of the systemd that is installed below that root, by the name of its library.
pub fn systemd_version(root: &Path) -> Option<u32> {
    let multiarch = format!("usr/lib/{}-linux-gnu/systemd", std::env::consts::ARCH);
    let folders = [
        "usr/lib/systemd",
        "lib/systemd",
        "usr/lib64/systemd",
        &multiarch,
    ];
    folders.iter().find_map(|folder| {
        let entries = fs::read_dir(root.join(folder)).ok()?;
        entries.flatten().find_map(|entry| {
            let name = entry.file_name();
            let rest = name.to_str()?.strip_prefix("libsystemd-shared-")?;
            let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse().ok()
        })
    })
}

/// Whether that user's services run without a login (`loginctl enable-linger`).
pub fn lingers(root: &Path, user: &str) -> bool {
    root.join("var/lib/systemd/linger").join(user).exists()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)], links: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        for (path, target) in links {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(target, path).unwrap();
        }
        root
    }

    #[test]
    fn each_init_is_known_by_its_marks() {
        let init = ("proc/1/comm", "init\n");
        let inittab = ("etc/inittab", "");
        let found = |files: &[(&str, &str)], links: &[(&str, &str)]| {
            Init::detect(host(files, links).path())
        };
        let systemd = &[("run/systemd/system/x", ""), ("proc/1/comm", "systemd\n")];
        assert_eq!(found(systemd, &[]), Some(Init::Systemd));
        // Alpine: busybox is process 1, OpenRC has the services.
        let alpine = &[("run/openrc/softlevel", "default"), init];
        let busybox = &[("proc/1/exe", "/bin/busybox")];
        assert_eq!(found(alpine, busybox), Some(Init::Openrc));
        assert_eq!(found(&[init, inittab], busybox), Some(Init::Busybox));
        // An unprivileged user may not read where process 1's program is.
        let link = &[("sbin/init", "../bin/busybox.static")];
        assert_eq!(found(&[init], link), Some(Init::Busybox));
        assert_eq!(found(&[("proc/1/comm", "procd\n")], &[]), Some(Init::Procd));
        assert_eq!(found(&[("proc/1/comm", "runit\n")], &[]), Some(Init::Runit));
        assert_eq!(
            found(&[("proc/1/comm", "s6-svscan\n")], &[]),
            Some(Init::S6)
        );
        let sysv = &[init, inittab, ("etc/init.d/README", "")];
        assert_eq!(
            found(sysv, &[("proc/1/exe", "/usr/sbin/init")]),
            Some(Init::Sysv)
        );
        // A container.
        assert_eq!(found(&[("proc/1/comm", "sleep\n")], &[]), None);
    }

    #[test]
    fn words_lead_to_the_init_and_back() {
        for init in Init::ALL {
            assert_eq!(Init::from_word(init.as_str()), Some(init));
            assert_eq!(serde_json::to_value(init).unwrap(), init.as_str());
        }
    }

    #[test]
    fn systemd_tells_its_version_by_its_library() {
        let root = host(&[("usr/lib/systemd/libsystemd-shared-252.so", "")], &[]);
        assert_eq!(systemd_version(root.path()), Some(252));
        let root = host(
            &[("lib/systemd/libsystemd-shared-257.9-1~deb13u1.so", "")],
            &[],
        );
        assert_eq!(systemd_version(root.path()), Some(257));
        assert_eq!(systemd_version(host(&[], &[]).path()), None);
        let root = host(&[("var/lib/systemd/linger/ann", "")], &[]);
        assert!(lingers(root.path(), "ann") && !lingers(root.path(), "bob"));
    }
}
