//! `/dev/kvm`: not trusted because it opens.
//!
//! On some nested hosts it opens, virtual machines can be made and run, and every instruction of theirs
//! is emulated. So a loop runs in a throw-away virtual machine and is compared with the same loop run
//! natively just before; natively, because on an emulated host everything is slow and KVM still the best
//! there is.

mod absent;
mod cache;
mod child;
mod vm;
#[cfg(target_arch = "aarch64")]
mod vm_arm;
#[cfg(target_arch = "x86_64")]
mod vm_x86;

pub use child::probe_child;

use serde::{Deserialize, Serialize};

use super::cpu::CpuFacts;
use super::facts::Roots;
use super::node;
use crate::ids::Arch;

/// What the KVM of this host is good for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KvmFacts {
    /// The verdict.
    pub state: KvmState,
    /// One sentence, lower case and without a full stop, that says why.
    pub reason: String,
    /// What the probe measured, where it came that far.
    pub measured: Option<Measured>,
    /// What KVM says of itself.
    pub abilities: Option<Abilities>,
    /// The verdict was reached earlier since this boot, and kept.
    pub cached: bool,
}

/// The verdict on KVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KvmState {
    /// Guests run at about the speed of the host.
    Healthy,
    /// A virtual machine runs, but so slowly that emulation without KVM is better.
    Slow,
    /// It opens, and a virtual machine does not run.
    Broken,
    /// It cannot be used at all.
    Absent(AbsentWhy),
    /// Nobody asked.
    NotAsked,
}

/// Why there is no KVM to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AbsentWhy {
    /// This user may not open `/dev/kvm`.
    Denied,
    /// The CPU can, the kernel module is not loaded.
    NoModule,
    /// The module is loaded and the firmware keeps the CPU's virtualisation switched off.
    Disabled,
    /// The CPU cannot.
    NoCpuSupport,
    /// This machine is a guest whose own host does not offer nested virtualisation.
    NoNesting,
    /// On Arm: the kernel was not started at EL2, another hypervisor is there.
    NoEl2,
    /// The kernel has KVM, this mount namespace (a container) has no node for it.
    NoNode,
    /// Another hypervisor (VirtualBox, VMware) holds the CPU's virtualisation.
    Busy,
    /// None of these.
    Other,
}

/// The same loop, in a throw-away virtual machine and natively.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// Rounds of the loop of two instructions that were asked for.
    pub rounds: u64,
    /// Rounds that the virtual machine completed before its time was up.
    pub guest_rounds: u64,
    /// Nanoseconds in the virtual machine.
    pub guest_ns: u64,
    /// Nanoseconds natively, for all rounds.
    pub native_ns: u64,
}

impl Measured {
    /// How many times slower a round is in the virtual machine.
    pub fn ratio(&self) -> f64 {
        let guest = self.guest_ns as f64 / self.guest_rounds.max(1) as f64;
        let native = self.native_ns.max(1) as f64 / self.rounds.max(1) as f64;
        guest / native
    }
}

/// What KVM's ioctls say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abilities {
    /// The most vCPUs that a guest may have.
    pub max_vcpus: u32,
    /// The number of vCPUs recommended as the most.
    pub recommended_vcpus: u32,
    /// Arm: bits of guest physical addresses.
    pub ipa_bits: Option<u32>,
    /// Arm: versions of the virtual interrupt controller, `2`, `3`.
    pub gic_versions: Vec<u8>,
}

impl KvmFacts {
    /// Opens `/dev/kvm`, and takes the verdict kept since this boot or starts the probe.
    pub fn read(roots: &Roots, cpu: &CpuFacts, kernel: &str, fresh: bool) -> Self {
        // Whether it opens is looked at every time: permissions are this user's and change.
        if let Err(problem) = node::open(&roots.path("/dev/kvm")) {
            return absent::explain(roots, cpu, Arch::host(), &problem);
        }
        let key = cache::Key::of(roots, kernel, cpu.microcode.as_deref());
        let kept = roots.cache.as_deref().zip(key);
        if let Some((dir, key)) = kept.as_ref().filter(|_| !fresh) {
            if let Some(facts) = cache::load(dir, key) {
                return facts;
            }
        }
        let (facts, firm) = child::run();
        if let Some((dir, key)) = kept {
            cache::store(dir, key, &facts, firm);
        }
        facts
    }

    /// Whether `accel = "auto"` should take KVM.
    pub fn usable(&self) -> bool {
        self.state == KvmState::Healthy
    }

    /// For those who did not ask.
    pub fn not_asked() -> Self {
        Self {
            state: KvmState::NotAsked,
            reason: "KVM was not looked at".to_owned(),
            measured: None,
            abilities: None,
            cached: false,
        }
    }
}
