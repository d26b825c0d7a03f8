//! The architecture, the QEMU, the machine type and the accelerator.

use std::collections::BTreeMap;

use super::cpu_options::{is_pc, without_kvm};
use super::iommu::{self, IommuError};
use super::{Accel, AccelKind, Board, BoardKind};
use crate::error::{ExitCode, Hint, did_you_mean};
use crate::host::{HostFacts, KvmState, QemuCaps, QemuFacts};
use crate::ids::Arch;
use crate::profile::schema::{AccelWord, Gic, IommuModel, Irqchip, Layer, MachineTable};

/// Why there is no board.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BoardError {
    /// No QEMU for the guest's architecture.
    #[error("there is no qemu-system-{arch} here (looked for {looked})")]
    NoQemu {
        /// The architecture.
        arch: Arch,
        /// Where it was looked for.
        looked: String,
    },
    /// QEMU does not answer.
    #[error("{binary} could not be asked what it can do: {why}")]
    BadQemu {
        /// The program.
        binary: String,
        /// What happened.
        why: String,
    },
    /// This QEMU has no such machine type.
    #[error("this QEMU ({version}) has no machine type `{name}` for {arch}")]
    NoMachineType {
        /// The type.
        name: String,
        /// The architecture.
        arch: Arch,
        /// QEMU's version.
        version: String,
        /// One that is spelt alike.
        near: Option<String>,
        /// Those that mvm drives.
        known: Vec<String>,
    },
    /// It exists, and mvm does not know how its devices are put in.
    #[error("mvm does not drive the machine type `{name}`")]
    ForeignMachineType {
        /// The type.
        name: String,
        /// Those that mvm drives.
        known: Vec<String>,
    },
    /// `accel = "kvm"` where it is no good.
    #[error("the profile asks for KVM, and {reason}")]
    NoKvm {
        /// Why.
        reason: String,
    },
    /// A QEMU without TCG.
    #[error("this QEMU is built without TCG, and KVM is out: {reason}")]
    NoTcg {
        /// Why KVM is out.
        reason: String,
    },
    /// `gic` on a board that has none.
    #[error("`machine.gic` is for the board `virt`; `{0}` has no GIC")]
    NoGic(String),
    /// KVM cannot give this version.
    #[error("this host's KVM has no GICv{wanted} for guests (it has {has})")]
    KvmGic {
        /// The version.
        wanted: Gic,
        /// What it has.
        has: String,
    },
    /// VMware's port on another board than a PC.
    #[error("`machine.vmport` is for q35 and pc, not for {0}")]
    NoVmport(BoardKind),
    /// The halves of x86 interrupt controllers on another architecture.
    #[error("`machine.irqchip = \"split\"` is for x86 guests")]
    NoSplit,
    /// Another IOMMU that cannot be.
    #[error(transparent)]
    Iommu(#[from] IommuError),
    /// virtio-iommu on the wrong board.
    #[error("`iommu.model = \"virtio\"` is for the boards q35 and virt, not for {0}")]
    NoVirtioIommu(BoardKind),
}

impl Hint for BoardError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::NoQemu { arch, .. } => {
                let package = match arch {
                    Arch::X86_64 => "qemu-system-x86",
                    Arch::Aarch64 => "qemu-system-arm",
                };
                vec![format!(
                    "install it (Debian and Ubuntu: `apt install {package}`), or name it in `qemu.binary`"
                )]
            }
            Self::BadQemu { .. } => vec!["`mvm doctor` shows what it printed".to_owned()],
            Self::NoMachineType {
                name, near, known, arch, ..
            } => {
                let mut hints = Vec::new();
                if let Some(near) = near {
                    hints.push(format!("did you mean `{near}`?"));
                }
                let elsewhere = Arch::ALL
                    .into_iter()
                    .find(|other| other != arch && driven(name, *other));
                if let Some(elsewhere) = elsewhere {
                    hints.push(format!(
                        "`{name}` is a board of {elsewhere}: set `machine.arch = \"{elsewhere}\"`"
                    ));
                }
                hints.push(format!("it has {}", known.join(", ")));
                hints
            }
            Self::ForeignMachineType { known, .. } => {
                vec![format!("it drives {}", known.join(", "))]
            }
            Self::NoKvm { .. } => vec![
                "`mvm doctor` says what to do about it; `machine.accel = \"auto\"` takes TCG instead"
                    .to_owned(),
            ],
            Self::KvmGic { .. } => vec!["leave `machine.gic` out, or set it to `max`".to_owned()],
            Self::Iommu(error) => error.hints(),
            Self::NoTcg { .. }
            | Self::NoGic(_)
            | Self::NoVmport(_)
            | Self::NoSplit
            | Self::NoVirtioIommu(_) => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoQemu { .. }
            | Self::BadQemu { .. }
            | Self::NoKvm { .. }
            | Self::NoTcg { .. }
            | Self::KvmGic { .. } => ExitCode::Host,
            Self::NoMachineType { .. }
            | Self::ForeignMachineType { .. }
            | Self::NoGic(_)
            | Self::NoVmport(_)
            | Self::NoSplit
            | Self::Iommu(_)
            | Self::NoVirtioIommu(_) => ExitCode::Profile,
        }
    }
}

