//! The kernel and the firmware.

use std::path::{Path, PathBuf};

use super::error::ResolveError;
use super::files::regular;
use super::{Board, BoardKind, Firmware, Kernel, Vars};
use crate::error::{ExitCode, Hint};
use crate::host::firmware::{Descriptor, FlashMode, Interface, Mapping, Target};
use crate::host::images::Images;
use crate::host::{FirmwareFacts, QemuCaps};
use crate::profile::schema::{BootTable, DiskFormat, FirmwareTable, FirmwareWord, Layer};

/// Why there is nothing to start from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootError {
    /// Something that belongs to a kernel, without one.
    #[error("`boot.{0}` is set, and `boot.kernel` is not")]
    NoKernel(&'static str),
    /// Neither firmware nor kernel.
    #[error("there is neither a firmware nor a kernel to start from")]
    Nothing,
    /// This board has no BIOS.
    #[error("the board `{0}` has no BIOS of its own")]
    NoBios(BoardKind),
    /// A variable store's template without its firmware.
    #[error("`firmware.nvram-template` belongs to `firmware.file`, which is not set")]
    TemplateAlone,
    /// A file for no firmware.
    #[error("`firmware.file` is set, and `firmware.type` is `none`")]
    FileForNone,
    /// The host has no UEFI for this board.
    #[error("this host has no UEFI firmware for {machine} that mvm could use")]
    NoUefi {
        /// The machine type.
        machine: String,
        /// The distribution's package.
        package: &'static str,
        /// Descriptors that were found and not used, with the reason.
        notes: Vec<String>,
    },
}

impl Hint for BootError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Nothing => vec![
                "set `firmware.type` to `bios` or `uefi`, or name a kernel in `boot.kernel`"
                    .to_owned(),
            ],
            Self::NoBios(BoardKind::Virt) => {
                vec!["`firmware.type = \"uefi\"`, or a kernel in `boot.kernel`".to_owned()]
            }
            Self::NoUefi { package, notes, .. } => {
                let mut hints = vec![format!(
                    "install it (Debian and Ubuntu: `apt install {package}`), or name an image in `firmware.file`"
                )];
                hints.extend(notes.iter().cloned());
                hints
            }
            _ => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoUefi { .. } => ExitCode::Host,
            _ => ExitCode::Profile,
        }
    }
}

/// The kernel.
pub(super) fn kernel(layer: &Layer, images: &Images) -> Result<Option<Kernel>, ResolveError> {
    let table = layer.boot.clone().unwrap_or_default();
    let BootTable {
        kernel,
        initrd,
        append,
    } = table;
    let Some(kernel) = kernel else {
        return match (initrd, append) {
            (Some(_), _) => Err(BootError::NoKernel("initrd").into()),
            (_, Some(_)) => Err(BootError::NoKernel("append").into()),
            _ => Ok(None),
        };
    };
    Ok(Some(Kernel {
        image: regular(images, "the kernel", &kernel)?,
        initrd: initrd
            .map(|initrd| regular(images, "the initial ramdisk", &initrd))
            .transpose()?,
        append: append.unwrap_or_default(),
    }))
}

/// The firmware. `state_dir` is where the guest's variable store is.
pub(super) fn firmware(
    layer: &Layer,
    board: &Board,
    kernel: Option<&Kernel>,
    caps: &QemuCaps,
    found: &FirmwareFacts,
    images: &Images,
    state_dir: &Path,
) -> Result<Firmware, ResolveError> {
    let table = layer.firmware.clone().unwrap_or_default();
    let word = table.r#type.unwrap_or(match (board.kind, kernel) {
        (BoardKind::Virt, Some(_)) => FirmwareWord::None,
        (BoardKind::Virt, None) => FirmwareWord::Uefi,
        _ if table.nvram_template.is_some() => FirmwareWord::Uefi,
        _ => FirmwareWord::Bios,
    });
    if table.nvram_template.is_some() && table.file.is_none() {
        return Err(BootError::TemplateAlone.into());
    }
    match word {
        FirmwareWord::None if table.file.is_some() => Err(BootError::FileForNone.into()),
        FirmwareWord::None if kernel.is_none() => Err(BootError::Nothing.into()),
        FirmwareWord::None => Ok(Firmware::Builtin),
        FirmwareWord::Bios => match &table.file {
            Some(file) => Ok(Firmware::Bios(regular(images, "the firmware", file)?)),
            None if board.kind == BoardKind::Virt => Err(BootError::NoBios(board.kind).into()),
            None => Ok(Firmware::Builtin),
        },
        FirmwareWord::Uefi => match &table.file {
            Some(file) => own_uefi(&table, file, images, state_dir),
            None => host_uefi(board, caps, found, state_dir),
        },
    }
}

