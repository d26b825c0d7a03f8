//! What `/dev/kvm` is worth, and what to do about it.

use super::{Finding, Level, Surroundings, allow, finding, has_tcg};
use crate::host::facts::HostFacts;
use crate::host::kvm::{AbsentWhy, KvmState};
use crate::host::node::NodeProblem;

/// The finding on KVM.
pub(super) fn kvm(facts: &HostFacts, around: &Surroundings) -> Finding {
    let reason = &facts.kvm.reason;
    let caps = facts.qemu.get(&facts.arch).and_then(|q| q.caps());
    // Without KVM, guests run slower, or not at all where QEMU cannot emulate.
    let without = if caps.is_none() || has_tcg(facts, facts.arch) {
        Level::Warn
    } else {
        Level::Error
    };
    match facts.kvm.state {
        KvmState::NotAsked => finding("kvm", Level::Info, reason.as_str()),
        KvmState::Healthy if caps.is_some_and(|c| !c.accels.contains("kvm")) => finding(
            "kvm",
            Level::Warn,
            format!("KVM works ({reason}), and this QEMU was built without it"),
        )
        .fix("install a QEMU that was built with KVM"),
        KvmState::Healthy => finding("kvm", Level::Ok, format!("KVM works: {reason}{}", details(facts))),
        KvmState::Slow => finding("kvm", without, format!("KVM is too slow to use: {reason}")).fix(
            "guests use QEMU's own emulation (TCG) instead; for KVM, give this machine hardware-assisted \
             nested virtualisation in the host above, or use a physical machine",
        ),
        KvmState::Broken => finding("kvm", without, format!("KVM does not work: {reason}")).fix(
            "guests use QEMU's own emulation (TCG) instead; the kernel's log (`sudo dmesg | grep -i kvm`) \
             may say more",
        ),
        KvmState::Absent(why) => {
            finding("kvm", without, format!("no KVM: {reason}")).fix(fix(why, facts, around))
        }
    }
}

fn details(facts: &HostFacts) -> String {
    let Some(abilities) = &facts.kvm.abilities else {
        return String::new();
    };
    let mut text = format!(", up to {} virtual CPUs", abilities.max_vcpus);
    if let Some(bits) = abilities.ipa_bits {
        text.push_str(&format!(", {bits} bits of guest addresses"));
    }
    if !abilities.gic_versions.is_empty() {
        let versions: Vec<String> = abilities.gic_versions.iter().map(u8::to_string).collect();
        text.push_str(&format!(", virtual GIC version {}", versions.join(" and ")));
    }
    text
}

fn fix(why: AbsentWhy, facts: &HostFacts, around: &Surroundings) -> String {
    let module = if facts.cpu.virt.svm {
        "kvm_amd"
    } else {
        "kvm_intel"
    };
    match why {
        AbsentWhy::Denied => {
            let group = match &around.kvm_node.why_not {
                Some(NodeProblem::Denied { group, .. }) => group.as_deref(),
                _ => None,
            };
            allow(group, "/dev/kvm", around.user.as_deref())
        }
        AbsentWhy::NoModule => format!(
            "`sudo modprobe {module}`, and for every boot: `echo {module} | sudo tee /etc/modules-load.d/kvm.conf`"
        ),
        AbsentWhy::Disabled | AbsentWhy::NoCpuSupport => {
            "switch on virtualisation in the firmware set-up (Intel VT-x; on AMD: SVM), then switch the \
             machine off and on"
                .to_owned()
        }
        AbsentWhy::NoNesting => {
            "in the host above, load its KVM module with `nested=1` and give this machine the CPU model \
             `host`; clouds offer it for some machine types only"
                .to_owned()
        }
        AbsentWhy::NoEl2 => {
            "use boot firmware that starts Linux at EL2 (without a hypervisor of its own such as Gunyah), \
             and a kernel with CONFIG_KVM"
                .to_owned()
        }
        AbsentWhy::NoNode => {
            "give the container the device, as in `docker run --device /dev/kvm`".to_owned()
        }
        AbsentWhy::Busy => {
            "stop the other hypervisor's guests (VirtualBox, VMware); only one can use the CPU's virtualisation"
                .to_owned()
        }
        AbsentWhy::Other => "see the kernel's log: `sudo dmesg | grep -i kvm`".to_owned(),
    }
}
