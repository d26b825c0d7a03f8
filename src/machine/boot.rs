//! The kernel and the firmware.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

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
use crate::units::Span;

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
    /// A key that belongs to an image of the profile's own.
    #[error("`firmware.{0}` belongs to `firmware.file`, which is not set")]
    FileAlone(&'static str),
    /// Secure boot without UEFI.
    #[error("`firmware.secure-boot` is for `firmware.type = \"uefi\"`")]
    SecureBios,
    /// Keys are in the variable store.
    #[error(
        "`firmware.secure-boot` with `firmware.file` needs `firmware.nvram-template`, where the keys are enrolled"
    )]
    NoKeys,
    /// The board has no System Management Mode.
    #[error("`firmware.smm`: the board {0} has no System Management Mode")]
    NoSmm(BoardKind),
    /// A variable store for a firmware without one.
    #[error("`firmware.nvram` is set, and the firmware keeps no variables")]
    NoVariables,
    /// A path that would depend on where mvm was started.
    #[error("`firmware.nvram`: {0:?} is not an absolute path")]
    RelativeNvram(String),
    /// The menu's time has a limit (16 bits of milliseconds).
    #[error("`boot.menu-timeout` is {0}; the firmware counts up to 65 s")]
    MenuTimeout(Span),
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
            Self::SecureBios => vec!["set that, or leave `secure-boot` out".to_owned()],
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
        ..
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
        _ if table.nvram_template.is_some() || table.secure_boot == Some(true) => {
            FirmwareWord::Uefi
        }
        _ => FirmwareWord::Bios,
    });
    if table.nvram_template.is_some() && table.file.is_none() {
        return Err(BootError::TemplateAlone.into());
    }
    if table.smm.is_some() && table.file.is_none() {
        return Err(BootError::FileAlone("smm").into());
    }
    if table.smm == Some(true) && board.kind != BoardKind::Q35 {
        return Err(BootError::NoSmm(board.kind).into());
    }
    if table.secure_boot == Some(true) && word != FirmwareWord::Uefi {
        return Err(BootError::SecureBios.into());
    }
    let found = match word {
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
            Some(file) => own_uefi(&table, file, board.kind, images, state_dir),
            None => host_uefi(&table, board, caps, found, state_dir),
        },
    }?;
    elsewhere(&table, found)
}

/// The firmware with the guest's variables where the profile has them.
fn elsewhere(table: &FirmwareTable, found: Firmware) -> Result<Firmware, ResolveError> {
    let Some(asked) = &table.nvram else {
        return Ok(found);
    };
    if !Path::new(asked).is_absolute() {
        return Err(BootError::RelativeNvram(asked.chars().take(200).collect()).into());
    }
    match found {
        Firmware::Flash {
            code,
            code_format,
            vars: Some(vars),
            smm,
        } => Ok(Firmware::Flash {
            code,
            code_format,
            vars: Some(Vars {
                path: asked.into(),
                ..vars
            }),
            smm,
        }),
        _ => Err(BootError::NoVariables.into()),
    }
}

/// What the firmware offers before it boots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct BootMenu {
    /// Whether there is a menu.
    pub menu: bool,
    /// How long it waits, in milliseconds.
    pub timeout_ms: Option<u16>,
    /// The picture that is shown.
    pub splash: Option<PathBuf>,
    /// Whether anything may be booted from, and not only what has a place in the boot order.
    pub any: bool,
}

/// What the profile says of it.
pub(super) fn menu(layer: &Layer, images: &Images) -> Result<BootMenu, ResolveError> {
    let table = layer.boot.clone().unwrap_or_default();
    let timeout_ms = match table.menu_timeout {
        None => None,
        Some(span) => Some(
            u16::try_from(span.duration().as_millis()).map_err(|_| BootError::MenuTimeout(span))?,
        ),
    };
    let splash = table.splash.as_deref();
    let splash = splash.map(|file| regular(images, "the picture", "`boot.splash`", file));
    Ok(BootMenu {
        menu: table.menu.unwrap_or(false),
        timeout_ms,
        splash: splash.transpose()?,
        any: table.strict == Some(false),
    })
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
    board: BoardKind,
    images: &Images,
    state_dir: &Path,
) -> Result<Firmware, ResolveError> {
    let code = regular(images, "the firmware", "`firmware.file`", file)?;
    let secure = table.secure_boot == Some(true);
    let Some(template) = &table.nvram_template else {
        if secure {
            return Err(BootError::NoKeys.into());
        }
        if table.smm == Some(true) {
            // What it guards is in flash.
            return Err(BootError::NoVariables.into());
        }
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
        smm: table.smm.unwrap_or(secure && board == BoardKind::Q35),
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
    table: &FirmwareTable,
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
        secure_boot: table.secure_boot == Some(true),
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
