//! What to install, in the words of this host's distribution.

use super::os::OsRelease;
use crate::ids::Arch;

/// Something that a distribution packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Package {
    /// QEMU for guests of an architecture.
    Qemu(Arch),
    /// `qemu-img`.
    QemuImg,
    /// UEFI for guests of an architecture.
    Uefi(Arch),
    /// The TPM in software.
    Swtpm,
    /// What serves virtiofs.
    Virtiofsd,
}

/// A family of distributions: how its packages are installed, and the names of [`Package`]'s.
struct Family {
    names: &'static [&'static str],
    install: &'static str,
    qemu: [&'static str; 2],
    img: &'static str,
    uefi: [&'static str; 2],
}

const FAMILIES: &[Family] = &[
    Family {
        names: &["debian", "ubuntu"],
        install: "apt install",
        qemu: ["qemu-system-x86", "qemu-system-arm"],
        img: "qemu-utils",
        uefi: ["ovmf", "qemu-efi-aarch64"],
    },
    Family {
        names: &["fedora"],
        install: "dnf install",
        qemu: ["qemu-system-x86", "qemu-system-aarch64"],
        img: "qemu-img",
        uefi: ["edk2-ovmf", "edk2-aarch64"],
    },
    Family {
        names: &["arch"],
        install: "pacman -S",
        qemu: ["qemu-system-x86", "qemu-system-aarch64"],
        img: "qemu-img",
        uefi: ["edk2-ovmf", "edk2-aarch64"],
    },
    Family {
        names: &["alpine"],
        install: "apk add",
        qemu: ["qemu-system-x86_64", "qemu-system-aarch64"],
        img: "qemu-img",
        uefi: ["ovmf", "aavmf"],
    },
    Family {
        names: &["opensuse", "suse"],
        install: "zypper install",
        qemu: ["qemu-x86", "qemu-arm"],
        img: "qemu-img",
        uefi: ["qemu-ovmf-x86_64", "qemu-uefi-aarch64"],
    },
];

/// The command that installs `package` here, or, on an unknown distribution, what to look for.
pub fn install(os: &OsRelease, package: Package) -> String {
    let index = |arch| match arch {
        Arch::X86_64 => 0,
        Arch::Aarch64 => 1,
    };
    // RHEL and its relatives have one QEMU: of the host's own architecture, under another name.
    let rhel = ["rhel", "centos"].iter().any(|f| os.is_like(f)) && os.id != "fedora";
    if rhel && package == Package::Qemu(Arch::host()) {
        return "`sudo dnf install qemu-kvm`".to_owned();
    }
    let known = FAMILIES
        .iter()
        .find(|f| f.names.iter().any(|n| os.is_like(n)));
    match (known, package) {
        (Some(f), Package::Qemu(arch)) => command(f, f.qemu[index(arch)]),
        (Some(f), Package::QemuImg) => command(f, f.img),
        (Some(f), Package::Uefi(arch)) => command(f, f.uefi[index(arch)]),
        // It has this name everywhere.
        (Some(f), Package::Swtpm) => command(f, "swtpm"),
        // Debian 12's is in a package that comes with QEMU.
        (Some(f), Package::Virtiofsd) => {
            let other = match f.install {
                "apt install" => " (Debian 12: qemu-system-common)",
                _ => "",
            };
            format!("{}{other}", command(f, "virtiofsd"))
        }
        (None, Package::Virtiofsd) => "install virtiofsd (a program named `virtiofsd`)".to_owned(),
        (None, Package::Swtpm) => "install swtpm (a program named `swtpm`)".to_owned(),
        (None, Package::Qemu(arch)) => {
            format!("install QEMU for {arch} guests (a program named `qemu-system-{arch}`)")
        }
        (None, Package::QemuImg) => "install QEMU's tools (a program named `qemu-img`)".to_owned(),
        (None, Package::Uefi(arch)) => {
            format!("install the UEFI firmware of the edk2 project for {arch} guests")
        }
    }
}

fn command(family: &Family, package: &str) -> String {
    format!("`sudo {} {package}`", family.install)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(id: &str, like: &[&str]) -> OsRelease {
        OsRelease {
            id: id.into(),
            like: like.iter().map(|l| (*l).to_owned()).collect(),
            name: String::new(),
        }
    }

    #[test]
    fn each_family_has_its_names() {
        for (id, like, package, words) in [
            (
                "debian",
                &[][..],
                Package::Qemu(Arch::Aarch64),
                "apt install qemu-system-arm`",
            ),
            (
                "linuxmint",
                &["ubuntu", "debian"][..],
                Package::Uefi(Arch::X86_64),
                "apt install ovmf`",
            ),
            ("fedora", &[][..], Package::QemuImg, "dnf install qemu-img`"),
            (
                "rocky",
                &["rhel", "centos", "fedora"][..],
                Package::Qemu(Arch::host()),
                "install qemu-kvm`",
            ),
            (
                "manjaro",
                &["arch"][..],
                Package::Uefi(Arch::Aarch64),
                "pacman -S edk2-aarch64`",
            ),
            ("arch", &[][..], Package::Swtpm, "pacman -S swtpm`"),
            (
                "debian",
                &[][..],
                Package::Virtiofsd,
                "apt install virtiofsd` (Debian 12: qemu-system-common)",
            ),
            (
                "alpine",
                &[][..],
                Package::Qemu(Arch::X86_64),
                "apk add qemu-system-x86_64`",
            ),
            (
                "opensuse-tumbleweed",
                &["opensuse", "suse"][..],
                Package::Qemu(Arch::X86_64),
                "zypper install qemu-x86`",
            ),
            (
                "",
                &[][..],
                Package::Qemu(Arch::X86_64),
                "a program named `qemu-system-x86_64`",
            ),
        ] {
            let said = install(&os(id, like), package);
            assert!(said.contains(words), "{id}: {said}");
        }
    }
}
