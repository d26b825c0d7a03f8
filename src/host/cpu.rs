//! The processor.

use std::io::Read;

use serde::{Deserialize, Serialize};

use super::facts::Roots;
use super::sysfs::{self, Sysfs};

/// The processor, as far as guests care.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuFacts {
    /// `GenuineIntel`, `AuthenticAMD`; on Arm the implementer's name or its number.
    pub vendor: String,
    /// The model's name; on Arm the part numbers of all kinds of core, or the name the kernel gives.
    pub model: String,
    /// CPUs online.
    pub online: u32,
    /// Their numbers; empty where the kernel does not tell.
    #[serde(default)]
    pub cpus: Vec<u32>,
    /// The microcode's revision, where the CPU has one. Part of the keys of cached probes.
    pub microcode: Option<String>,
    /// Virtualisation by hardware, as the CPU's flags tell it.
    pub virt: VirtFlags,
    /// Kinds of core (big.LITTLE, Intel's hybrids); one entry on a uniform Arm machine, none on a uniform x86.
    pub clusters: Vec<CpuCluster>,
}

/// Hints about virtualisation support that do not need `/dev/kvm`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtFlags {
    /// Intel VT-x.
    pub vmx: bool,
    /// AMD-V.
    pub svm: bool,
    /// This machine is itself a guest.
    pub hypervisor: bool,
    /// What sits above this kernel, where firmware or kernel tell its name (Arm device trees, Xen).
    pub hypervisor_name: Option<String>,
}

/// CPUs of one kind that share a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuCluster {
    /// The CPUs' numbers.
    pub cpus: Vec<u32>,
    /// MIDR_EL1, where the kernel shows it.
    pub midr: Option<u64>,
    /// Relative performance, 1024 for the fastest kind.
    pub capacity: Option<u64>,
    /// On Intel's hybrids the kernel's name for the kind: `core` or `atom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hybrid: Option<String>,
}

/// The cores of one kind: those of all its clusters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuKind {
    /// The CPUs' numbers, in order.
    pub cpus: Vec<u32>,
    rank: Option<u64>,
    like: CpuCluster,
}

impl CpuFacts {
    /// Reads `/proc/cpuinfo` and `/sys/devices/system/cpu`.
    pub fn read(roots: &Roots) -> Self {
        let info = cpuinfo_head(roots);
        let mut facts = parse_cpuinfo(&info);
        facts.cpus = list(&roots.sysfs, "devices/system/cpu/online");
        facts.online = match facts.cpus.len() {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            some => some as u32,
        };
        facts.virt.hypervisor_name = hypervisor_name(roots);
        facts.virt.hypervisor |= facts.virt.hypervisor_name.is_some();
        facts.clusters = if cfg!(target_arch = "aarch64") {
            clusters(&roots.sysfs)
        } else {
            hybrid(&roots.sysfs)
        };
        facts
    }

    /// The numbers of the CPUs online, counted from 0 where the kernel does not tell them.
    pub fn online_cpus(&self) -> Vec<u32> {
        match self.cpus.as_slice() {
            [] => (0..self.online).collect(),
            cpus => cpus.to_vec(),
        }
    }

    /// The kinds of core, the slowest first. One or none on a uniform machine.
    pub fn kinds(&self) -> Vec<CpuKind> {
        let mut kinds: Vec<CpuKind> = Vec::new();
        for cluster in &self.clusters {
            let same = kinds.iter_mut().find(|kind| kind.like.is_like(cluster));
            match same {
                Some(kind) => kind.cpus.extend(&cluster.cpus),
                None => kinds.push(CpuKind {
                    cpus: cluster.cpus.clone(),
                    rank: match &cluster.hybrid {
                        Some(name) => Some(u64::from(name == "core")),
                        None => cluster.capacity,
                    },
                    like: cluster.clone(),
                }),
            }
        }
        kinds.iter_mut().for_each(|kind| kind.cpus.sort_unstable());
        kinds.sort_by_key(|kind| kind.rank);
        kinds
    }
}