/// The guest's variable store.
fn nvram(state_dir: &Path, format: DiskFormat) -> PathBuf {
    state_dir.join(match format {
        DiskFormat::Raw => "nvram.fd",
        DiskFormat::Qcow2 => "nvram.qcow2",
    })
}

/// An image of the profile's own: in flash beside its variables, or, without any, as `-bios` has it.
fn own_uefi(
    table: &FirmwareTable,
    file: &str,
    images: &Images,
    state_dir: &Path,
) -> Result<Firmware, ResolveError> {
    let code = regular(images, "the firmware", file)?;
    let Some(template) = &table.nvram_template else {
        return Ok(Firmware::Bios(code));
    };
    Ok(Firmware::Flash {
        code_format: format_of(images, file),
        code,
        vars: Some(Vars {
            template: regular(images, "the template of the variable store", template)?,
            path: nvram(state_dir, format_of(images, template)),
            format: format_of(images, template),
        }),
        smm: false,
    })
}

fn format_of(images: &Images, text: &str) -> DiskFormat {
    use crate::host::images::{Content, Look};
    match images.get(text) {
        Some(Look::Found(facts)) if matches!(facts.content, Some(Content::Qcow2 { .. })) => {
            DiskFormat::Qcow2
        }
        _ => DiskFormat::Raw,
    }
}

/// The descriptor of the host that suits best: for this machine, and rather without System Management
/// Mode and without somebody's keys enrolled, which a guest's own kernel would not start under.
fn host_uefi(
    board: &Board,
    caps: &QemuCaps,
    found: &FirmwareFacts,
    state_dir: &Path,
) -> Result<Firmware, ResolveError> {
    let machine = caps
        .machine(&board.machine_type)
        .map_or(board.machine_type.as_str(), |(real, _)| real);
    let picky = |descriptor: &Descriptor| {
        ["requires-smm", "enrolled-keys"]
            .iter()
            .any(|feature| descriptor.features.iter().any(|has| has == feature))
    };
    let suiting = || {
        found
            .descriptors
            .iter()
            .filter(|descriptor| descriptor.interfaces.contains(&Interface::Uefi))
            .filter(|descriptor| {
                let arch = caps.arch.as_str();
                let mut targets = descriptor.targets.iter();
                targets.any(|target| suits(target, arch, machine))
            })
    };
    suiting()
        .filter(|descriptor| !picky(descriptor))
        .chain(suiting())
        .find_map(|descriptor| from_descriptor(descriptor, state_dir))
        .ok_or_else(|| {
            BootError::NoUefi {
                machine: board.machine_type.clone(),
                package: match board.kind {
                    BoardKind::Virt => "qemu-efi-aarch64",
                    _ => "ovmf",
                },
                notes: found.notes.clone(),
            }
            .into()
        })
}

fn suits(target: &Target, arch: &str, machine: &str) -> bool {
    target.architecture == arch && target.machines.iter().any(|glob| matches(glob, machine))
}

/// Whether a name matches a pattern in which `*` stands for anything, as the schema's patterns use it.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(name) = name.strip_prefix(head) else {
        return false;
    };
    (0..=name.len())
        .filter(|at| name.is_char_boundary(*at))
        .any(|at| matches(rest, &name[at..]))
}

/// What a descriptor says, if mvm can use it: one whose variables are in the code's own file, or one
/// that is started as a kernel, it cannot.
fn from_descriptor(descriptor: &Descriptor, state_dir: &Path) -> Option<Firmware> {
    let format = |text: &str| match text {
        "raw" => Some(DiskFormat::Raw),
        "qcow2" => Some(DiskFormat::Qcow2),
        _ => None,
    };
    match &descriptor.mapping {
        Mapping::Memory { filename } => Some(Firmware::Bios(filename.clone())),
        Mapping::Kernel { .. }
        | Mapping::Flash {
            mode: FlashMode::Combined,
            ..
        } => None,
        Mapping::Flash {
            executable,
            nvram_template,
            mode,
        } => {
            let vars = match (mode, nvram_template) {
                (FlashMode::Split, Some(template)) => {
                    let format = format(&template.format)?;
                    Some(Vars {
                        template: template.filename.clone(),
                        path: nvram(state_dir, format),
                        format,
                    })
                }
                _ => None,
            };
            Some(Firmware::Flash {
                code: executable.filename.clone(),
                code_format: format(&executable.format)?,
                vars,
                smm: descriptor.features.iter().any(|has| has == "requires-smm"),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_machine_types() {
        assert!(matches("pc-q35-*", "pc-q35-7.2"));
        assert!(matches("virt-*", "virt-7.2"));
        assert!(matches("*-q35-*.2", "pc-q35-7.2"));
        assert!(matches("microvm", "microvm"));
        assert!(!matches("pc-q35-*", "pc-i440fx-7.2"));
        assert!(!matches("microvm", "microvm2"));
    }
}