/// Whether a machine type of that name is one that mvm drives on that architecture.
fn driven(name: &str, arch: Arch) -> bool {
    kind_of(name, arch).is_some() || matches!((name, arch), ("q35" | "pc", Arch::X86_64))
}

/// The kind of board behind a machine type's real name.
fn kind_of(real: &str, arch: Arch) -> Option<BoardKind> {
    match arch {
        Arch::X86_64 if real.starts_with("pc-q35-") => Some(BoardKind::Q35),
        Arch::X86_64 if real.starts_with("pc-i440fx-") => Some(BoardKind::Pc),
        Arch::X86_64 if real == "microvm" => Some(BoardKind::Microvm),
        Arch::Aarch64 if real == "virt" || real.starts_with("virt-") => Some(BoardKind::Virt),
        _ => None,
    }
}

/// The guest's architecture and its QEMU.
pub(super) fn qemu<'a>(
    table: &MachineTable,
    facts: &'a HostFacts,
) -> Result<(Arch, &'a QemuCaps), BoardError> {
    let arch = table.arch.unwrap_or(facts.arch);
    match facts.qemu.get(&arch) {
        Some(QemuFacts::Found(caps)) => Ok((arch, caps)),
        Some(QemuFacts::Failed { binary, why }) => Err(BoardError::BadQemu {
            binary: binary.display().to_string(),
            why: why.clone(),
        }),
        missing => {
            let looked = match missing {
                Some(QemuFacts::Missing { looked }) => looked
                    .iter()
                    .map(|path| path.display().to_string())
                    .collect(),
                _ => vec!["nowhere".to_owned()],
            };
            Err(BoardError::NoQemu {
                arch,
                looked: looked.join(", "),
            })
        }
    }
}

/// The machine type of a profile that names none.
pub const fn default_type(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "q35",
        Arch::Aarch64 => "virt",
    }
}

/// The board.
pub(super) fn board(
    layer: &Layer,
    table: &MachineTable,
    arch: Arch,
    caps: &QemuCaps,
    accel: &Accel,
    facts: &HostFacts,
    notes: &mut Vec<String>,
) -> Result<Board, BoardError> {
    let name = table
        .r#type
        .as_deref()
        .unwrap_or_else(|| default_type(arch));
    let Some((real, _)) = caps.machine(name) else {
        return Err(BoardError::NoMachineType {
            name: name.to_owned(),
            arch,
            version: caps.version.to_string(),
            near: did_you_mean(name, types(caps)).map(str::to_owned),
            known: types_told(caps),
        });
    };
    let Some(kind) = kind_of(real, arch) else {
        return Err(BoardError::ForeignMachineType {
            name: name.to_owned(),
            known: types_told(caps),
        });
    };
    let virtio_iommu =
        layer.iommu.as_ref().and_then(|iommu| iommu.model) == Some(IommuModel::Virtio);
    if virtio_iommu && kind.bus() != super::Bus::Pcie {
        return Err(BoardError::NoVirtioIommu(kind));
    }
    let vtd = layer.iommu.clone().unwrap_or_default();
    Ok(Board {
        machine_type: name.to_owned(),
        kind,
        gic: gic(table, kind, accel, facts)?,
        virtio_iommu,
        vmport: vmport(table, kind)?,
        irqchip: iommu::irqchip(&vtd, irqchip(table, kind, accel, notes)?, accel)?,
        iommu: iommu::iommu(&vtd, kind)?,
    })
}

fn vmport(table: &MachineTable, kind: BoardKind) -> Result<bool, BoardError> {
    match table.vmport {
        Some(_) if !is_pc(kind) => Err(BoardError::NoVmport(kind)),
        asked => Ok(asked.unwrap_or(false)),
    }
}