impl CpuCluster {
    /// Whether the cores of both are of one kind.
    fn is_like(&self, other: &Self) -> bool {
        (self.midr, self.capacity, &self.hybrid) == (other.midr, other.capacity, &other.hybrid)
    }
}

impl CpuKind {
    /// Whether it is known how fast it is, beside others.
    pub fn is_ranked(&self) -> bool {
        self.rank.is_some()
    }
}

/// A list of CPUs; empty where there is none.
fn list(sys: &Sysfs, path: &str) -> Vec<u32> {
    let text = sys.read(path).ok();
    text.and_then(|text| sysfs::parse_list(&text))
        .unwrap_or_default()
}

/// The kinds of core that the kernel has performance counters of their own for: `cpu_core` and `cpu_atom`, which
/// are there on Intel's hybrids only.
fn hybrid(sys: &Sysfs) -> Vec<CpuCluster> {
    let kind = |name: &str| CpuCluster {
        cpus: list(sys, &format!("devices/cpu_{name}/cpus")),
        midr: None,
        capacity: None,
        hybrid: Some(name.to_owned()),
    };
    let kinds = ["core", "atom"].map(kind);
    if kinds.iter().any(|kind| kind.cpus.is_empty()) {
        return Vec::new();
    }
    kinds.into()
}

/// The first CPUs' part of `/proc/cpuinfo`: the kernel makes the text CPU by CPU as it is read, which
/// takes long on a large machine, and mvm wants the first one only.
fn cpuinfo_head(roots: &Roots) -> String {
    let mut text = Vec::new();
    if let Ok(file) = std::fs::File::open(roots.path("/proc/cpuinfo")) {
        // A read that fails half-way leaves what came before it, which is all that is used.
        let _ = file.take(8192).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn parse_cpuinfo(text: &str) -> CpuFacts {
    let value = |key: &str| {
        text.lines().find_map(|l| {
            let (k, v) = l.split_once(':')?;
            (k.trim() == key).then(|| v.trim())
        })
    };
    let flags: Vec<&str> = value("flags")
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let implementer = value("CPU implementer").and_then(sysfs::parse_u64);
    let part = value("CPU part").and_then(sysfs::parse_u64);
    CpuFacts {
        vendor: match (value("vendor_id"), implementer) {
            (Some(vendor), _) => vendor.to_owned(),
            (None, Some(code)) => {
                implementer_name(code).map_or_else(|| format!("{code:#x}"), str::to_owned)
            }
            (None, None) => String::new(),
        },
        model: match (value("model name"), part) {
            (Some(name), _) => name.to_owned(),
            (None, Some(part)) => part_name(implementer, part)
                .map_or_else(|| format!("part {part:#x}"), str::to_owned),
            (None, None) => String::new(),
        },
        online: 0,
        cpus: Vec::new(),
        microcode: value("microcode").map(str::to_owned),
        virt: VirtFlags {
            vmx: flags.contains(&"vmx"),
            svm: flags.contains(&"svm"),
            hypervisor: flags.contains(&"hypervisor"),
            hypervisor_name: None,
        },
        clusters: Vec::new(),
    }
}

/// Implementer codes of MIDR_EL1 (Arm Architecture Reference Manual, and the vendors' own).
fn implementer_name(code: u64) -> Option<&'static str> {
    Some(match code {
        0x41 => "Arm",
        0x42 => "Broadcom",
        0x43 => "Cavium",
        0x46 => "Fujitsu",
        0x48 => "HiSilicon",
        0x4e => "NVIDIA",
        0x51 => "Qualcomm",
        0x53 => "Samsung",
        0x61 => "Apple",
        0x6d => "Microsoft",
        0xc0 => "Ampere",
        _ => return None,
    })
}

/// Names of common parts; the rest is shown by number.
fn part_name(implementer: Option<u64>, part: u64) -> Option<&'static str> {
    Some(match (implementer?, part) {
        (0x41, 0xd03) => "Cortex-A53",
        (0x41, 0xd05) => "Cortex-A55",
        (0x41, 0xd07) => "Cortex-A57",
        (0x41, 0xd08) => "Cortex-A72",
        (0x41, 0xd0b) => "Cortex-A76",
        (0x41, 0xd0c) => "Neoverse N1",
        (0x41, 0xd40) => "Neoverse V1",
        (0x41, 0xd41) => "Cortex-A78",
        (0x41, 0xd44) => "Cortex-X1",
        (0x41, 0xd49) => "Neoverse N2",
        (0x41, 0xd4b) => "Cortex-A78C",
        (0x41, 0xd4c) => "Cortex-X1C",
        (0x41, 0xd4f) => "Neoverse V2",
        (0x51, 0x001) => "Oryon",
        (0xc0, 0xac3) => "Ampere-1",
        _ => return None,
    })
}

