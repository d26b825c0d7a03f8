//! The kernel and the firmware.

use std::path::{Path, PathBuf};

use super::error::ResolveError;
use super::files::regular;
use super::{Board, BoardKind, Firmware, Kernel, Vars};
use crate::error::{ExitCode, Hint};
use crate::host::firmware::{
    Descriptor, FirmwareWant, FlashMode, Interface, Mapping, NoFirmware, select,
};
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
    #[error(transparent)]
    NoUefi(NoFirmware),
    /// It has one that keeps its variables where mvm cannot give each guest its own.
    #[error("the firmware that {0} describes is not code and variables in flash of their own")]
    Unusable(String),
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
            Self::NoUefi(e) => e.hints(),
            Self::Unusable(_) => vec!["name an image in `firmware.file`".to_owned()],
            _ => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoUefi(_) | Self::Unusable(_) => ExitCode::Host,
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
        image: regular(images, "the kernel", "`--kernel ./FILE`", &kernel)?,
        initrd: initrd
            .map(|initrd| regular(images, "the initial ramdisk", "`--initrd ./FILE`", &initrd))
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
            Some(file) => Ok(Firmware::Bios(regular(
                images,
                "the firmware",
                "`firmware.file`",
                file,
            )?)),
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
    let code = regular(images, "the firmware", "`firmware.file`", file)?;
    let Some(template) = &table.nvram_template else {
        return Ok(Firmware::Bios(code));
    };
    Ok(Firmware::Flash {
        code_format: format_of(images, file),
        code,
        vars: Some(Vars {
            template: regular(
                images,
                "the template of the variable store",
                "`firmware.nvram-template`",
                template,
            )?,
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

/// The firmware of the host that suits this machine best.
fn host_uefi(
    board: &Board,
    caps: &QemuCaps,
    found: &FirmwareFacts,
    state_dir: &Path,
) -> Result<Firmware, ResolveError> {
    let machine = caps
        .machine(&board.machine_type)
        .map_or(board.machine_type.as_str(), |(real, _)| real);
    let want = FirmwareWant {
        arch: caps.arch,
        machine: machine.to_owned(),
        interface: Interface::Uefi,
        secure_boot: false,
        features: Vec::new(),
    };
    let descriptor = select(&found.descriptors, &want).map_err(BootError::NoUefi)?;
    let unusable = || BootError::Unusable(descriptor.origin.clone());
    Ok(from_descriptor(descriptor, state_dir).ok_or_else(unusable)?)
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