fn irqchip(
    table: &MachineTable,
    kind: BoardKind,
    accel: &Accel,
    notes: &mut Vec<String>,
) -> Result<Option<Irqchip>, BoardError> {
    if table.irqchip == Some(Irqchip::Split) && kind == BoardKind::Virt {
        return Err(BoardError::NoSplit);
    }
    if table.irqchip.is_some() && accel.chosen != AccelKind::Kvm {
        notes.push(without_kvm("`machine.irqchip`"));
        return Ok(None);
    }
    Ok(table.irqchip)
}

/// The machine types of this QEMU that mvm drives: the short names, and the versioned ones.
fn types(caps: &QemuCaps) -> impl Iterator<Item = &str> {
    caps.machines.iter().filter_map(|(name, machine)| {
        let real = machine.alias_of.as_deref().unwrap_or(name);
        kind_of(real, caps.arch).map(|_| name.as_str())
    })
}

/// The same for people: of the versioned ones the oldest and the newest.
fn types_told(caps: &QemuCaps) -> Vec<String> {
    let version = |name: &str| -> Option<Vec<u32>> {
        let (_, version) = name.rsplit_once('-')?;
        version.split('.').map(|part| part.parse().ok()).collect()
    };
    let mut told = Vec::new();
    let mut versioned: BTreeMap<&str, Vec<(Vec<u32>, &str)>> = BTreeMap::new();
    for name in types(caps) {
        match version(name) {
            Some(number) => {
                let family = name.rsplit_once('-').map_or(name, |(family, _)| family);
                versioned.entry(family).or_default().push((number, name));
            }
            None => told.push(name.to_owned()),
        }
    }
    for mut names in versioned.into_values() {
        names.sort();
        match names.as_slice() {
            [(_, oldest), .., (_, newest)] => told.push(format!("{oldest} to {newest}")),
            names => told.extend(names.iter().map(|(_, name)| (*name).to_owned())),
        }
    }
    told
}

fn gic(
    table: &MachineTable,
    kind: BoardKind,
    accel: &Accel,
    facts: &HostFacts,
) -> Result<Option<Gic>, BoardError> {
    if kind != BoardKind::Virt {
        return match table.gic {
            Some(_) => Err(BoardError::NoGic(kind.to_string())),
            None => Ok(None),
        };
    }
    let abilities = facts.kvm.abilities.as_ref();
    let has = match (accel.chosen, abilities) {
        (AccelKind::Kvm, Some(abilities)) => abilities.gic_versions.as_slice(),
        _ => &[],
    };
    let wanted = match table.gic {
        Some(Gic::V2) => 2,
        Some(Gic::V3) => 3,
        // QEMU's `max` is the host's own under KVM. Under TCG it would be what this QEMU's newest is:
        // GICv3, which every guest knows, does not change from version to version.
        Some(Gic::Max) => return Ok(Some(Gic::Max)),
        None if accel.chosen == AccelKind::Kvm => return Ok(Some(Gic::Max)),
        None => return Ok(Some(Gic::V3)),
    };
    if !has.is_empty() && !has.contains(&wanted) {
        let has: Vec<String> = has.iter().map(|version| format!("GICv{version}")).collect();
        return Err(BoardError::KvmGic {
            wanted: table.gic.unwrap_or(Gic::Max),
            has: has.join(", "),
        });
    }
    Ok(table.gic)
}

/// The accelerator.
pub(super) fn accel(
    table: &MachineTable,
    arch: Arch,
    caps: &QemuCaps,
    facts: &HostFacts,
) -> Result<Accel, BoardError> {
    let asked = table.accel.unwrap_or(AccelWord::Auto);
    let tcg = |reason: String| {
        if caps.accels.is_empty() || caps.accels.contains("tcg") {
            Ok(Accel {
                chosen: AccelKind::Tcg,
                reason,
            })
        } else {
            Err(BoardError::NoTcg { reason })
        }
    };
    if asked == AccelWord::Tcg {
        return tcg("the profile asks for TCG".to_owned());
    }
    let against = if arch != facts.arch {
        Some(format!(
            "the guest is {arch} and this host is {}: KVM runs guests of the host's own architecture only",
            facts.arch
        ))
    } else if !caps.accels.is_empty() && !caps.accels.contains("kvm") {
        Some("this QEMU is built without KVM".to_owned())
    } else if facts.kvm.state == KvmState::Healthy {
        None
    } else {
        Some(facts.kvm.reason.clone())
    };
    match (against, asked) {
        (None, _) => Ok(Accel {
            chosen: AccelKind::Kvm,
            reason: facts.kvm.reason.clone(),
        }),
        (Some(reason), AccelWord::Kvm) => Err(BoardError::NoKvm { reason }),
        (Some(reason), _) => tcg(reason),
    }
}
