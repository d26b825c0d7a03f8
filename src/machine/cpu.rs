//! The processors and the memory.

use std::collections::BTreeMap;

use super::{Accel, AccelKind, Board, BoardKind, Cpu};
use crate::error::{ExitCode, Hint, did_you_mean};
use crate::host::{HostFacts, QemuCaps};
use crate::ids::Arch;
use crate::profile::schema::{CpuTable, Gic, Layer};
use crate::units::Size;

/// Why there are no processors, or no memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CpuError {
    /// A number that is 0.
    #[error("`cpu.{0}` is 0; a guest has at least one")]
    Zero(&'static str),
    /// Count and topology contradict each other.
    #[error("`cpu.count` is {count}, and {topology} make {product}")]
    Product {
        /// The count.
        count: u32,
        /// The topology, in words.
        topology: String,
        /// What they make.
        product: u64,
    },
    /// The count is no multiple of the part of the topology that was given.
    #[error("`cpu.count` is {count}, which is not a multiple of {given}")]
    Multiple {
        /// The count.
        count: u32,
        /// The given part, in words.
        given: String,
    },
    /// More than the board has.
    #[error("{count} processors are more than the {max} that {who} can have")]
    TooMany {
        /// How many were asked for.
        count: u64,
        /// How many there can be.
        max: u32,
        /// Who sets the limit.
        who: String,
    },
    /// A part of the topology that boards of this kind do not have.
    #[error("`cpu.{key}` is for {boards}, not for {board}")]
    NoSuchPart {
        /// The key.
        key: &'static str,
        /// Which boards have it.
        boards: &'static str,
        /// This one.
        board: BoardKind,
    },
    /// A key of x86 processors.
    #[error("`cpu.{0}` is for x86 guests")]
    OnlyX86(&'static str),
    /// This QEMU has no such model.
    #[error("this QEMU ({version}) has no CPU model `{name}` for {arch}")]
    NoModel {
        /// The model.
        name: String,
        /// The architecture.
        arch: Arch,
        /// QEMU's version.
        version: String,
        /// One that is spelt alike.
        near: Option<String>,
    },
    /// A model that needs KVM, without it.
    #[error("the CPU model `{name}` needs KVM, and the guest runs with TCG: {reason}")]
    NeedsKvm {
        /// The model.
        name: String,
        /// Why there is no KVM.
        reason: String,
    },
    /// Too little memory for any guest.
    #[error("`memory.size` is {size}; mvm starts no guest with less than {least}")]
    LittleMemory {
        /// The size.
        size: Size,
        /// The least.
        least: Size,
    },
    /// A size that is no number of pages of any kind.
    #[error("`memory.size` is {0} bytes, not a whole number of mebibytes")]
    OddMemory(u64),
}

impl Hint for CpuError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Product { .. } => {
                vec!["leave `cpu.count` out: the topology makes it".to_owned()]
            }
            Self::NoModel { near, .. } => near
                .iter()
                .map(|near| format!("did you mean `{near}`?"))
                .chain([
                    "`auto` takes the host's own under KVM and the fullest under TCG".to_owned(),
                ])
                .collect(),
            Self::NeedsKvm { .. } => {
                vec!["`cpu.model = \"auto\"` suits both KVM and TCG".to_owned()]
            }
            Self::TooMany { who, .. } if who.contains("GICv2") => {
                vec!["`machine.gic = \"3\"` takes more".to_owned()]
            }
            Self::OddMemory(_) => vec!["write it as in `512M` or `4G`".to_owned()],
            _ => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::NeedsKvm { .. } => ExitCode::Host,
            _ => ExitCode::Profile,
        }
    }
}

/// The processors.
pub(super) fn cpu(
    table: &CpuTable,
    arch: Arch,
    board: &Board,
    accel: &Accel,
    caps: &QemuCaps,
    facts: &HostFacts,
) -> Result<Cpu, CpuError> {
    let mut cpu = topology(table)?;
    parts_of(&cpu, board.kind)?;
    limits(&cpu, board, accel, caps, facts)?;
    cpu.model = model(table, arch, accel, caps)?;
    Ok(cpu)
}

