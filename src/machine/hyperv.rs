//! What KVM offers Windows guests in the way of Hyper-V. What needs what is in QEMU's `docs/system/i386/hyperv.rst`.

use super::cpu_options::Around;
use super::{AccelKind, Cpu};
use crate::error::{ExitCode, Hint};
use crate::host::CpuFacts;
use crate::ids::Arch;
use crate::profile::schema::{HypervTable, Irqchip};

/// The fewest tries for a spinlock: Hyper-V's interface knows no less.
const LEAST_SPINLOCKS: u32 = 4095;
/// The longest vendor, in bytes: three registers of CPUID.
const VENDOR: usize = 12;

/// Which needs which others.
const NEEDS: &[(&str, &[&str])] = &[
    ("synic", &["vpindex"]),
    ("stimer", &["vpindex", "synic", "time"]),
    ("stimer-direct", &["stimer"]),
    ("tlbflush", &["vpindex"]),
    ("ipi", &["vpindex"]),
    ("evmcs", &["vapic"]),
];

/// Enlightenments that the guest cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HypervError {
    /// Another architecture.
    #[error("`[hyperv]` is for x86 guests")]
    OnlyX86,
    /// One without what it needs.
    #[error("`hyperv.{what}` needs {}", keys(missing))]
    Needs {
        /// The enlightenment.
        what: &'static str,
        /// What is missing.
        missing: Vec<&'static str>,
    },
    /// Too few tries.
    #[error("`hyperv.spinlocks` is {0}; it is {LEAST_SPINLOCKS} or more")]
    Spinlocks(u32),
    /// A vendor that does not fit.
    #[error("`hyperv.vendor-id` is {0:?}; it is 1 to {VENDOR} ASCII characters without a comma")]
    Vendor(String),
    /// Nested guests of Intel's kind on another's processor.
    #[error("`hyperv.evmcs` is for Intel's processors, and this host's is {0}")]
    Evmcs(String),
    /// The interrupts of Hyper-V's timers and messages go through KVM's local APICs.
    #[error(
        "`hyperv.synic` needs the local APICs of the kernel, which `machine.irqchip = \"off\"` does without"
    )]
    NoApics,
}

fn keys(missing: &[&str]) -> String {
    let keys: Vec<String> = missing
        .iter()
        .map(|key| format!("`hyperv.{key}`"))
        .collect();
    keys.join(" and ")
}

impl Hint for HypervError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Needs { missing, .. } => vec![format!(
                "set {} = true as well; libvirt's name for `time` is the timer `hypervclock`",
                keys(missing)
            )],
            Self::NoApics => {
                vec!["leave `machine.irqchip` out, or let it be `split`".to_owned()]
            }
            _ => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Evmcs(_) => ExitCode::Host,
            _ => ExitCode::Profile,
        }
    }
}

/// Those that are on or off, with QEMU's names, in QEMU's order.
fn switches(table: &HypervTable) -> [(&'static str, Option<bool>); 14] {
    [
        ("relaxed", table.relaxed),
        ("vapic", table.vapic),
        ("vpindex", table.vpindex),
        ("runtime", table.runtime),
        ("synic", table.synic),
        ("time", table.time),
        ("stimer", table.stimer),
        ("stimer-direct", table.stimer_direct),
        ("reset", table.reset),
        ("frequencies", table.frequencies),
        ("reenlightenment", table.reenlightenment),
        ("tlbflush", table.tlbflush),
        ("ipi", table.ipi),
        ("evmcs", table.evmcs),
    ]
}

/// Adds them to the model.
pub(super) fn add(
    table: &HypervTable,
    around: Around,
    host: &CpuFacts,
    cpu: &mut Cpu,
    notes: &mut Vec<String>,
) -> Result<(), HypervError> {
    if table.enabled == Some(false) {
        return Ok(());
    }
    let switches = switches(table);
    let on = |key: &str| switches.contains(&(key, Some(true)));
    let mut options: Vec<String> = switches
        .iter()
        .filter(|(_, value)| *value == Some(true))
        .map(|(key, _)| format!(",hv-{key}=on"))
        .collect();
    if let Some(tries) = table.spinlocks {
        if tries < LEAST_SPINLOCKS {
            return Err(HypervError::Spinlocks(tries));
        }
        options.push(format!(",hv-spinlocks={tries}"));
    }
    if let Some(vendor) = &table.vendor_id {
        let fits = |byte: u8| (byte.is_ascii_graphic() || byte == b' ') && byte != b',';
        if vendor.is_empty() || vendor.len() > VENDOR || !vendor.bytes().all(fits) {
            return Err(HypervError::Vendor(vendor.clone()));
        }
        options.push(format!(",hv-vendor-id={vendor}"));
    }
    for (what, needs) in NEEDS.iter().filter(|(what, _)| on(what)) {
        let missing: Vec<&str> = needs.iter().copied().filter(|need| !on(need)).collect();
        if !missing.is_empty() {
            return Err(HypervError::Needs { what, missing });
        }
    }
    if options.is_empty() {
        return Ok(());
    }
    if around.arch != Arch::X86_64 {
        return Err(HypervError::OnlyX86);
    }
    if around.accel != AccelKind::Kvm {
        // QEMU takes them there, but for one, and the guest sees none of them.
        notes.push(
            "`[hyperv]` is left out: only KVM has it, and the guest runs with TCG".to_owned(),
        );
        return Ok(());
    }
    if on("evmcs") && !host.vendor.is_empty() && host.vendor != "GenuineIntel" {
        return Err(HypervError::Evmcs(host.vendor.clone()));
    }
    if on("synic") && around.irqchip == Some(Irqchip::Off) {
        return Err(HypervError::NoApics);
    }
    for option in options {
        cpu.model.push_str(&option);
    }
    Ok(())
}
