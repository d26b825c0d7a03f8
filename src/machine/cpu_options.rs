//! What `-cpu` is told beside the model's name.

use super::{AccelKind, BoardKind, Cpu};
use crate::error::{ExitCode, Hint, did_you_mean};
use crate::host::QemuCaps;
use crate::host::qemu::PropertyKind;
use crate::ids::Arch;
use crate::profile::schema::{ClockTable, CpuCache, CpuTable, Irqchip};

/// Features that are keys of their own, or that QEMU's check of features is.
const KEYS: &[(&str, &str)] = &[
    ("pmu", "cpu.pmu"),
    ("migratable", "cpu.migratable"),
    ("kvm", "cpu.hide-hypervisor"),
    ("kvmclock", "clock.kvmclock"),
    ("host-cache-info", "cpu.cache"),
    ("l3-cache", "cpu.cache"),
];

/// An option that the processor cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CpuOptionError {
    /// A key of x86 processors.
    #[error("`{0}` is for x86 guests")]
    OnlyX86(&'static str),
    /// Something of the two models that stand for the host or for everything.
    #[error("`{key}` is for the CPU models `host` and `max`, not for `{model}`")]
    OnlyHostAndMax {
        /// The key.
        key: String,
        /// The model.
        model: String,
    },
    /// A text that cannot be the name of a feature.
    #[error("`cpu.features`: `{0}` is no name of a feature")]
    NoName(String),
    /// A feature that has a key of its own.
    #[error("`cpu.features.{feature}`: that is what `{key}` says")]
    Key {
        /// The feature.
        feature: String,
        /// The key.
        key: String,
    },
    /// This QEMU has no such feature.
    #[error("this QEMU ({version}) has no CPU feature `{name}` for {arch}")]
    NoFeature {
        /// The feature.
        name: String,
        /// The architecture.
        arch: Arch,
        /// QEMU's version.
        version: String,
        /// One that is spelt alike.
        near: Option<String>,
    },
    /// A frequency of nothing.
    #[error("`clock.tsc-frequency` is {0} Hz; it is a number of hertz up to {max}", max = i64::MAX)]
    Frequency(u64),
}

impl Hint for CpuOptionError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::NoFeature { near, arch, .. } => near
                .iter()
                .map(|near| format!("did you mean `{near}`?"))
                .chain([format!(
                    "`qemu-system-{arch} -cpu help` lists them, by QEMU's own names"
                )])
                .collect(),
            _ => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoFeature { .. } => ExitCode::Host,
            _ => ExitCode::Profile,
        }
    }
}

/// What the options depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around<'a> {
    /// The guest's architecture.
    pub(super) arch: Arch,
    /// The accelerator.
    pub(super) accel: AccelKind,
    /// Where KVM's interrupt controllers are, where it was said.
    pub(super) irqchip: Option<Irqchip>,
    /// QEMU.
    pub(super) caps: &'a QemuCaps,
}