fn topology(table: &CpuTable) -> Result<Cpu, CpuError> {
    let named = [
        ("sockets", table.sockets),
        ("dies", table.dies),
        ("clusters", table.clusters),
        ("cores", table.cores),
        ("threads", table.threads),
    ];
    let zero = |(_, value): &&(_, Option<u32>)| *value == Some(0);
    if let Some((name, _)) = [("count", table.count)].iter().chain(&named).find(zero) {
        return Err(CpuError::Zero(name));
    }
    let product: u64 = named
        .iter()
        .filter_map(|(_, value)| *value)
        .fold(1u64, |all, one| all.saturating_mul(u64::from(one)));
    let too_many = || CpuError::TooMany {
        count: product,
        max: u32::MAX,
        who: "any guest".to_owned(),
    };
    let parts = u32::try_from(product).map_err(|_| too_many())?;
    let count = table.count.unwrap_or(parts);
    // The three that every board has: what is left over goes to one of them.
    let given = [table.sockets, table.cores, table.threads];
    let [mut sockets, mut cores, mut threads] = given.map(|part| part.unwrap_or(1));
    let rest = count / parts;
    if count % parts != 0 || (rest > 1 && !given.contains(&None)) {
        let words = named
            .iter()
            .filter_map(|(name, part)| Some(format!("{} {name}", (*part)?)));
        let words: Vec<String> = words.collect();
        return Err(if given.contains(&None) {
            CpuError::Multiple {
                count,
                given: words.join(" × "),
            }
        } else {
            CpuError::Product {
                count,
                topology: words.join(" of "),
                product,
            }
        });
    }
    // What is left over are cores, as QEMU itself has it; sockets where the cores were given.
    match given {
        [_, None, _] => cores = rest,
        [None, _, _] => sockets = rest,
        [_, _, None] => threads = rest,
        _ => {}
    }
    Ok(Cpu {
        model: String::new(),
        count,
        sockets,
        dies: table.dies.unwrap_or(1),
        clusters: table.clusters.unwrap_or(1),
        cores,
        threads,
        features: BTreeMap::new(),
    })
}

/// QEMU's `-smp` knows them all, and refuses more than one of what its board has none of.
fn parts_of(cpu: &Cpu, board: BoardKind) -> Result<(), CpuError> {
    let no = |key, boards| Err(CpuError::NoSuchPart { key, boards, board });
    match board {
        BoardKind::Q35 | BoardKind::Pc if cpu.clusters > 1 => no("clusters", "virt"),
        BoardKind::Virt if cpu.dies > 1 => no("dies", "q35 and pc"),
        BoardKind::Microvm if cpu.dies > 1 => no("dies", "q35 and pc"),
        BoardKind::Microvm if cpu.clusters > 1 => no("clusters", "virt"),
        _ => Ok(()),
    }
}

