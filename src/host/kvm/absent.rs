//! Why there is no KVM, told without opening it.

use super::{AbsentWhy, KvmFacts, KvmState};
use crate::host::cpu::CpuFacts;
use crate::host::facts::Roots;
use crate::host::node::NodeProblem;
use crate::ids::Arch;

/// Explains why `/dev/kvm` did not open.
pub(super) fn explain(
    roots: &Roots,
    cpu: &CpuFacts,
    arch: Arch,
    problem: &NodeProblem,
) -> KvmFacts {
    let (why, reason) = match problem {
        NodeProblem::Denied { .. } => (AbsentWhy::Denied, format!("/dev/kvm: {problem}")),
        NodeProblem::Missing | NodeProblem::NoDriver => no_node(roots, cpu, arch),
        NodeProblem::Other(text) => (
            AbsentWhy::Other,
            format!("/dev/kvm cannot be opened: {text}"),
        ),
    };
    KvmFacts {
        state: KvmState::Absent(why),
        reason,
        measured: None,
        abilities: None,
        cached: false,
    }
}

fn no_node(roots: &Roots, cpu: &CpuFacts, arch: Arch) -> (AbsentWhy, String) {
    // The kernel's own list of misc devices: what it offers, whatever /dev shows.
    if roots.sysfs.exists("class/misc/kvm") {
        return (
            AbsentWhy::NoNode,
            "the kernel offers KVM, and there is no /dev/kvm here (a container that was not given it?)"
                .to_owned(),
        );
    }
    match arch {
        Arch::X86_64 => no_node_x86(roots, cpu),
        Arch::Aarch64 => no_node_arm(cpu),
    }
}

fn no_node_x86(roots: &Roots, cpu: &CpuFacts) -> (AbsentWhy, String) {
    let (module, feature) = if cpu.virt.vmx {
        ("kvm_intel", "VT-x")
    } else if cpu.virt.svm {
        ("kvm_amd", "AMD-V")
    } else if cpu.virt.hypervisor {
        return (
            AbsentWhy::NoNesting,
            "this machine is itself a virtual machine, and its host does not offer nested virtualisation to it"
                .to_owned(),
        );
    } else {
        return (
            AbsentWhy::NoCpuSupport,
            "the CPU shows neither VT-x nor AMD-V: it has none, or the firmware set-up keeps it switched off"
                .to_owned(),
        );
    };
    if roots.sysfs.exists(format!("module/{module}")) {
        (
            AbsentWhy::Disabled,
            format!(
                "{module} is loaded and offers nothing: the firmware set-up keeps {feature} switched off"
            ),
        )
    } else {
        (
            AbsentWhy::NoModule,
            format!("the CPU has {feature}, and the kernel module {module} is not loaded"),
        )
    }
}

fn no_node_arm(cpu: &CpuFacts) -> (AbsentWhy, String) {
    let above = match &cpu.virt.hypervisor_name {
        Some(name) => format!("`{name}` holds it"),
        None => "another hypervisor or the boot firmware holds it".to_owned(),
    };
    (
        AbsentWhy::NoEl2,
        format!(
            "the kernel offers no KVM: it was built without it, or was not started at EL2 ({above})"
        ),
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use super::*;
    use crate::host::Sysfs;
    use crate::host::cpu::VirtFlags;
    use std::path::Path;

    fn roots(dir: &Path, made: &[&str]) -> Roots {
        for d in made {
            std::fs::create_dir_all(dir.join("sys").join(d)).unwrap();
        }
        Roots {
            sysfs: Sysfs::at(dir.join("sys")),
            root: dir.to_owned(),
            cache: None,
            user_config: None,
            around_devices: None,
            leases: "/nowhere".into(),
        }
    }

    fn cpu(virt: VirtFlags) -> CpuFacts {
        CpuFacts {
            virt,
            ..CpuFacts::default()
        }
    }

    #[test]
    fn each_reason_has_its_own_word() {
        let vmx = VirtFlags {
            vmx: true,
            ..VirtFlags::default()
        };
        let svm = VirtFlags {
            svm: true,
            ..VirtFlags::default()
        };
        let guest = VirtFlags {
            hypervisor: true,
            ..VirtFlags::default()
        };
        let gunyah = VirtFlags {
            hypervisor: true,
            hypervisor_name: Some("qcom,gunyah-hypervisor".into()),
            ..VirtFlags::default()
        };
        let table: &[(&[&str], Arch, VirtFlags, AbsentWhy, &str)] = &[
            (
                &[],
                Arch::X86_64,
                vmx.clone(),
                AbsentWhy::NoModule,
                "kvm_intel is not loaded",
            ),
            (
                &["module/kvm_intel"],
                Arch::X86_64,
                vmx.clone(),
                AbsentWhy::Disabled,
                "VT-x switched off",
            ),
            (
                &["module/kvm_intel"],
                Arch::X86_64,
                svm,
                AbsentWhy::NoModule,
                "kvm_amd is not loaded",
            ),
            (&[], Arch::X86_64, guest, AbsentWhy::NoNesting, "nested"),
            (
                &[],
                Arch::X86_64,
                VirtFlags::default(),
                AbsentWhy::NoCpuSupport,
                "neither VT-x nor AMD-V",
            ),
            (
                &["class/misc/kvm"],
                Arch::X86_64,
                vmx,
                AbsentWhy::NoNode,
                "container",
            ),
            (
                &[],
                Arch::Aarch64,
                gunyah,
                AbsentWhy::NoEl2,
                "`qcom,gunyah-hypervisor` holds it",
            ),
        ];
        for (made, arch, virt, why, words) in table {
            let dir = tempfile::tempdir().unwrap();
            let roots = roots(dir.path(), made);
            let facts = explain(&roots, &cpu(virt.clone()), *arch, &NodeProblem::Missing);
            assert_eq!(facts.state, KvmState::Absent(*why));
            assert!(facts.reason.contains(words), "{}", facts.reason);
        }
    }

    #[test]
    fn a_denied_node_is_not_a_missing_one() {
        let dir = tempfile::tempdir().unwrap();
        let denied = NodeProblem::Denied {
            group: Some("kvm".into()),
            mode: 0o660,
        };
        let facts = explain(
            &roots(dir.path(), &[]),
            &CpuFacts::default(),
            Arch::X86_64,
            &denied,
        );
        assert_eq!(facts.state, KvmState::Absent(AbsentWhy::Denied));
        assert!(facts.reason.contains("the group kvm"), "{}", facts.reason);
    }
}
