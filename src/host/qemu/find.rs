//! Where QEMU is.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::host::facts::{Needs, Roots};
use crate::ids::Arch;

/// The environment variable that names the QEMU of an architecture.
pub fn variable(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "MVM_QEMU_X86_64",
        Arch::Aarch64 => "MVM_QEMU_AARCH64",
    }
}

/// The QEMU for `arch`, or every place that was looked at.
///
/// A binary that is named (profile, environment, configuration) is the one or there is none: another one must
/// not slip in when the name is wrong.
pub(super) fn find(roots: &Roots, needs: &Needs, arch: Arch) -> Result<PathBuf, Vec<PathBuf>> {
    let from_env = std::env::var_os(variable(arch)).filter(|v| !v.is_empty());
    let of_profile = needs.profile_binary.get(&arch).cloned();
    let named = of_profile
        .or_else(|| from_env.map(PathBuf::from))
        .or_else(|| needs.qemu_binary.get(&arch).cloned());
    let path = std::env::var_os("PATH").unwrap_or_default();
    search(roots, arch, named.as_deref(), &path)
}

fn search(
    roots: &Roots,
    arch: Arch,
    named: Option<&Path>,
    path: &OsStr,
) -> Result<PathBuf, Vec<PathBuf>> {
    let dirs: Vec<PathBuf> = std::env::split_paths(path)
        .filter(|d| d.is_absolute())
        .collect();
    let in_path = |name: &Path| dirs.iter().map(|d| d.join(name)).collect::<Vec<_>>();
    let candidates = match named {
        Some(named) if named.components().count() > 1 || named.is_absolute() => {
            vec![named.to_owned()]
        }
        Some(name) => in_path(name),
        None => {
            let mut all = in_path(Path::new(&format!("qemu-system-{arch}")));
            if arch == Arch::host() {
                // Where Fedora's relatives and Debian's keep the QEMU of the host's own kind.
                all.push("/usr/libexec/qemu-kvm".into());
                all.push("/usr/bin/kvm".into());
            }
            all
        }
    };
    let found = candidates.iter().find(|c| is_program(&roots.path(c)));
    match found {
        Some(found) => Ok(roots.path(found)),
        None => Err(candidates),
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use super::*;
    use crate::host::Sysfs;

    fn host(programs: &[(&str, u32)]) -> (tempfile::TempDir, Roots) {
        let dir = tempfile::tempdir().unwrap();
        for (path, mode) in programs {
            let at = dir.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(at.parent().unwrap()).unwrap();
            std::fs::write(&at, "").unwrap();
            std::fs::set_permissions(&at, std::fs::Permissions::from_mode(*mode)).unwrap();
        }
        let roots = Roots {
            sysfs: Sysfs::at(dir.path().join("sys")),
            root: dir.path().to_owned(),
            cache: None,
            user_config: None,
            around_devices: None,
            leases: "/nowhere".into(),
        };
        (dir, roots)
    }

    #[test]
    fn the_path_comes_before_the_other_places() {
        let arch = Arch::host();
        let name = format!("/opt/bin/qemu-system-{arch}");
        let (_dir, roots) = host(&[(&name, 0o755), ("/usr/libexec/qemu-kvm", 0o755)]);
        let path = OsStr::new("relative:/none:/opt/bin");
        assert_eq!(search(&roots, arch, None, path), Ok(roots.path(&name)));
        let none = OsStr::new("/none");
        assert_eq!(
            search(&roots, arch, None, none),
            Ok(roots.path("/usr/libexec/qemu-kvm"))
        );
    }

    #[test]
    fn a_named_binary_is_that_one_or_none() {
        let arch = Arch::host();
        let name = format!("/opt/bin/qemu-system-{arch}");
        let (_dir, roots) = host(&[(&name, 0o755), ("/opt/q/qemu", 0o644)]);
        let path = OsStr::new("/opt/bin");
        let wrong = Path::new("/opt/q/qemu");
        assert_eq!(
            search(&roots, arch, Some(wrong), path),
            Err(vec![wrong.to_owned()])
        );
        let by_name = format!("qemu-system-{arch}");
        let found = search(&roots, arch, Some(Path::new(&by_name)), path);
        assert_eq!(found, Ok(roots.path(&name)));
    }

    #[test]
    fn the_other_architecture_has_no_kvm_binary() {
        let other = if Arch::host() == Arch::X86_64 {
            Arch::Aarch64
        } else {
            Arch::X86_64
        };
        let (_dir, roots) = host(&[("/usr/bin/kvm", 0o755)]);
        let looked = search(&roots, other, None, OsStr::new("/bin")).unwrap_err();
        assert_eq!(looked, [PathBuf::from(format!("/bin/qemu-system-{other}"))]);
    }
}