fn limits(
    cpu: &Cpu,
    board: &Board,
    accel: &Accel,
    caps: &QemuCaps,
    facts: &HostFacts,
) -> Result<(), CpuError> {
    let board_max = caps
        .machine(&board.machine_type)
        .map(|(_, machine)| machine.cpu_max)
        .filter(|max| *max > 0);
    let kvm_max = match (&facts.kvm.abilities, accel.chosen) {
        (Some(abilities), AccelKind::Kvm) if abilities.max_vcpus > 0 => Some(abilities.max_vcpus),
        _ => None,
    };
    let gic_max = (board.gic == Some(Gic::V2)).then_some(8);
    for (max, who) in [
        (
            board_max,
            format!("the machine type `{}`", board.machine_type),
        ),
        (kvm_max, "a guest of this host's KVM".to_owned()),
        (gic_max, "a guest with GICv2".to_owned()),
    ] {
        match max {
            Some(max) if cpu.count > max => {
                return Err(CpuError::TooMany {
                    count: u64::from(cpu.count),
                    max,
                    who,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

fn model(table: &CpuTable, arch: Arch, accel: &Accel, caps: &QemuCaps) -> Result<String, CpuError> {
    let asked = table.model.as_deref().unwrap_or("auto");
    if asked == "auto" {
        return Ok(match (accel.chosen, arch) {
            (AccelKind::Kvm, _) => "host",
            (AccelKind::Tcg, Arch::X86_64) => "max",
            // Pointer authentication by the architected algorithm costs TCG half its speed.
            (AccelKind::Tcg, Arch::Aarch64) => "max,pauth-impdef=on",
        }
        .to_owned());
    }
    // What follows the comma are features, which QEMU itself judges.
    let name = asked.split(',').next().unwrap_or(asked);
    let known = caps.cpus.get(name);
    let needs_kvm = known.map_or(name == "host", |model| model.needs_kvm);
    if needs_kvm && accel.chosen != AccelKind::Kvm {
        return Err(CpuError::NeedsKvm {
            name: name.to_owned(),
            reason: accel.reason.clone(),
        });
    }
    if known.is_none() && !caps.cpus.is_empty() {
        return Err(CpuError::NoModel {
            name: name.to_owned(),
            arch,
            version: caps.version.to_string(),
            near: did_you_mean(name, caps.cpus.keys().map(String::as_str)).map(str::to_owned),
        });
    }
    Ok(asked.to_owned())
}

/// The memory that a guest has when the profile does not say.
const DEFAULT_MEMORY: Size = Size::mib(1024);
/// The least memory: below this not even a firmware starts.
const LEAST_MEMORY: Size = Size::mib(16);

/// The memory.
pub(super) fn memory(layer: &Layer) -> Result<Size, CpuError> {
    let size = layer
        .memory
        .as_ref()
        .and_then(|memory| memory.size)
        .unwrap_or(DEFAULT_MEMORY);
    if size < LEAST_MEMORY {
        return Err(CpuError::LittleMemory {
            size,
            least: LEAST_MEMORY,
        });
    }
    if size.as_bytes() % Size::mib(1).as_bytes() != 0 {
        return Err(CpuError::OddMemory(size.as_bytes()));
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use super::*;

    fn parts(
        count: Option<u32>,
        sockets: Option<u32>,
        cores: Option<u32>,
        threads: Option<u32>,
    ) -> Result<[u32; 4], CpuError> {
        topology(&CpuTable {
            count,
            sockets,
            cores,
            threads,
            ..CpuTable::default()
        })
        .map(|cpu| [cpu.count, cpu.sockets, cpu.cores, cpu.threads])
    }

    #[test]
    fn what_a_topology_leaves_open_are_cores() {
        assert_eq!(parts(None, None, None, None).unwrap(), [1, 1, 1, 1]);
        assert_eq!(parts(Some(4), None, None, None).unwrap(), [4, 1, 4, 1]);
        assert_eq!(parts(None, None, Some(4), Some(2)).unwrap(), [8, 1, 4, 2]);
        assert_eq!(parts(Some(8), None, None, Some(2)).unwrap(), [8, 1, 4, 2]);
        assert_eq!(parts(Some(8), None, Some(4), None).unwrap(), [8, 2, 4, 1]);
        assert_eq!(
            parts(Some(8), Some(2), Some(2), None).unwrap(),
            [8, 2, 2, 2]
        );
        assert_eq!(parts(Some(8), Some(2), None, None).unwrap(), [8, 2, 4, 1]);
    }

    #[test]
    fn contradictions_name_the_numbers() {
        let error = parts(Some(6), None, Some(4), None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`cpu.count` is 6, which is not a multiple of 4 cores"
        );
        let error = parts(Some(6), Some(1), Some(2), Some(2)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`cpu.count` is 6, and 1 sockets of 2 cores of 2 threads make 4"
        );
        assert!(parts(Some(2), Some(1), Some(2), Some(2)).is_err());
        assert!(parts(Some(8), Some(1), Some(2), Some(2)).is_err());
        assert_eq!(
            parts(Some(0), None, None, None),
            Err(CpuError::Zero("count"))
        );
        let huge = parts(None, Some(1 << 20), Some(1 << 20), Some(1 << 20));
        assert!(matches!(huge, Err(CpuError::TooMany { .. })));
    }
}
