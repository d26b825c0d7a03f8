//! Choosing a firmware.

use std::path::Path;

use super::{Descriptor, FlashMode, Interface, Mapping};
use crate::error::{ExitCode, Hint};
use crate::ids::Arch;

/// What a guest wants of its firmware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirmwareWant {
    /// The guest's architecture.
    pub arch: Arch,
    /// The machine type's real name, `pc-q35-7.2` and not `q35`.
    pub machine: String,
    /// What the guest's first software should find.
    pub interface: Interface,
    /// Start signed software only. Without it, no firmware is taken that enforces this.
    pub secure_boot: bool,
    /// Features that it must have besides, in the schema's words (`amd-sev`).
    pub features: Vec<String>,
}

/// No descriptor suits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no {} firmware for {} guests of type {}{}", name(.want.interface), .want.arch, .want.machine, reasons(.looked))]
pub struct NoFirmware {
    /// What was wanted.
    pub want: FirmwareWant,
    /// What was looked at, and why it does not suit.
    pub looked: Vec<String>,
}

fn name(interface: Interface) -> &'static str {
    match interface {
        Interface::Bios => "BIOS",
        Interface::Uefi => "UEFI",
        Interface::Openfirmware => "Open Firmware",
        Interface::Uboot => "U-Boot",
    }
}

fn reasons(looked: &[String]) -> String {
    match looked {
        [] => " (no descriptor in /etc/qemu/firmware or /usr/share/qemu/firmware has its files)"
            .into(),
        _ => format!(" ({})", looked.join("; ")),
    }
}

impl Hint for NoFirmware {
    fn hints(&self) -> Vec<String> {
        let package = match self.want.arch {
            Arch::X86_64 => "`ovmf` or `edk2-ovmf`",
            Arch::Aarch64 => "`qemu-efi-aarch64` or `edk2-aarch64`",
        };
        vec![format!(
            "install the distribution's package ({package}), or name an image in `firmware.file`"
        )]
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Host
    }
}

/// The best descriptor: of those that suit the first, but rather one that keeps the guest's variables
/// and brings nothing that was not asked for.
pub fn select<'a>(
    descriptors: &'a [Descriptor],
    want: &FirmwareWant,
) -> Result<&'a Descriptor, NoFirmware> {
    let mut looked = Vec::new();
    let mut best: Option<(u32, &Descriptor)> = None;
    for descriptor in descriptors {
        match unsuitable(descriptor, want) {
            Some(why) => looked.push(format!("{}: {why}", short(&descriptor.origin))),
            None => {
                let rank = rank(descriptor, want);
                if best.is_none_or(|(other, _)| rank < other) {
                    best = Some((rank, descriptor));
                }
            }
        }
    }
    match best {
        Some((_, descriptor)) => Ok(descriptor),
        None => Err(NoFirmware {
            want: want.clone(),
            looked,
        }),
    }
}

fn short(origin: &str) -> &str {
    origin.rsplit('/').next().unwrap_or(origin)
}

/// Why a descriptor does not suit, most telling reason first.
fn unsuitable(descriptor: &Descriptor, want: &FirmwareWant) -> Option<String> {
    let has = |feature: &str| descriptor.features.iter().any(|f| f == feature);
    let arch = want.arch.as_str();
    let mut targets = descriptor.targets.iter().filter(|t| t.architecture == arch);
    if !descriptor.interfaces.contains(&want.interface) {
        return Some(format!("not {}", name(want.interface)));
    }
    if targets.clone().next().is_none() {
        return Some(format!("not for {arch}"));
    }
    if !targets.any(|t| t.machines.iter().any(|m| glob(m, &want.machine))) {
        return Some(format!("not for {}", want.machine));
    }
    if let Some(missing) = want.features.iter().find(|f| !has(f)) {
        return Some(format!("lacks {missing}"));
    }
    if want.secure_boot && !(has("secure-boot") && has("enrolled-keys")) {
        return Some("does not enforce secure boot".to_owned());
    }
    if !want.secure_boot && has("enrolled-keys") {
        return Some("starts signed software only".to_owned());
    }
    None
}

/// Lower is better; the order of the descriptors decides between equals.
fn rank(descriptor: &Descriptor, want: &FirmwareWant) -> u32 {
    let has = |feature: &str| descriptor.features.iter().any(|f| f == feature);
    let keeps_variables = match &descriptor.mapping {
        Mapping::Flash { mode, .. } => *mode != FlashMode::Stateless,
        Mapping::Kernel { .. } | Mapping::Memory { .. } => false,
    };
    let unasked = !want.secure_boot && (has("requires-smm") || has("secure-boot"));
    // System Management Mode costs speed at every access to the variables, and needs a q35 machine.
    u32::from(!keeps_variables) * 4
        + u32::from(has("requires-smm") && unasked) * 2
        + u32::from(unasked)
}

/// Whether a name matches a pattern with `*` and `?`.
fn glob(pattern: &str, name: &str) -> bool {
    let (p, n) = (pattern.as_bytes(), name.as_bytes());
    let (mut i, mut j) = (0, 0);
    // Where the last `*` was, and how much it stood for so far.
    let mut star: Option<(usize, usize)> = None;
    while j < n.len() {
        if i < p.len() && p[i] == b'*' {
            star = Some((i, j));
            i += 1;
        } else if i < p.len() && (p[i] == b'?' || p[i] == n[j]) {
            i += 1;
            j += 1;
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            i = at + 1;
            j = taken + 1;
        } else {
            return false;
        }
    }
    p[i..].iter().all(|c| *c == b'*')
}