/// What the firmware or the kernel say runs above us. A device tree's `hypervisor` node carries it as
/// `compatible`; Xen has `/sys/hypervisor`.
fn hypervisor_name(roots: &Roots) -> Option<String> {
    if let Ok(kind) = roots.sysfs.read("hypervisor/type") {
        return Some(kind);
    }
    let raw = std::fs::read(
        roots
            .sysfs
            .path("firmware/devicetree/base/hypervisor/compatible"),
    )
    .ok()?;
    let first = raw.split(|b| *b == 0).next()?;
    Some(String::from_utf8_lossy(first).into_owned())
}

/// CPUs grouped by kind and cluster, in the order of their first CPU.
fn clusters(sys: &Sysfs) -> Vec<CpuCluster> {
    let cpu_dir = "devices/system/cpu";
    let online = list(sys, &format!("{cpu_dir}/online"));
    let mut found: Vec<(Option<u64>, CpuCluster)> = Vec::new();
    for cpu in online {
        let number = |file: &str| sys.read_u64(format!("{cpu_dir}/cpu{cpu}/{file}")).ok();
        let midr = number("regs/identification/midr_el1");
        let capacity = number("cpu_capacity");
        let id = number("topology/cluster_id");
        match found
            .iter_mut()
            .find(|(i, c)| *i == id && c.midr == midr && c.capacity == capacity)
        {
            Some((_, cluster)) => cluster.cpus.push(cpu),
            None => found.push((
                id,
                CpuCluster {
                    cpus: vec![cpu],
                    midr,
                    capacity,
                    hybrid: None,
                },
            )),
        }
    }
    found.into_iter().map(|(_, cluster)| cluster).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use super::*;
    use crate::host::testing::{put, roots};

    #[test]
    fn an_intel_cpu() {
        let dir = tempfile::tempdir().unwrap();
        put(
            dir.path(),
            "proc/cpuinfo",
            "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel\t\t: 151\nmodel name\t: 12th Gen Intel(R) Core(TM) i7\n\
             microcode\t: 0x2c\nflags\t\t: fpu vme vmx ept\n\nprocessor\t: 1\nflags\t\t: none\n",
        );
        put(dir.path(), "sys/devices/system/cpu/online", "0-3,6\n");
        let cpu = CpuFacts::read(&roots(dir.path()));
        assert_eq!(cpu.model, "12th Gen Intel(R) Core(TM) i7");
        assert_eq!((cpu.online, cpu.microcode.as_deref()), (5, Some("0x2c")));
        assert!(cpu.virt.vmx && !cpu.virt.svm && !cpu.virt.hypervisor);
    }

    #[test]
    fn arm_cores_by_name_and_by_number() {
        let cpu = parse_cpuinfo("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n");
        assert_eq!(
            (cpu.vendor.as_str(), cpu.model.as_str()),
            ("Arm", "Cortex-A76")
        );
        let cpu = parse_cpuinfo("CPU implementer\t: 0x99\nCPU part\t: 0x7\n");
        assert_eq!(
            (cpu.vendor.as_str(), cpu.model.as_str()),
            ("0x99", "part 0x7")
        );
    }

    #[test]
    fn big_and_little_clusters() {
        let dir = tempfile::tempdir().unwrap();
        let sys = Sysfs::at(dir.path());
        put(dir.path(), "devices/system/cpu/online", "0-5\n");
        for cpu in 0..6 {
            let (midr, capacity, cluster) = if cpu < 4 {
                ("0x411fd050", "420", "0")
            } else {
                ("0x411fd0b0", "1024", "1")
            };
            let at = format!("devices/system/cpu/cpu{cpu}");
            put(
                dir.path(),
                &format!("{at}/regs/identification/midr_el1"),
                midr,
            );
            put(dir.path(), &format!("{at}/cpu_capacity"), capacity);
            put(dir.path(), &format!("{at}/topology/cluster_id"), cluster);
        }
        let found = clusters(&sys);
        assert_eq!(found.len(), 2);
        assert_eq!(
            found[0],
            CpuCluster {
                cpus: vec![0, 1, 2, 3],
                midr: Some(0x411f_d050),
                capacity: Some(420),
                hybrid: None,
            }
        );
        assert_eq!(
            (found[1].cpus.as_slice(), found[1].capacity),
            ([4, 5].as_slice(), Some(1024))
        );
    }

    #[test]
    fn kinds_of_core_are_ranked() {
        let cluster = |cpus: &[u32], midr, capacity| CpuCluster {
            cpus: cpus.to_vec(),
            midr: Some(midr),
            capacity: Some(capacity),
            hybrid: None,
        };
        let cpu = CpuFacts {
            // Three kinds, the middle one in two clusters.
            clusters: vec![
                cluster(&[7], 3, 1024),
                cluster(&[2, 3], 2, 700),
                cluster(&[0, 1], 1, 300),
                cluster(&[4, 5], 2, 700),
            ],
            ..CpuFacts::default()
        };
        let kinds: Vec<Vec<u32>> = cpu.kinds().into_iter().map(|kind| kind.cpus).collect();
        assert_eq!(kinds, [vec![0, 1], vec![2, 3, 4, 5], vec![7]]);
        assert!(CpuFacts::default().kinds().is_empty());
    }

    #[test]
    fn performance_and_efficient_cores() {
        let dir = tempfile::tempdir().unwrap();
        let sys = Sysfs::at(dir.path());
        assert!(hybrid(&sys).is_empty());
        put(dir.path(), "devices/cpu_core/cpus", "0-3\n");
        assert!(hybrid(&sys).is_empty());
        put(dir.path(), "devices/cpu_atom/cpus", "4-11\n");
        let cpu = CpuFacts {
            clusters: hybrid(&sys),
            ..CpuFacts::default()
        };
        let kinds = cpu.kinds();
        assert!(kinds.iter().all(CpuKind::is_ranked));
        assert_eq!(kinds[0].cpus, (4..12).collect::<Vec<_>>());
        assert_eq!(kinds[1].cpus, [0, 1, 2, 3]);
    }

    #[test]
    fn a_hypervisor_that_the_device_tree_names() {
        let dir = tempfile::tempdir().unwrap();
        put(
            dir.path(),
            "sys/firmware/devicetree/base/hypervisor/compatible",
            "qcom,gunyah-hypervisor-1.0\0gunyah\0",
        );
        let cpu = CpuFacts::read(&roots(dir.path()));
        assert_eq!(
            cpu.virt.hypervisor_name.as_deref(),
            Some("qcom,gunyah-hypervisor-1.0")
        );
        assert!(cpu.virt.hypervisor);
    }
}
