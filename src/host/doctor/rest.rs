//! All that is not KVM.

use super::{Finding, Level, Surroundings, allow, finding};
use crate::host::facts::HostFacts;
use crate::host::firmware::{FirmwareWant, Interface, select};
use crate::host::memory::HugepagePool;
use crate::host::node::{DeviceNode, NodeProblem};
use crate::host::packages::{Package, install};
use crate::host::programs::Programs;
use crate::host::qemu::{QemuCaps, QemuFacts, Version};
use crate::ids::Arch;

/// The oldest QEMU that mvm is tested with.
const TESTED: Version = Version(7, 2, 0);

/// With less, hardly a guest fits.
const LITTLE_MEMORY: u64 = 1 << 30;

pub(super) fn cpu(facts: &HostFacts) -> Finding {
    let cpu = &facts.cpu;
    // An x86 model's name begins with the maker's; Arm's are bare (`Cortex-A76`).
    let vendor = if facts.arch == Arch::X86_64 && !cpu.model.is_empty() {
        ""
    } else {
        &cpu.vendor
    };
    let name = [vendor, cpu.model.as_str()];
    let name: Vec<&str> = name.into_iter().filter(|n| !n.is_empty()).collect();
    let plural = if cpu.online == 1 { "" } else { "s" };
    let text = format!(
        "{} CPU{plural}, {} ({}), Linux {}",
        cpu.online,
        name.join(" "),
        facts.arch,
        facts.kernel
    );
    finding("cpu", Level::Info, text)
}

pub(super) fn memory(facts: &HostFacts) -> Finding {
    let memory = &facts.memory;
    let text = format!(
        "{} of memory, {} available",
        human(memory.total),
        human(memory.available)
    );
    if memory.available < LITTLE_MEMORY {
        return finding("memory", Level::Warn, text)
            .fix("stop what uses memory, or give guests little of it (`memory.size`)");
    }
    finding("memory", Level::Ok, text)
}

/// Bytes with one digit after the point.
fn human(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib >= 1024.0 {
        format!("{:.1} GiB", mib / 1024.0)
    } else {
        format!("{mib:.0} MiB")
    }
}

pub(super) fn hugepages(facts: &HostFacts) -> Option<Finding> {
    let used = |p: &&HugepagePool| p.total > 0;
    let pools: Vec<String> = facts
        .memory
        .hugepages
        .iter()
        .filter(used)
        .map(|p| format!("{} of {} pages of {} free", p.free, p.total, human(p.size)))
        .collect();
    let text = format!("huge pages: {}", pools.join(", "));
    (!pools.is_empty()).then(|| finding("hugepages", Level::Info, text))
}