impl Descriptor {
    /// Every file that it names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let (first, second) = match &self.mapping {
            Mapping::Flash {
                executable,
                nvram_template,
                ..
            } => (
                &executable.filename,
                nvram_template.as_ref().map(|t| &t.filename),
            ),
            Mapping::Kernel { filename } | Mapping::Memory { filename } => (filename, None),
        };
        std::iter::once(first).chain(second).map(|p| p.as_path())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use super::*;
    use crate::host::firmware::{FirmwareFacts, FlashFile, Target};

    fn uefi(origin: &str, machines: &[&str], features: &[&str]) -> Descriptor {
        let file = |name: &str| FlashFile {
            filename: name.into(),
            format: "raw".into(),
        };
        Descriptor {
            origin: format!("/usr/share/qemu/firmware/{origin}"),
            description: String::new(),
            interfaces: vec![Interface::Uefi],
            mapping: Mapping::Flash {
                executable: file("/c"),
                nvram_template: Some(file("/v")),
                mode: FlashMode::Split,
            },
            targets: vec![Target {
                architecture: "x86_64".into(),
                machines: machines.iter().map(|m| (*m).to_owned()).collect(),
            }],
            features: features.iter().map(|f| (*f).to_owned()).collect(),
        }
    }

    fn want(machine: &str) -> FirmwareWant {
        FirmwareWant {
            arch: Arch::X86_64,
            machine: machine.into(),
            interface: Interface::Uefi,
            secure_boot: false,
            features: Vec::new(),
        }
    }

    /// What Debian 12 ships, in its order.
    fn debian() -> Vec<Descriptor> {
        let smm = ["requires-smm", "secure-boot"];
        let keys = ["requires-smm", "secure-boot", "enrolled-keys"];
        vec![
            uefi("40-enrolled", &["pc-q35-*"], &keys),
            uefi("50-secure", &["pc-q35-*"], &smm),
            uefi("60-plain", &["pc-i440fx-*", "pc-q35-*"], &["acpi-s3"]),
        ]
    }

    #[test]
    fn the_plain_one_unless_secure_boot_is_asked_for() {
        let all = debian();
        assert!(
            select(&all, &want("pc-q35-7.2"))
                .unwrap()
                .origin
                .ends_with("60-plain")
        );
        let secure = FirmwareWant {
            secure_boot: true,
            ..want("pc-q35-7.2")
        };
        assert!(
            select(&all, &secure)
                .unwrap()
                .origin
                .ends_with("40-enrolled")
        );
        // With nothing better, one that could do secure boot and has no keys to enforce it with.
        let found = select(&all[..2], &want("pc-q35-7.2")).unwrap();
        assert!(found.origin.ends_with("50-secure"));
    }

    #[test]
    fn the_error_says_what_was_looked_at() {
        let error = select(&debian()[..2], &want("pc-i440fx-7.2")).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("UEFI firmware for x86_64 guests of type pc-i440fx-7.2"),
            "{text}"
        );
        assert!(text.contains("50-secure: not for pc-i440fx-7.2"), "{text}");
        let arm = FirmwareWant {
            arch: Arch::Aarch64,
            ..want("virt-7.2")
        };
        let error = select(&debian(), &arm).unwrap_err();
        assert!(error.to_string().contains("60-plain: not for aarch64"));
        assert!(error.hints()[0].contains("qemu-efi-aarch64"));
        let error = select(&[], &want("pc-q35-7.2")).unwrap_err();
        assert!(error.to_string().contains("/usr/share/qemu/firmware"));
    }

    #[test]
    fn variables_are_kept_where_that_is_possible() {
        let mut stateless = uefi("10-sev", &["pc-q35-*"], &["amd-sev"]);
        stateless.mapping = Mapping::Memory {
            filename: "/sev.fd".into(),
        };
        let all = [stateless, uefi("60-plain", &["pc-q35-*"], &[])];
        assert!(
            select(&all, &want("pc-q35-9.0"))
                .unwrap()
                .origin
                .ends_with("60-plain")
        );
        let sev = FirmwareWant {
            features: vec!["amd-sev".into()],
            ..want("pc-q35-9.0")
        };
        assert!(select(&all, &sev).unwrap().origin.ends_with("10-sev"));
    }

    #[test]
    fn patterns() {
        for (pattern, name, fits) in [
            ("pc-q35-*", "pc-q35-7.2", true),
            ("pc-q35-*", "pc-i440fx-7.2", false),
            ("virt-?.2", "virt-7.2", true),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b", "a-b-c", false),
            ("microvm", "microvm2", false),
        ] {
            assert_eq!(glob(pattern, name), fits, "{pattern} {name}");
        }
    }

    /// What this machine has, if it has anything.
    #[test]
    fn the_firmware_of_this_machine() {
        let facts = FirmwareFacts::read(&crate::host::Roots::host(None));
        if !facts
            .descriptors
            .iter()
            .any(|d| d.origin.contains("edk2-x86_64"))
        {
            return;
        }
        let found = select(&facts.descriptors, &want("pc-q35-7.2")).unwrap();
        assert!(found.files().all(Path::is_file));
        assert!(!found.features.iter().any(|f| f == "enrolled-keys"));
    }
}