/// Adds them to the model.
pub(super) fn add(
    table: &CpuTable,
    clock: &ClockTable,
    around: Around,
    cpu: &mut Cpu,
    notes: &mut Vec<String>,
) -> Result<(), CpuOptionError> {
    let x86 = around.arch == Arch::X86_64;
    let kvm = around.accel == AccelKind::Kvm;
    let model = cpu.model.split(',').next().unwrap_or_default().to_owned();
    let whole = matches!(model.as_str(), "host" | "max");
    for (key, said) in [
        ("cpu.cache", table.cache.is_some()),
        ("cpu.migratable", table.migratable.is_some()),
        ("clock.kvmclock", clock.kvmclock.is_some()),
        ("clock.tsc-frequency", clock.tsc_frequency.is_some()),
    ] {
        if said && !x86 {
            return Err(CpuOptionError::OnlyX86(key));
        }
    }
    let only_whole = |key: &str| CpuOptionError::OnlyHostAndMax {
        key: key.to_owned(),
        model: model.clone(),
    };
    let mut options = Vec::new();
    if let Some(migratable) = table.migratable {
        if !whole {
            return Err(only_whole("cpu.migratable"));
        }
        options.push(switch("migratable", migratable));
    }
    if let Some(pmu) = table.pmu {
        options.push(switch("pmu", pmu));
        if pmu && x86 && !kvm {
            notes.push(without_kvm("`cpu.pmu = true`"));
        }
    }
    match table.cache {
        Some(CpuCache::Passthrough) if !whole => {
            return Err(only_whole("cpu.cache = \"passthrough\""));
        }
        // QEMU's own third level would stand beside the host's.
        Some(CpuCache::Passthrough) => {
            options.extend([switch("host-cache-info", true), switch("l3-cache", false)]);
        }
        Some(emulated) => {
            options.extend(whole.then(|| switch("host-cache-info", false)));
            options.push(switch("l3-cache", emulated == CpuCache::Emulate));
        }
        None => {}
    }
    if let Some(kvmclock) = clock.kvmclock {
        options.push(switch("kvmclock", kvmclock));
        if kvmclock && !kvm {
            notes.push(without_kvm("`clock.kvmclock = true`"));
        }
    }
    if let Some(hertz) = clock.tsc_frequency {
        if hertz == 0 || i64::try_from(hertz).is_err() {
            return Err(CpuOptionError::Frequency(hertz));
        }
        options.push(format!("tsc-frequency={hertz}"));
        if !kvm {
            notes.push(without_kvm("`clock.tsc-frequency`"));
        }
    }
    // KVM offers it and then does without the local APIC that it is for: QEMU aborts.
    let hidden = table.hide_hypervisor == Some(true);
    if x86 && kvm && whole && !hidden && around.irqchip == Some(Irqchip::Off) {
        options.push(switch("kvm-asyncpf-int", false));
    }
    for (name, on) in table.features.iter().flatten() {
        feature(name, around)?;
        options.push(switch(name, *on));
        cpu.features.insert(name.clone(), *on);
    }
    for option in options {
        cpu.model.push(',');
        cpu.model.push_str(&option);
    }
    Ok(())
}

fn switch(name: &str, on: bool) -> String {
    format!("{name}={}", if on { "on" } else { "off" })
}

/// What is said of a key that means something to KVM only: QEMU takes it and does nothing.
pub(super) fn without_kvm(key: &str) -> String {
    format!("{key} means nothing here: only KVM has it, and the guest runs with TCG")
}

/// Whether this QEMU has a feature of that name, as far as it told. A model has what `max` has: the models differ
/// in what is on.
fn feature(name: &str, around: Around) -> Result<(), CpuOptionError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(fits) {
        return Err(CpuOptionError::NoName(name.to_owned()));
    }
    let key = KEYS.iter().find(|(feature, _)| *feature == name);
    let key = key.map(|(_, key)| (*key).to_owned());
    if let Some(key) = key.or_else(|| Some(format!("hyperv.{}", name.strip_prefix("hv-")?))) {
        return Err(CpuOptionError::Key {
            feature: name.to_owned(),
            key,
        });
    }
    // Of Arm's `host` nothing is known: it is there under KVM only, and has features of its own.
    if around.arch == Arch::Aarch64 && around.accel == AccelKind::Kvm {
        return Ok(());
    }
    let class = class(around.arch);
    let known = around.caps.properties_known(class);
    if !known || around.caps.device_property(class, name) == Some(PropertyKind::Bool) {
        return Ok(());
    }
    let bools = around.caps.properties_of(class, PropertyKind::Bool);
    Err(CpuOptionError::NoFeature {
        name: name.to_owned(),
        arch: around.arch,
        version: around.caps.version.to_string(),
        near: did_you_mean(name, bools).map(str::to_owned),
    })
}

/// The type of the model that has everything.
const fn class(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "max-x86_64-cpu",
        Arch::Aarch64 => "max-arm-cpu",
    }
}

/// Whether a board has what PCs have: an HPET, a port of VMware's.
pub(super) const fn is_pc(board: BoardKind) -> bool {
    matches!(board, BoardKind::Q35 | BoardKind::Pc)
}