pub(super) fn clusters(facts: &HostFacts) -> Option<Finding> {
    let clusters = &facts.cpu.clusters;
    let mut kinds: Vec<_> = clusters.iter().map(|c| (c.midr, c.capacity)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    if kinds.len() < 2 {
        return None;
    }
    let cpus: Vec<String> = clusters
        .iter()
        .map(|c| {
            let list: Vec<String> = c.cpus.iter().map(u32::to_string).collect();
            list.join(" ")
        })
        .collect();
    let text = format!("{} kinds of core: CPUs {}", kinds.len(), cpus.join(" | "));
    let fix =
        "keep a guest with CPU model `host` on the cores of one kind: `cpu.host-cpus = \"big\"`";
    Some(finding("cpu-clusters", Level::Info, text).fix(fix))
}

pub(super) fn qemu(facts: &HostFacts, arch: Arch, found: &QemuFacts) -> Finding {
    let id = format!("qemu-{arch}");
    // Guests of another architecture are an extra.
    let own = arch == facts.arch;
    match found {
        QemuFacts::Found(caps) => {
            let text = format!(
                "QEMU {} for {arch} guests: {}",
                caps.version,
                caps.binary.display()
            );
            if caps.version < TESTED {
                let text = format!("{text}; mvm is tested with {TESTED} and later");
                return finding(id, Level::Warn, text).fix(install(&facts.os, Package::Qemu(arch)));
            }
            finding(id, Level::Ok, text)
        }
        QemuFacts::Missing { looked } => {
            let level = if own { Level::Error } else { Level::Info };
            let looked: Vec<String> = looked.iter().map(|p| p.display().to_string()).collect();
            let text = format!(
                "no QEMU for {arch} guests (looked for {})",
                looked.join(", ")
            );
            finding(id, level, text).fix(install(&facts.os, Package::Qemu(arch)))
        }
        QemuFacts::Failed { binary, why } => {
            let level = if own { Level::Error } else { Level::Warn };
            let text = format!("{} does not work: {why}", binary.display());
            finding(id, level, text).fix(install(&facts.os, Package::Qemu(arch)))
        }
    }
}

pub(super) fn firmware(facts: &HostFacts, arch: Arch, caps: &QemuCaps) -> Finding {
    let alias = match arch {
        Arch::X86_64 => "q35",
        Arch::Aarch64 => "virt",
    };
    let want = FirmwareWant {
        arch,
        machine: caps
            .machine(alias)
            .map_or(alias, |(real, _)| real)
            .to_owned(),
        interface: Interface::Uefi,
        secure_boot: false,
        features: Vec::new(),
    };
    let id = format!("firmware-{arch}");
    match select(&facts.firmware.descriptors, &want) {
        Ok(found) => {
            let code = found.files().next().map(|f| f.display().to_string());
            let text = format!(
                "UEFI for {arch} guests: {}",
                code.unwrap_or_else(|| found.description.clone())
            );
            finding(id, Level::Ok, text)
        }
        Err(_) => finding(id, Level::Warn, format!("no UEFI for {arch} guests"))
            .fix(install(&facts.os, Package::Uefi(arch))),
    }
}

pub(super) fn qemu_img(facts: &HostFacts, around: &Surroundings) -> Finding {
    match &around.qemu_img {
        Some(path) => finding(
            "qemu-img",
            Level::Ok,
            format!("qemu-img: {}", path.display()),
        ),
        None => finding(
            "qemu-img",
            Level::Warn,
            "no qemu-img: `mvm disk` and ephemeral disks need it",
        )
        .fix(install(&facts.os, Package::QemuImg)),
    }
}

/// The programs beside QEMU, which some guests need.
pub(super) fn helpers(facts: &HostFacts, programs: &Programs) -> [Finding; 2] {
    let virtiofsd = programs.virtiofsd.as_ref().map(|found| &found.path);
    [
        (
            "swtpm",
            programs.swtpm.as_ref(),
            "no swtpm: guests cannot have a TPM in software, which windows11 and android ask for",
            Package::Swtpm,
        ),
        (
            "virtiofsd",
            virtiofsd,
            "no virtiofsd: folders are shared by 9p, which is slower",
            Package::Virtiofsd,
        ),
    ]
    .map(|(id, found, missing, package)| match found {
        Some(path) => finding(id, Level::Ok, format!("{id}: {}", path.display())),
        None => finding(id, Level::Info, missing).fix(install(&facts.os, package)),
    })
}

pub(super) fn tun(facts: &HostFacts, around: &Surroundings) -> Finding {
    let missing = "taps cannot be made or opened, user networking works";
    node(
        "tun",
        &facts.tun,
        around,
        "taps can be used",
        missing,
        "tun",
    )
}

pub(super) fn vhost_net(facts: &HostFacts, around: &Surroundings) -> Finding {
    let good = "the kernel can carry the packets of taps";
    let missing = "packets of taps take the way through QEMU, which is slower";
    node(
        "vhost-net",
        &facts.vhost_net,
        around,
        good,
        missing,
        "vhost_net",
    )
}

pub(super) fn vhost_vsock(facts: &HostFacts, around: &Surroundings) -> Finding {
    let good = "guests can have vsock";
    let missing = "guests cannot have vsock";
    node(
        "vhost-vsock",
        &facts.vhost_vsock,
        around,
        good,
        missing,
        "vhost_vsock",
    )
}

/// A node that is nice to have.
fn node(
    id: &str,
    node: &DeviceNode,
    around: &Surroundings,
    good: &str,
    missing: &str,
    module: &str,
) -> Finding {
    let Some(why) = &node.why_not else {
        return finding(id, Level::Ok, format!("{}: {good}", node.path));
    };
    let text = format!("{}: {why}; {missing}", node.path);
    let fix = match why {
        NodeProblem::Missing | NodeProblem::NoDriver => format!(
            "`sudo modprobe {module}`; a kernel without that module, or a container, has to be given it"
        ),
        NodeProblem::Denied { group, .. } => {
            allow(group.as_deref(), &node.path, around.user.as_deref())
        }
        NodeProblem::Other(_) => return finding(id, Level::Info, text),
    };
    finding(id, Level::Info, text).fix(fix)
}
